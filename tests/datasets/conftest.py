"""Small volumes that look enough like heads, written in any orientation."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest


def _head(shape=(40, 48, 44), seed=0):
    """A canonical (RAS+) T1-like head: noisy air, scalp, tissue, dark fluid in the middle."""
    random = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    radius = np.sqrt((x / 0.75) ** 2 + (y / 0.85) ** 2 + (z / 0.8) ** 2)
    head = np.abs(random.normal(0, 3, shape))
    head[radius < 1] = 180
    head[radius < 0.95] = 16  # skull
    head[radius < 0.9] = 90
    head[radius < 0.6] = 130
    head[radius < 0.25] = 35  # a ventricle
    return (head + random.normal(0, 2, shape)).clip(0).astype(np.float32)


def _save(
    path: Path, voxels: np.ndarray, zooms=(1.0, 1.0, 1.0), axes: str = "RAS", dtype=np.int16, slope=None
):
    """Write canonical `voxels` with its axes stored in the order and direction that `axes` names."""
    affine = np.diag([*zooms, 1.0])
    affine[:3, 3] = -np.array(voxels.shape) * zooms / 2
    to = nib.orientations.axcodes2ornt(tuple(axes))
    change = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt(tuple("RAS")), to)
    stored = nib.orientations.apply_orientation(voxels.astype(dtype), change)
    affine = affine @ nib.orientations.inv_ornt_aff(change, voxels.shape)
    image = nib.Nifti1Image(stored, affine, dtype=np.dtype(dtype))
    if slope is not None:
        image.header.set_slope_inter(*slope)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


@pytest.fixture
def head():
    """Makes a head: head(shape, seed) -> float32 (x, y, z)."""
    return _head


@pytest.fixture
def save():
    """Writes a NIfTI volume: save(path, voxels, zooms, axes, dtype, slope) -> path."""
    return _save
