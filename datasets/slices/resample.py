"""Resizing whole stacks of slices at once, as two matrix products.

Bicubic resizing with anti-aliasing is linear and separable: every output row is a fixed weighted sum of input
rows, and the same holds for columns. So the change from voxels to isotropic millimetres, the padding to a square and
the final resize combine into one small matrix per axis, and a stack of n slices takes two matrix products instead of n
calls of an image library.

The weights follow Pillow's `Image.resize(..., BICUBIC)`: Keys' cubic with a = -1/2 (R. Keys, "Cubic
convolution interpolation for digital image processing", 1981), its support stretched by the scale when
shrinking.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_A = -0.5  # Keys' parameter
_SUPPORT = 2.0
# Rows of an axis matrix multiplied at once: fewer rows mean fewer zeros, but as columns of a product they must fill a
# CPU's vectors.
_ACROSS, _DOWN = 32, 16


def cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' cubic kernel at `distance` (in samples), zero from 2."""
    x = np.abs(distance)
    near = ((_A + 2.0) * x - (_A + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * _A
    return np.where(x < 1.0, near, np.where(x < _SUPPORT, far, 0.0))


@lru_cache(maxsize=64)
def axis_matrix(count: int, spacing: float, extent: float, size: int, flip: bool = False) -> np.ndarray:
    """The matrix that takes one axis of a slice to one axis of the output square.

    Args:
        count: input samples along the axis.
        spacing: distance between them, mm.
        extent: side of the output square, mm, at least `count * spacing`; the input is centred in it and the padding
            counts as zero.
        size: output samples along the axis.
        flip: reverse the axis.

    Returns:
        float32 (size, count), read-only. Rows whose kernel lies inside the input sum to one, rows in the
        padding to zero.
    """
    scale = extent / spacing / size  # input samples per output sample
    margin = max((extent / spacing - count) / 2.0, 0.0)
    # Snap to a whole number of samples where the division of millimetres is off by rounding.
    if abs(margin - round(margin)) < 1e-6:
        margin = float(round(margin))
    border = int(np.ceil(margin))
    samples = np.arange(-border, count + border)
    centres = (np.arange(size) + 0.5) * scale - margin
    weights = cubic((samples[None, :] + 0.5 - centres[:, None]) / max(scale, 1.0))
    weights /= weights.sum(axis=1, keepdims=True)
    weights = weights[:, border : border + count]
    matrix = np.ascontiguousarray(weights[:, ::-1] if flip else weights, dtype=np.float32)
    matrix.setflags(write=False)
    return matrix


@dataclass(frozen=True)
class _Block:
    """Adjacent rows of an axis matrix, without the columns that are zero in all of them.

    The weights are stored contiguously in both orders: matrix libraries transpose small matrices slowly.
    """

    made: slice
    columns: slice
    weights: np.ndarray  # (made, taken)
    turned: np.ndarray  # (taken, made)


@lru_cache(maxsize=64)
def _blocks(
    count: int, spacing: float, extent: float, size: int, flip: bool, block_rows: int
) -> tuple[slice, tuple[_Block, ...]]:
    """:func:`axis_matrix` in blocks: each output depends on a few samples, so most of the matrix is zero.

    Rows in the padding are all zero and belong to no block.

    Returns:
        The rows that are not padding, and blocks of up to `block_rows` of them, counted from the first.
    """
    matrix = axis_matrix(count, spacing, extent, size, flip)
    filled = np.flatnonzero(matrix.any(axis=1))
    inner = matrix[filled[0] : filled[-1] + 1]
    blocks = []
    for start in range(0, len(inner), block_rows):
        rows = inner[start : start + block_rows]
        nonzero = np.flatnonzero(rows.any(axis=0))
        columns = slice(int(nonzero[0]), int(nonzero[-1]) + 1)
        weights = np.ascontiguousarray(rows[:, columns])
        turned = np.ascontiguousarray(weights.T)
        blocks.append(_Block(slice(start, start + len(rows)), columns, weights, turned))
    return slice(int(filled[0]), int(filled[-1]) + 1), tuple(blocks)


def resample_stack(
    stack: np.ndarray, spacing: tuple[float, float], size: int, flip: tuple[bool, bool] = (False, False)
) -> np.ndarray:
    """Resample slices to isotropic pixels, zero-pad to a square and resize, with anti-aliasing.

    Args:
        stack: float32 (n, rows, columns).
        spacing: distance between rows and between columns, mm.
        size: side of the output, pixels.
        flip: reverse rows, reverse columns.

    Returns:
        float32 (n, size, size). Bicubic weights can overshoot the input's range by a few per cent.
    """
    n, rows, columns = stack.shape
    extent = max(rows * spacing[0], columns * spacing[1])
    across, blocks = _blocks(columns, spacing[1], extent, size, flip[1], _ACROSS)
    flat = stack.reshape(n * rows, columns)
    wide = np.empty((n * rows, across.stop - across.start), dtype=np.float32)
    for block in blocks:
        np.matmul(flat[:, block.columns], block.turned, out=wide[:, block.made])
    down, blocks = _blocks(rows, spacing[0], extent, size, flip[0], _DOWN)
    wide = wide.reshape(n, rows, -1)
    square = np.zeros((n, size, size), dtype=np.float32)
    picture = square[:, down, across]
    for block in blocks:
        np.matmul(block.weights, wide[:, block.columns], out=picture[:, block.made])
    return square
