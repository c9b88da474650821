"""From slices to a stack: which belong together, their order and spacing, and which are missing."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from mri_transfer.datasets.volumes.formats.dicom.series_tags import Frame
from mri_transfer.datasets.volumes.formats.stored import BadVolume
from mri_transfer.words import counted

FEWEST = 3  # slices that make a volume
_SAME_DIRECTION = 0.01  # of a unit vector's components
_SAME_PLACE = 0.05  # of the distance between slices
_MOST_ORIENTATIONS = 100  # as in a radial series; comparing all pairs would take for ever
_UNEVEN = 0.15  # of it; tolerance for gaps
_MISSING = 0.1  # of the slices may be missing, and always one

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Stack:
    """Slices in order.

    Attributes:
        chosen: indices of the given frames, from the first position to the last.
        places: the slice of the volume at which each lies; skipped numbers are missing slices.
        affine: (4, 4), from (column, row, slice) to mm, RAS+.
        extra: number of frames at a position where another one was chosen.
        missing_mm: positions of missing slices along the normal, mm.
    """

    chosen: tuple[int, ...]
    places: tuple[int, ...]
    affine: np.ndarray
    extra: int
    missing_mm: tuple[float, ...]


def by_orientation(frames: Sequence[Frame]) -> list[list[int]]:
    """Indices of parallel frames, the largest group first; all must state their orientation.

    Raises:
        BadVolume: there are far too many orientations.
    """
    groups: list[tuple[np.ndarray, list[int]]] = []
    for index, frame in enumerate(frames):
        direction = np.asarray(frame.orientation)
        for normal, members in groups:
            if np.abs(normal - direction).max() <= _SAME_DIRECTION:
                members.append(index)
                break
        else:
            if len(groups) == _MOST_ORIENTATIONS:
                raise BadVolume(f"more than {_MOST_ORIENTATIONS} orientations mixed")
            groups.append((direction, [index]))
    return sorted((members for _, members in groups), key=len, reverse=True)


def by_key(keys: Sequence[Key]) -> list[list[int]]:
    """Indices of equal keys, the largest group first."""
    groups: dict[Key, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    return sorted(groups.values(), key=len, reverse=True)


def stack(frames: Sequence[Frame]) -> Stack:
    """Order parallel frames of one size along their normal.

    Raises:
        BadVolume: positions are insufficient, frames are too few or uneven, or too many are missing.
    """
    if any(frame.position is None or frame.orientation is None or frame.spacing is None for frame in frames):
        raise BadVolume("no position, orientation or pixel spacing in its tags")
    along_row, along_column = np.asarray(frames[0].orientation).reshape(2, 3)
    lengths = np.linalg.norm(along_row), np.linalg.norm(along_column)
    if max(abs(length - 1) for length in lengths) > 0.01 or abs(along_row @ along_column) > 0.01:
        raise BadVolume("ImageOrientationPatient is not a pair of perpendicular directions")
    positions = np.asarray([frame.position for frame in frames], dtype=np.float64)
    normal = np.cross(along_row, along_column)
    depth = positions @ normal
    chosen = _one_for_each_place(frames, depth)
    if len(chosen) < FEWEST:
        raise BadVolume(f"only {counted(len(chosen), 'slice')}, not a volume")
    gaps = np.diff(depth[chosen])
    step = float(np.median(gaps))
    whole = np.rint(gaps / step).astype(np.int64)
    if np.abs(gaps / step - whole).max() > _UNEVEN:
        raise BadVolume(f"slices are unevenly spaced ({gaps.min():.3g} to {gaps.max():.3g} mm)")
    places = np.concatenate([[0], np.cumsum(whole)])
    count = int(places[-1]) + 1
    missing = count - len(chosen)
    if missing > max(1, int(_MISSING * count)):
        raise BadVolume(f"{missing} of {count} slices missing")
    first, last = positions[chosen[0]], positions[chosen[-1]]
    across = (last - first) / places[-1]
    if np.abs(first + places[:, None] * across - positions[chosen]).max() > _UNEVEN * step + 0.05:
        raise BadVolume("slices do not lie behind one another")
    between_rows, between_columns = frames[0].spacing  # type: ignore[misc]
    affine = np.eye(4)
    affine[:3, 0] = along_row * between_columns
    affine[:3, 1] = along_column * between_rows
    affine[:3, 2] = across
    affine[:3, 3] = first
    absent = sorted(set(range(count)) - set(places.tolist()))
    return Stack(
        chosen=tuple(chosen),
        places=tuple(places.tolist()),
        affine=np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine,  # LPS to RAS
        extra=len(frames) - len(chosen),
        missing_mm=tuple(round(float(depth[chosen[0]] + place * step), 2) for place in absent),
    )


def repeats(frames: Sequence[Frame]) -> int:
    """Number of frames at exactly the same position as another of the same orientation and echo."""
    keys = {(frame.orientation, frame.position, frame.echo) for frame in frames}
    return len(frames) - len(keys)


def _one_for_each_place(frames: Sequence[Frame], depth: np.ndarray) -> list[int]:
    """Indices along the normal; of several frames at one position, the first time point and acquisition."""
    order = sorted(range(len(frames)), key=lambda index: (depth[index], frames[index].order))
    distinct = np.unique(np.round(depth, 2))
    near = _SAME_PLACE * float(np.median(np.diff(distinct))) if len(distinct) > 1 else 0.0
    chosen: list[int] = []
    for index in order:
        if chosen and depth[index] - depth[chosen[-1]] <= max(near, 0.005):
            if frames[index].order < frames[chosen[-1]].order:
                chosen[-1] = index
        else:
            chosen.append(index)
    return chosen
