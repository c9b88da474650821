"""Estimate the slices a volume would give from its header, without reading voxels."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np

from mri_transfer.datasets.volumes.find import Source
from mri_transfer.datasets.volumes.planes import AXES, has_usable_pixels, no_usable_plane
from mri_transfer.datasets.volumes.volume import describe_volume

# Share of the slices fitting into a volume that show enough head: 0.83 in 255 scans from three collections.
_HEAD = 0.8


@dataclass(frozen=True)
class Geometry:
    """Shape and voxel size, mm, along the patient's x, y and z (RAS+)."""

    shape: tuple[int, int, int]
    zooms: tuple[float, float, float]


def read_geometry(source: Source, max_bytes: int, include: Collection[str] | None = None) -> Geometry:
    """The geometry of a volume; `include` as in :func:`describe_volume`.

    Raises:
        BadVolume: the header shows that the volume can't be used.
    """
    description = describe_volume(source.files, max_bytes, include)
    return _canonical(description.shape, description.affine)


def _canonical(shape: Sequence[int], affine: np.ndarray) -> Geometry:
    zooms = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    to = nib.io_orientation(affine)[:, 0].astype(int)  # direction of each stored axis
    lengths, sizes = [0, 0, 0], [0.0, 0.0, 0.0]
    for axis in range(3):
        lengths[to[axis]], sizes[to[axis]] = int(shape[axis]), float(zooms[axis])
    return Geometry((lengths[0], lengths[1], lengths[2]), (sizes[0], sizes[1], sizes[2]))


def expected_slices(geometry: Geometry, planes: Sequence[str], spacing: float) -> dict[str, int]:
    """Approximate number of slices per plane, before dropping redundant ones.

    Raises:
        BadVolume: no plane has usable pixels.
    """
    usable = [plane for plane in planes if has_usable_pixels(geometry.shape, geometry.zooms, plane)]
    if not usable:
        raise no_usable_plane(geometry.shape, geometry.zooms)
    expected = {}
    for plane in usable:
        across = AXES[plane][0]
        step = max(1, math.ceil(spacing / geometry.zooms[across] - 1e-3))
        expected[plane] = max(1, round(_HEAD * geometry.shape[across] / step))
    return expected
