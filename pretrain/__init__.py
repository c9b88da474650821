"""Stage one: train an encoder on a slice store without labels.

Read in this order: ``config`` (every setting), ``pretrain`` (the command), ``run`` (the training loop, saving and
recovery), ``pairs`` (which slices belong together), ``augmentations`` (how views are made), ``methods`` (one file
each), ``fit`` (fitting a step into memory), ``devices`` (training on several), ``health`` (what an encoder has learnt).
"""
