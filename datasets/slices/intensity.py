"""From a scanner's arbitrary units to 0..255: the foreground, and the intensities to show."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mri_transfer.datasets.volumes.volume import BadVolume

PERCENTILES = (0.5, 99.5)  # of the foreground of the whole volume

# Otsu's threshold alone would cut the ventricles and sulci out of a T1 head, where fluid is darker than the midpoint
# between air and tissue. At this fraction of the way from the background to it, T1, T2 and FLAIR keep fluid and exclude
# scanner noise; 0.2 admits the noise of many FLAIR volumes.
_OTSU_FRACTION = 0.35

_BINS = 256
_SAMPLE = 1 << 22  # voxels; larger float volumes are sampled on a regular grid


@dataclass(frozen=True)
class Window:
    """The mapping from intensities to grey levels.

    Attributes:
        level: voxels above it are foreground.
        low, high: map to 0 and 255.
        hole: a value inside the range that means "no data" and maps to 0, or None.
    """

    level: float
    low: float
    high: float
    hole: float | None = None

    def foreground(self, voxels: np.ndarray) -> np.ndarray:
        """Boolean array, true in the head, with the memory layout of `voxels`."""
        turned = turn_forward(voxels)
        voxels = voxels[turned]
        level: float | np.integer = self.level
        if voxels.dtype.kind in "iu":  # compare integers with an integer, without converting to float
            bounds = np.iinfo(voxels.dtype)
            if bounds.min <= level < bounds.max:
                level = voxels.dtype.type(math.floor(level))
        mask = voxels > level
        if self.hole is not None:
            mask &= voxels != self.hole
        return mask[turned]

    def grey(self, voxels: np.ndarray) -> np.ndarray:
        """float32 copy of `voxels`, clipped to the window and scaled to 0..255."""
        short = voxels.dtype.kind in "iu" and voxels.dtype.itemsize <= 2  # fewer bytes to move and clip
        clipped = np.array(voxels, dtype=voxels.dtype if short else np.float32, order="C")
        low, high = clipped.dtype.type(self.low), clipped.dtype.type(self.high)
        if self.hole is not None:
            clipped[clipped == self.hole] = low
        np.clip(clipped, low, high, out=clipped)
        scaled = clipped.astype(np.float32, copy=False)
        scaled -= np.float32(self.low)
        scaled *= np.float32(255.0 / (self.high - self.low))
        return scaled


def turn_forward(array: np.ndarray) -> tuple[slice, ...]:
    """An index that reverses axes running backwards in memory, and also reverts the result.

    Reorienting a volume to canonical axes creates such axes, along which NumPy processes elements one by one.
    """
    return tuple(slice(None, None, -1 if stride < 0 else 1) for stride in array.strides)


class _Distribution:
    """Sorted distinct values and their counts."""

    def __init__(self, values: np.ndarray, counts: np.ndarray | None):
        self.values = values
        self.below = np.arange(1, len(values) + 1) if counts is None else np.cumsum(counts)

    def without(self, value: float) -> _Distribution:
        """The same without one value."""
        keep = self.values != value
        return _Distribution(self.values[keep], np.diff(self.below, prepend=0)[keep])

    def percentile(self, percent: float, start: int = 0) -> float:
        """The smallest value with `percent` of the values from index `start` at or below it."""
        before = int(self.below[start - 1]) if start else 0
        rank = before + percent / 100.0 * (int(self.below[-1]) - before)
        index = int(np.searchsorted(self.below, max(rank, before + 1), side="left"))
        return float(self.values[min(index, len(self.values) - 1)])

    def histogram(self, edges: np.ndarray) -> np.ndarray:
        """Counts between `edges`, with outliers in the first and last bin."""
        index = np.searchsorted(self.values, edges[1:-1], side="left")
        below = np.concatenate([[0], self.below])[index]
        return np.diff(np.concatenate([[0], below, [self.below[-1]]]))


def _of_bytes(flat: np.ndarray) -> _Distribution:
    """For single bytes, counted in pairs: half as many numbers to count."""
    even = flat.size // 2 * 2
    pairs = np.zeros(1 << 16, dtype=np.int64)
    for start in range(0, even, 1 << 20):
        pairs += np.bincount(flat[start : min(start + (1 << 20), even)].view(np.uint16), minlength=1 << 16)
    table = pairs.reshape(256, 256)
    counts = table.sum(axis=0) + table.sum(axis=1) + np.bincount(flat[even:], minlength=256)
    present = np.flatnonzero(counts)
    return _Distribution(present.astype(np.float64), counts[present])


def _distribution(voxels: np.ndarray) -> _Distribution:
    if voxels.dtype.kind in "iu" and voxels.dtype.itemsize <= 2:
        flat = voxels[turn_forward(voxels)].ravel(order="K")
        if voxels.dtype == np.uint8:
            return _of_bytes(flat)
        low = int(flat.min())
        counts = np.zeros(int(flat.max()) - low + 1, dtype=np.int64)
        for start in range(0, flat.size, 1 << 20):  # np.bincount copies its argument to 64-bit integers
            chunk = flat[start : start + (1 << 20)].astype(np.int32) - low
            counts += np.bincount(chunk, minlength=len(counts))
        present = np.flatnonzero(counts)
        return _Distribution((present + low).astype(np.float64), counts[present])
    step = int(np.ceil((voxels.size / _SAMPLE) ** (1 / 3)))
    sample = voxels[::step, ::step, ::step].ravel()
    if sample.min() == sample.max():
        sample = voxels.ravel()
    return _Distribution(np.sort(sample), None)


def otsu(counts: np.ndarray) -> int:
    """The last bin of the darker class in Otsu's split of a histogram.

    N. Otsu, "A threshold selection method from gray-level histograms", 1979: the split with the largest
    variance between the two classes.
    """
    counts = counts.astype(np.float64)
    bins = np.arange(len(counts))
    weight = np.cumsum(counts)[:-1]
    mass = np.cumsum(counts * bins)[:-1]
    rest, rest_mass = counts.sum() - weight, (counts * bins).sum() - mass
    with np.errstate(divide="ignore", invalid="ignore"):
        between = weight * rest * (mass / weight - rest_mass / rest) ** 2
    return int(np.argmax(np.nan_to_num(between, nan=-1.0, posinf=-1.0)))


def find_window(voxels: np.ndarray) -> Window:
    """Foreground threshold, and the 0.5 and 99.5 percentiles above it.

    The result is equivariant to a positive scale and a shift of the intensities: grey levels stay the same.

    Args:
        voxels: (x, y, z), finite, not all equal.

    Raises:
        BadVolume: there are only two values, so this is a mask, not a scan.
    """
    distribution = _distribution(voxels)
    hole = _hole(voxels, distribution)
    if hole is not None:
        distribution = distribution.without(hole)
    bottom, top = distribution.percentile(0.1), distribution.percentile(99.9)
    if top <= bottom:
        bottom, top = float(distribution.values[0]), float(distribution.values[-1])
    if hole is None:
        edges = np.linspace(bottom, top, _BINS + 1)
        level = bottom + _OTSU_FRACTION * (edges[otsu(distribution.histogram(edges)) + 1] - bottom)
    else:
        level = float(np.nextafter(np.float32(distribution.values[0]), np.float32(-np.inf)))
    first = int(np.searchsorted(distribution.values, level, side="right"))
    low, high = (distribution.percentile(percent, first) for percent in PERCENTILES)
    if high <= low:
        raise BadVolume("only one value besides the background: a mask, not a scan")
    return Window(level=float(level), low=low, high=high, hole=hole)


def _hole(voxels: np.ndarray, distribution: _Distribution) -> float | None:
    """The constant background of a volume that was standardised after skull-stripping: zeros among negatives.

    It is the value in all eight corners and of at least a fifth of all voxels, with true voxels below it.
    """
    corners = np.unique(voxels[:: max(voxels.shape[0] - 1, 1), :: max(voxels.shape[1] - 1, 1), [0, -1]])
    if len(corners) > 1:
        return None
    total = int(distribution.below[-1])
    start, stop = (
        int(np.searchsorted(distribution.values, corners[0], side=side)) for side in ("left", "right")
    )
    before = int(distribution.below[start - 1]) if start else 0
    inside = (int(distribution.below[stop - 1]) if stop else 0) - before
    return float(corners[0]) if before > 0.01 * total and inside > 0.2 * total else None
