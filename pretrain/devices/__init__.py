"""What a run trains with: one device, all devices of this process, or those of a process group on one or many hosts.

Several devices are JAX's business: `keras.distribution` lays a step out over them, `jax.distributed`
connects processes.

    choice.py      picks what there is, for the run
    sharding.py    weights on every device, rows of a batch on one each, and a trainer that trains so
    membership.py  which rank of how many this process is
    group.py       a process group: rank 0 runs the loop, the others do each step with it

May use the run's trainer; nothing but the start of a run may use this folder.
"""
