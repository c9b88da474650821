"""The planes a volume can be cut along, and how its axes lie in the pictures."""

from __future__ import annotations

from collections.abc import Sequence

from mri_transfer.datasets.volumes.volume import BadVolume, Volume

PLANES = ("axial", "coronal", "sagittal")

MAX_ANISOTROPY = 2.5  # of a slice's pixels; thick-slice scans give one plane
_FEWEST_PIXELS = 8  # along a slice's side

# Axes of a canonical (RAS+) volume: across the slices, down the picture's rows, along its columns. All
# picture axes run against the volume's: rows from front (axial) or top to back or bottom, columns from the
# patient's right to left (radiological convention) or, sagittal, from front to back, so that the face looks
# to the left.
AXES = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}


def is_usable(volume: Volume, plane: str) -> bool:
    """Whether a plane has enough pixels, and square enough, to be shown."""
    return has_usable_pixels(volume.voxels.shape, volume.zooms, plane)


def has_usable_pixels(shape: Sequence[int], zooms: Sequence[float], plane: str) -> bool:
    """:func:`is_usable` from a volume's shape (x, y, z) and voxel size, mm."""
    _, down, along = AXES[plane]
    short, long = sorted((zooms[down], zooms[along]))
    fewest = min(shape[down], shape[along])
    return long / short <= MAX_ANISOTROPY + 1e-6 and fewest >= _FEWEST_PIXELS


def no_usable_plane(shape: Sequence[int], zooms: Sequence[float]) -> BadVolume:
    """The reason to raise if :func:`is_usable` is false for every plane."""
    sizes = " x ".join(f"{zoom:.3g}" for zoom in zooms)
    return BadVolume(
        f"no wanted plane has usable pixels ({' x '.join(map(str, shape))} voxels of {sizes} mm)"
    )
