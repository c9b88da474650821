"""A run's devices: one, all of this process, or those of a process group on one or many hosts.

Several devices need JAX: `keras.distribution` lays a step out over them, `jax.distributed` connects processes.

    choice.py      picks the run's devices
    sharding.py    weights on every device, each row of a batch on one; and the trainer for it
    membership.py  rank of this process and number of processes
    group.py       a process group: rank 0 runs the loop, the others do each step with it

May use the run's trainer; only the start of a run may use this folder.
"""
