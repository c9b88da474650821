"""Augmentations that imitate what programs, web pages and file formats do to pictures.

All functions take float pictures (n, size, size) in 0..1 and one parameter per picture; neutral parameters change
nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from mri_transfer.pretrain.augmentations.tensors import dct_matrix, per_image

BLOCK = 8
# Quantisation of luminance at quality 50: ITU-T T.81 (1992), table K.1.
LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    dtype=np.float32,
)


def lift_black(x: Any, haze: Any) -> Any:
    """Show black as grey: (n,) `haze` in 0..1 is what black becomes, white stays white."""
    return x + per_image(haze) * (1.0 - x)


def fill_outside(x: Any, *, left: Any, right: Any, top: Any, bottom: Any, grey: Any) -> Any:
    """Overwrite strips along the edges with one grey: a frame, or bars that pad another aspect to a square.

    Args:
        left, right, top, bottom: (n,) widths as fractions of the side; 0 is none.
        grey: (n,) in 0..1.
    """
    at = ((np.arange(x.shape[1], dtype=np.float32) + 0.5) / x.shape[1])[None, :]

    def within(low: Any, high: Any) -> Any:
        return (at >= ops.reshape(low, (-1, 1))) & (at <= 1 - ops.reshape(high, (-1, 1)))

    rows, columns = within(top, bottom), within(left, right)
    return ops.where(ops.expand_dims(rows, 2) & ops.expand_dims(columns, 1), x, per_image(grey))


def hide(x: Any, *, side: Any, left: Any, top: Any) -> Any:
    """Blacken a square: its side, left and top are (n,) fractions of the picture's side."""
    at = ((np.arange(x.shape[1], dtype=np.float32) + 0.5) / x.shape[1])[None, :]

    def within(low: Any) -> Any:
        low = ops.reshape(low, (-1, 1))
        return (at >= low) & (at < low + ops.reshape(side, (-1, 1)))

    return ops.where(ops.expand_dims(within(top), 2) & ops.expand_dims(within(left), 1), 0.0, x)


def lower_depth(x: Any, levels: Any) -> Any:
    """Round to (n,) `levels` equally spaced greys from black to white; 0 leaves a picture as it is."""
    steps = per_image(ops.maximum(levels - 1, 1.0))
    return ops.where(per_image(levels) > 0, ops.round(x * steps) / steps, x)


def jpeg_table(quality: Any) -> Any:
    """Quantisation steps (n, 64) in units of 1/255 for (n,) qualities 1..100, as the IJG's library scales them."""
    quality = ops.reshape(quality, (-1, 1))
    scale = ops.where(quality < 50, 5000.0 / ops.maximum(quality, 1.0), 200.0 - 2.0 * quality)
    return ops.clip(ops.floor((LUMINANCE.reshape(1, 64) * scale + 50.0) / 100.0), 1.0, 255.0)


def jpeg(x: Any, quality: Any) -> Any:
    """Imitate JPEG's loss: cosine coefficients of 8 x 8 pixel blocks are rounded to multiples of a table's entries.

    ITU-T T.81 (1992). Sides that are not a multiple of 8 are padded by mirroring.

    Args:
        quality: (n,) 1..100; 0 leaves a picture as it is.
    """
    size = x.shape[1]
    missing = -size % BLOCK
    padded = ops.pad(x, [[0, 0], [0, missing], [0, missing]], mode="symmetric") if missing else x
    blocks = (size + missing) // BLOCK
    basis = dct_matrix(BLOCK)
    transform = np.kron(basis, basis)  # (frequency, place) of a block, flattened row by row
    pixels = ops.transpose(ops.reshape(padded, (-1, blocks, BLOCK, blocks, BLOCK)), (0, 1, 3, 2, 4))
    pixels = ops.reshape(pixels, (-1, blocks * blocks, BLOCK * BLOCK))
    steps = ops.expand_dims(jpeg_table(quality), 1)
    # JPEG stores greys from -128 on, around 0; that only affects the rounding of the mean.
    coefficients = ops.matmul(pixels * 255.0 - 128.0, transform.T)
    quantised = ops.round(coefficients / steps) * steps
    pixels = (ops.matmul(quantised, transform) + 128.0) / 255.0
    pixels = ops.transpose(ops.reshape(pixels, (-1, blocks, blocks, BLOCK, BLOCK)), (0, 1, 3, 2, 4))
    lossy = ops.reshape(pixels, (-1, size + missing, size + missing))[:, :size, :size]
    return ops.where(per_image(quality) > 0, ops.clip(lossy, 0.0, 1.0), x)
