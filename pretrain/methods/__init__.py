"""The self-supervised methods, one file each, listed here by the name the command line uses.

A method is a :class:`keras.Model` that is built from an encoder and turns a batch of slice pairs into a loss; it
knows nothing of budgets, schedules or saving.
"""

from mri_transfer.pretrain.methods.simclr import SimCLR

METHODS = {"simclr": SimCLR}
