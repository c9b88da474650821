"""Helpers shared by several augmentations."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops


def per_image(parameter: Any) -> Any:
    """One number per slice, (n,), reshaped to (n, 1, 1) to broadcast over pictures."""
    return ops.reshape(parameter, (-1, 1, 1))


def dct_matrix(size: int) -> np.ndarray:
    """The orthonormal discrete cosine transform (DCT-II) as a float32 matrix (frequency, place)."""
    frequency, place = np.arange(size)[:, None], np.arange(size)[None, :] + 0.5
    matrix = np.sqrt(2 / size) * np.cos(np.pi / size * frequency * place)
    matrix[0] /= np.sqrt(2)
    return matrix.astype(np.float32)


def shoulder(place: Any, library: Any = ops) -> Any:
    """The window of a low-pass filter: 1 up to 0.8 of the cut-off, 0 from the cut-off on, half a cosine between.

    A sharp cut-off would leave ripples beside every edge of the picture.

    Args:
        place: frequencies as fractions of the cut-off.
        library: `keras.ops` or NumPy.
    """
    return 0.5 + 0.5 * library.cos(np.pi * library.clip((place - 0.8) / 0.2, 0.0, 1.0))
