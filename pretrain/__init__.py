"""Stage one: train an encoder on a slice store without labels.

``run`` is the overnight run, ``positives`` says which slices belong together, ``views`` how they are augmented,
``methods`` holds one file per self-supervised method, ``health`` watches what they learn.
"""
