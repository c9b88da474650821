"""Moving a picture: field of view, zoom, aspect, tilt and mirror in one resampling that does not alias."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from mri_transfer.pretrain.augmentations.tensors import dct_matrix, shoulder

# Slices larger than this many times the view are shrunk first, without aliasing. Bilinear sampling, which reads two
# pixels a side, then skips hardly any, and zoomed-in views stay nearly as sharp.
LARGEST_STEP = 1.25


def shrink(x: Any, size: int) -> Any:
    """Shrink slices (n, side, side) to not much more than `size` pixels by keeping their lowest cosines."""
    side, target = x.shape[1], round(LARGEST_STEP * size)
    if side <= target:
        return x
    window = shoulder(np.arange(target) / target, np)[:, None]
    down = dct_matrix(target).T @ (window * dct_matrix(side)[:target]) * np.sqrt(target / side)
    down = down.astype(np.float32)
    return ops.clip(ops.matmul(ops.matmul(down, x), down.T), 0.0, 1.0)


def move(
    x: Any, size: int, *, zoom: Any, stretch: Any, angle: Any, mirror: Any, shift_x: Any, shift_y: Any
) -> Any:
    """Crop, zoom, stretch, rotate and mirror slices by one bilinear resampling; what lies outside is black.

    Args:
        x: float (n, side, side).
        size: side of the result, pixels.
        zoom: (n,) side of the field of view as a fraction of the slice's; 1 shows all of it.
        stretch: (n,) log (base e) of the factor by which width grows and height shrinks.
        angle: (n,) rotation in radians.
        mirror: (n,) -1 exchanges left and right, 1 does not.
        shift_x, shift_y: (n,) offset of its centre from the slice's, as fractions of the side.

    Returns:
        float (n, size, size).
    """
    side = x.shape[1]
    step = zoom * (side / size)  # slice pixels per view pixel
    wide, high = step * ops.exp(stretch), step * ops.exp(-stretch)
    cos, sin = ops.cos(angle), ops.sin(angle)
    # View pixel (u, v) -> slice pixel (a u + b v + x0, c u + d v + y0).
    a, b = mirror * cos * wide, -mirror * sin * high
    c, d = sin * wide, cos * high
    middle = (size - 1) / 2
    x0 = (side - 1) / 2 + shift_x * side - (a + b) * middle
    y0 = (side - 1) / 2 + shift_y * side - (c + d) * middle
    zero = ops.zeros_like(a)
    transform = ops.stack([a, b, x0, c, d, y0, zero, zero], axis=1)
    x = ops.expand_dims(x, -1)
    # The operation's output is as large as its input: use the larger size for both, and keep the corner.
    if (grow := size - side) > 0:
        x = ops.pad(x, [[0, 0], [0, grow], [0, grow], [0, 0]])
    warped = ops.image.affine_transform(
        x, transform, interpolation="bilinear", fill_mode="constant", data_format="channels_last"
    )
    return warped[:, :size, :size, 0]
