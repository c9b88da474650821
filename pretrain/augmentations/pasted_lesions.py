"""Lesions pasted onto slices: random blobs, so that finding and describing them can be learnt without labels.

Pasting foreign patches onto healthy slices is an established pretext task and stand-in for pathology: CutPaste (Li et
al., CVPR 2021, https://arxiv.org/abs/2104.04015), foreign patch interpolation (Tan et al., 2020,
https://arxiv.org/abs/2011.05197), and tumours made by hand on healthy scans (Hu et al., "Label-Free Liver Tumor
Segmentation", CVPR 2023, https://arxiv.org/abs/2303.14869).

This is a prior, to be stated wherever its results are: a lesion is one blob with a core, a rim and surroundings, each
with its own grey. Nothing else is assumed about how a class of lesions looks: place, size, shape and greys are drawn
independently, and uniformly over the whole head.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from mri_transfer.pretrain.augmentations.scanner import head_mean
from mri_transfer.pretrain.augmentations.tensors import dct_matrix, per_image

# Radius as a fraction of the slice's side, log-uniform. A head fills about 0.8 of the side.
RADIUS = (0.03, 0.15)
# Cells per side of the grid that centres are drawn from, and the minimum brightness, as a fraction of the head's mean,
# for a cell to count as inside the head.
GRID, INSIDE = 16, 0.6
# Grey of core and rim as fractions of the head's mean; HALO is the most by which surroundings change.
GREY, HALO = (0.1, 2.0), 0.4
# Cosines per side for outline and texture, without the slowest, which hardly vary within a lesion.
WAVES, SLOWEST = 20, 3
# Numbers that describe a lesion, see `paste`.
DESCRIBED = ("across", "down", "radius", "core", "rim")
_UNIFORM = (
    *("there", "x", "y", "radius", "core", "rim", "width", "halo", "reach", "stretch", "angle", "rough"),
    *("texture", "through"),
)


def uniform_numbers(n: Any, random: Any) -> tuple[Any, Any, Any]:
    """Random input of :func:`paste`: (n, numbers), (n, cells) in [0, 1) and normal (n, 2, waves, waves).

    Args:
        n: number of lesions.
        random: `keras.random.SeedGenerator`.
    """
    import keras

    return (
        keras.random.uniform((n, len(_UNIFORM)), seed=random),
        keras.random.uniform((n, GRID * GRID), seed=random),
        keras.random.normal((n, 2, WAVES, WAVES), seed=random),
    )


def paste(x: Any, numbers: tuple[Any, Any, Any], share: float) -> tuple[Any, Any, Any]:
    """Paste lesions on some of the pairs, the same lesion at the same place of both slices.

    Args:
        x: (2 * n, side, side) in 0..1, the first slices of all pairs before the second ones.
        numbers: from :func:`uniform_numbers`.
        share: fraction of pairs that get one.

    Returns:
        The slices; 1.0 for a pair with a lesion and 0.0 for the others, (n,); and the lesion's description, (n, 5), in
        the order of DESCRIBED: its place from left and from top as fractions of the side, its radius on the logarithmic
        scale, and the greys of core and rim, all in 0..1.
    """
    uniform, cells, waves = numbers
    u = dict(zip(_UNIFORM, ops.unstack(uniform, num=len(_UNIFORM), axis=1), strict=True))
    side = x.shape[1]
    first, _ = ops.split(x, 2, axis=0)
    mean = head_mean(first)
    across, down = _places(first, mean, cells, u["x"], u["y"])
    present = ops.cast(u["there"] < share, "float32")
    low, high = np.log(RADIUS)
    radius = ops.exp(low + (high - low) * u["radius"])

    place = (np.arange(side, dtype="float32") + 0.5) / side
    dx = ops.reshape(place, (1, 1, side)) - per_image(across)
    dy = ops.reshape(place, (1, side, 1)) - per_image(down)
    angle, stretch = np.pi * u["angle"], ops.exp(0.6 * (u["stretch"] - 0.5))
    cos, sin = ops.cos(angle) / radius, ops.sin(angle) / radius
    along = (dx * per_image(cos) + dy * per_image(sin)) * per_image(stretch)
    perpendicular = (dy * per_image(cos) - dx * per_image(sin)) / per_image(stretch)
    field = _smooth(waves, side)
    # 1 at the lesion's outline, which the field makes irregular.
    distance = ops.sqrt(along * along + perpendicular * perpendicular) * (
        1.0 + 0.35 * per_image(u["rough"]) * ops.tanh(field[:, 0])
    )

    soft = 0.5 * (1 / side) / radius + 0.05  # half the width of an edge: about half a pixel, or more

    def within(limit: Any) -> Any:
        """1 inside `limit` times the outline, 0 outside, a slope between."""
        return ops.clip(0.5 + 0.5 * (per_image(limit) - distance) / per_image(soft), 0.0, 1.0)

    least, most = GREY
    core, rim = (per_image((least + (most - least) * u[name]) * mean) for name in ("core", "rim"))
    # A third of them have no rim.
    width = 0.4 * ops.maximum(0.0, 1.5 * u["width"] - 0.5)
    body, inner = within(ops.ones_like(width)), within(1.0 - width)
    grey = (rim + (core - rim) * inner) * (1.0 + 0.35 * per_image(u["texture"]) * field[:, 1])
    # Half of them are translucent, by up to a half.
    opaque = 1.0 - ops.maximum(0.0, u["through"] - 0.5)
    # Half of them change their surroundings, fading with distance.
    reach = 1.0 + 1.5 * u["reach"]
    around = ops.clip((per_image(reach) - distance) / per_image(reach - 0.9), 0.0, 1.0)
    lighter = HALO * ops.sign(u["halo"] - 0.5) * ops.maximum(0.0, 4.0 * ops.abs(u["halo"] - 0.5) - 1.0)

    def twice(values: Any) -> Any:
        return ops.concatenate([values, values], axis=0)

    presence = per_image(present)
    x = x * (1.0 + twice(presence * per_image(lighter) * around))  # black surroundings stay black
    body = presence * body * per_image(opaque)
    x = x * twice(1.0 - body) + twice(body * grey)
    descriptors = ops.stack([across, down, u["radius"], u["core"], u["rim"]], axis=1)
    return ops.clip(x, 0.0, 1.0), present, descriptors


def _places(x: Any, mean: Any, cells: Any, right: Any, below: Any) -> tuple[Any, Any]:
    """A random place in each slice's head, as fractions of the side: a bright grid cell, and a point within it."""
    side = x.shape[1]
    edges = np.arange(side) * GRID // side
    pooled = (edges[None, :] == np.arange(GRID)[:, None]).astype("float32")
    pooled /= pooled.sum(axis=1, keepdims=True)
    grey = ops.reshape(ops.matmul(ops.matmul(pooled, x), pooled.T), (-1, GRID * GRID))
    inside = ops.cast(grey > INSIDE * ops.expand_dims(mean, 1), "float32")
    cell = ops.argmax(cells + inside, axis=1)  # the largest number inside, if any
    row = ops.cast(cell // GRID, "float32")
    column = ops.cast(cell % GRID, "float32")
    return (column + right) / GRID, (row + below) / GRID


def _smooth(waves: Any, side: int) -> Any:
    """Random fields (n, 2, side, side) of mean 0 and variance about 1, from coefficients of low cosines."""
    count = min(WAVES, side)
    frequency = np.hypot(*np.mgrid[:count, :count])
    weight = (frequency >= SLOWEST) / (1.0 + frequency / SLOWEST)
    weight *= side / np.sqrt((weight**2).sum())
    basis = dct_matrix(side)[:count]
    coefficients = waves[:, :, :count, :count] * weight.astype("float32")
    return ops.matmul(ops.matmul(basis.T, coefficients), basis)
