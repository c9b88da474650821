"""From one volume to its 2-D slices, in a common orientation, geometry and intensity scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mri_transfer.datasets.slices.intensity import find_window, turn_forward
from mri_transfer.datasets.slices.resample import resample_stack
from mri_transfer.datasets.volumes.planes import AXES, PLANES, is_usable, no_usable_plane
from mri_transfer.datasets.volumes.volume import BadVolume, Volume

_STACK = 8  # floating-point slices at a time, to fit in a CPU cache


@dataclass(frozen=True)
class Slices:
    """Slices of one volume, plane by plane and in rising position.

    Attributes:
        images: uint8 (n, size, size).
        plane: n names.
        position_mm: n positions across the plane, mm, in scanner coordinates: to the right, front or top.
        position: the same, as a fraction of the volume, 0..1.
        redundant: number of further slices cut but left out because a kept one shows the same.
    """

    images: np.ndarray
    plane: tuple[str, ...]
    position_mm: tuple[float, ...]
    position: tuple[float, ...]
    redundant: int = 0


def cut(
    volume: Volume,
    size: int = 160,
    spacing: float = 4.0,
    planes: Sequence[str] = PLANES,
    min_foreground: float = 0.15,
) -> Slices:
    """Cut a volume into slices.

    Args:
        size: side of a slice, pixels.
        spacing: minimum distance between kept slices of the same orientation, mm.
        planes: which of :data:`PLANES` to cut, if the voxels allow it.
        min_foreground: least foreground share of the padded square.

    Raises:
        BadVolume: nothing in it can be used.
    """
    window = find_window(volume.voxels)
    inside = window.foreground(volume.voxels)
    usable = [plane for plane in planes if is_usable(volume, plane)]
    if not usable:
        raise no_usable_plane(volume.voxels.shape, volume.zooms)
    by_plane = {plane: keep(volume, inside, plane, spacing, min_foreground) for plane in usable}
    images = np.empty((sum(map(len, by_plane.values())), size, size), dtype=np.uint8)
    if not len(images):
        raise BadVolume("every slice is mostly background; see --min-foreground")
    names: list[str] = []
    millimetres: list[float] = []
    fractions: list[float] = []
    for plane, layers in by_plane.items():
        across, down, along = AXES[plane]
        pixel = (volume.zooms[down], volume.zooms[along])
        stack = volume.voxels.transpose(across, down, along)
        block = images[len(names) : len(names) + len(layers)]
        for start in range(0, len(layers), _STACK):
            grey = window.grey(_selected_layers(stack, layers[start : start + _STACK]))
            grey = resample_stack(grey, pixel, size, flip=(True, True))
            grey += 0.5
            block[start : start + _STACK] = np.clip(grey, 0.0, 255.0, out=grey)
        names += [plane] * len(layers)
        millimetres += [volume.origins[across] + index * volume.zooms[across] for index in layers]
        fractions += [(index + 0.5) / stack.shape[0] for index in layers]
    return Slices(
        images=images,
        plane=tuple(names),
        position_mm=tuple(round(float(value), 3) for value in millimetres),
        position=tuple(round(float(value), 5) for value in fractions),
    )


def _selected_layers(stack: np.ndarray, layers: np.ndarray) -> np.ndarray:
    """Some layers of a stack, without copying if evenly spaced, as they usually are."""
    first, last = int(layers[0]), int(layers[-1])
    step = int(layers[1]) - first if len(layers) > 1 else 1
    evenly = range(first, last + 1, step)
    return stack[first : last + 1 : step] if layers.tolist() == list(evenly) else stack[layers]


def keep(volume: Volume, inside: np.ndarray, plane: str, spacing: float, min_foreground: float) -> np.ndarray:
    """Indices of the slices worth keeping: with enough head, and far enough apart.

    Args:
        inside: boolean (x, y, z), the foreground.
        spacing, min_foreground: as in :func:`cut`.

    Returns:
        Rising indices along the volume's axis across `plane`: the first slice with enough foreground, then each next
        one at least `spacing` mm further.
    """
    across, down, along = AXES[plane]
    height, width = (volume.voxels.shape[axis] * volume.zooms[axis] for axis in (down, along))
    pixel_share = volume.zooms[down] * volume.zooms[along] / max(height, width) ** 2
    share = _count_along(inside, across) * pixel_share
    thickness = volume.zooms[across]
    indices: list[int] = []
    for index in np.flatnonzero(share >= min_foreground).tolist():
        if not indices or (index - indices[-1]) * thickness >= spacing - 1e-3 * thickness:
            indices.append(index)
    return np.asarray(indices, dtype=np.intp)


def _count_along(inside: np.ndarray, axis: int) -> np.ndarray:
    """Number of true voxels in each layer across an axis.

    Bytes adjacent in memory are counted first, which a CPU does many at a time.
    """
    turned = turn_forward(inside)
    order = sorted(range(3), key=lambda dimension: -abs(inside.strides[dimension]))
    inside = inside[turned]
    layers = np.moveaxis(inside, axis, 0)
    if order[0] == axis:  # each layer is contiguous
        return np.array([np.count_nonzero(layer) for layer in layers], dtype=np.int64)[turned[axis]]
    outer = np.moveaxis(inside.view(np.uint8), order[0], 0)
    total = np.zeros(outer.shape[1:], dtype=np.uint32)
    for start in range(0, len(outer), 255):  # the range of a byte
        total += np.add.reduce(outer[start : start + 255], axis=0, dtype=np.uint8)
    place = [dimension for dimension in range(3) if dimension != order[0]].index(axis)
    return total.sum(axis=1 - place, dtype=np.int64)[turned[axis]]
