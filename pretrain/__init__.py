"""Stage one: train an encoder on a slice store without labels.

Read in this order: ``config`` (every setting), ``pretrain`` (the command), ``run`` (what happens in a step, and
what keeps a night safe), ``pairs`` (which slices belong together), ``augmentations`` (how views are made of
them), ``methods`` (one file each), ``fit`` (what this machine can hold), ``devices`` (several of them),
``health`` (what an encoder has learnt).
"""
