"""The encoders that runs leave on disk, to be compared bit for bit."""

import numpy as np

from mri_transfer.checkpoints.encoders import load_encoder


def weights(run):
    return [np.asarray(variable) for variable in load_encoder(run).weights]


def same(a, b):
    """Whether two runs ended with the same encoder."""
    return all(np.array_equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))
