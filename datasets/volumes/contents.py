"""What a volume's values show: a label map, a tissue map, phase, CT — or, as far as values can tell, a scan.

Every rule keeps true scans, even if skull-stripped, with few grey levels, scaled to 0..1 or standardised, padded or
shifted below zero. What can't be distinguished from such a scan is left to names and headers: probability maps without
certain voxels, masked statistical maps, maps of relaxation times.
"""

from __future__ import annotations

import numpy as np

from mri_transfer.datasets.volumes.formats.stored import Evidence
from mri_transfer.datasets.volumes.mp2rage import is_uniform_image

_SAMPLE = 1 << 15  # voxels sampled to judge distributions
_BLOCK = 48  # side, in voxels, of the central cube whose neighbours are compared
_FLAT = 0.55  # of the brighter voxels lie between equal ones; up to 0.46 in scans of 24 grey levels
_FEW_LABELS = 6  # a scan with this few levels is worthless
_MOST_LABELS = 4096
_GAPS = 0.25  # of the steps between levels are wider than the smallest one
_JUMPS = 0.42  # of the unequal neighbours have other levels in between; up to 0.4 in scans of 12 levels
_FEWEST = 64  # fewest voxels to take a share of
_FA_LIMIT = float(np.sqrt(1.5))  # FSL's dtifit leaves noise up to the largest value its formula can yield
# Ranges to which scanners and converters scale one turn of phase.
_TURNS = (
    *((-np.pi, np.pi), (0.0, 2 * np.pi), (-180.0, 180.0), (0.0, 360.0), (-1000 * np.pi, 1000 * np.pi)),
    *((-4096.0, 4095.0), (-2048.0, 2047.0), (0.0, 4095.0)),
)


def no_scan(voxels: np.ndarray, scale: tuple[float, float] = (1.0, 0.0)) -> Evidence | None:
    """Why a volume's values show that it is not an anatomical MR scan, or None.

    Args:
        voxels: (x, y, z), finite.
        scale: slope, above zero, and intercept that convert them to real values.
    """
    sample = _sample(voxels)
    # NumPy's stable sort of 1- or 2-byte integers is a radix sort, many times faster.
    ordered = np.sort(sample, kind="stable" if sample.dtype.itemsize <= 2 else None)
    begin = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))  # of each value
    counts = np.diff(begin, append=len(ordered))
    commonest, share = ordered[begin[counts.argmax()]], float(counts.max()) / len(ordered)
    white = ordered[-1] if len(begin) > 3 else commonest
    if len(begin) <= _MOST_LABELS and _is_labels(voxels, commonest, white):
        return Evidence("labels", "a label map by its contents: large regions of one value")
    slope, intercept = scale
    real = ordered.astype(np.float64) * slope + intercept
    background = float(commonest) * slope + intercept
    if voxels.dtype.kind == "f" and abs(real[0]) < 1e-3 and abs(real[-1] - _FA_LIMIT) < 0.3:
        greatest = float(voxels.max()) * slope + intercept
        if abs(greatest - _FA_LIMIT) < 1e-5:
            return Evidence(
                "maps", "fractional anisotropy by its contents, which reach the square root of 1.5"
            )
    if _is_probability(real):
        return Evidence("maps", "a tissue map by its contents: mostly 0 and 1")
    if _is_ct(real):
        return Evidence("ct", "CT by its contents: Hounsfield units of air, soft tissue and bone")
    phase, signed = _is_phase(real, background, share), _is_signed(real, background, share)
    if (phase or signed) and is_uniform_image(voxels):
        return None
    if phase:
        return Evidence("fmap", "a phase image by its contents, spread evenly over one turn")
    if signed:
        return Evidence("fmap", "a real or imaginary part by its contents, spread evenly about zero")
    return None


def _sample(voxels: np.ndarray) -> np.ndarray:
    step = max(1, int(np.ceil((voxels.size / _SAMPLE) ** (1 / 3))))
    steps = [min(step, max(1, count // 4)) for count in voxels.shape]
    return np.asarray(voxels[:: steps[0], :: steps[1], :: steps[2]]).ravel()


def _share(rising: np.ndarray, low: float, high: float) -> float:
    """Number of sorted values from `low` to `high`."""
    first, last = np.searchsorted(rising, low, side="left"), np.searchsorted(rising, high, side="right")
    return float(last - first) / len(rising)


def _is_labels(voxels: np.ndarray, background: np.generic, white: np.generic) -> bool:
    """Whether few values fill regions: most voxels above the median lie between two equal ones, along most axes.

    The darker half is ignored, as the air of a scan with few grey levels is as flat as a label; so are background and
    white, where a scan may be clipped. If a scan's brain is flat too, neighbouring voxels have adjacent, evenly spaced
    levels; touching labels have arbitrary numbers, or gaps in their numbering.
    """
    middle = voxels[tuple(_middle(count) for count in voxels.shape)].copy(order="K")  # no axis runs backwards
    mask = (middle != background) & (middle != white)
    if np.count_nonzero(mask) < _FEWEST:
        middle = voxels
        mask = (middle != background) & (middle != white)
    other = middle[mask]
    if len(other) < _FEWEST:
        return 1 < len(np.unique(voxels)) <= _FEW_LABELS  # a small lesion on empty background
    other = other[:: max(1, len(other) // 4096)]
    mask &= middle >= np.partition(other, len(other) // 2)[len(other) // 2]
    flat: list[float] = []
    for axis in range(3):
        share = _flat_share(middle, mask, axis)
        if share is not None:
            flat.append(share)
            if len(flat) == 1 and share < _FLAT / 3:  # most scans
                return False
    if not flat or sorted(flat)[len(flat) // 2] < _FLAT:
        return False
    levels = np.unique(middle)
    if len(levels) <= _FEW_LABELS:
        return True
    gaps = np.diff(
        levels[: np.searchsorted(levels, np.quantile(middle, 0.99), side="right")].astype(np.float64)
    )
    if len(gaps) > 2 and np.mean(gaps > 1.5 * gaps.min()) >= _GAPS:
        return True
    ranks = np.searchsorted(levels, middle)
    steps = np.concatenate([np.abs(np.diff(ranks, axis=axis)).ravel() for axis in range(3)])
    return float(np.mean(steps[steps > 0] > 1)) >= _JUMPS


def _middle(count: int) -> slice:
    start = max(0, (count - _BLOCK) // 2)
    return slice(start, start + _BLOCK)


def _flat_share(voxels: np.ndarray, mask: np.ndarray, axis: int) -> float | None:
    """Share of the counted voxels that equal both neighbours along an axis; None along a few thick slices."""
    if voxels.shape[axis] < 8:
        return None
    along, inner = np.moveaxis(voxels, axis, 0), np.moveaxis(mask, axis, 0)[1:-1]
    total = np.count_nonzero(inner)
    if total < _FEWEST:
        return None
    equal = along[1:] == along[:-1]
    return np.count_nonzero(inner & equal[:-1] & equal[1:]) / total


def _is_probability(real: np.ndarray) -> bool:
    """Whether values from 0 to 1 lie mostly near the ends.

    In a scan scaled to 0..1, almost nothing lies near 1, the level of its brightest voxel; if its bright end was
    clipped, only the clipped share does.
    """
    if real[0] < -1e-3 or not 0.9 <= real[-1] <= 1.0 + 1e-3 or _share(real, -1.0, 0.05) < 0.6:
        return False
    inside = _share(real, 0.05, 2.0)
    sure = _share(real, 0.95, 2.0)
    return inside * len(real) >= _FEWEST and sure >= 0.2 * inside and sure >= _share(real, 0.1, 0.9)


def _is_ct(real: np.ndarray) -> bool:
    """Whether values are Hounsfield units of a head: air at -1000, a narrow soft-tissue peak, and bone.

    A scan shifted below zero has no narrow peak at 0 to 80, where brain, blood and water lie in CT.
    """
    if real[-1] < 300 or _share(real, -1100, -900) < 0.02:
        return False
    body = real[np.searchsorted(real, -850) :]
    if len(body) < _FEWEST:
        return False
    return _share(body, 0, 80) >= 0.2 and _share(body, -200, 200) >= 0.5 and _share(body, 300, 4000) >= 0.005


def _is_phase(real: np.ndarray, background: float, share: float) -> bool:
    """Whether values fill one turn evenly, as noise in air does; masked phase is zero outside the mask."""
    other = real[real != background] if share > 0.05 else real
    if len(other) < _FEWEST:
        return False
    low, high = other[len(other) // 1000], other[-1 - len(other) // 1000]
    for start, stop in _TURNS:
        near = 0.03 * (stop - start)
        if abs(low - start) < near and abs(high - stop) < near:
            if share > 0.05 and (start >= 0 or abs(background) > near):
                return False  # a scan that fills 12 bits, on a constant background
            counts = np.histogram(other, bins=8, range=(start, stop))[0]
            return bool(counts.min() >= 0.3 * counts.mean())
    return False


def _is_signed(real: np.ndarray, background: float, share: float) -> bool:
    """Whether values are distributed symmetrically about zero, in air as well.

    A scan standardised after skull-stripping is symmetric too, except for its constant background; one standardised
    with its air has the air on one side.
    """
    if share > 0.05 and background == 0.0:
        return False
    zero = np.searchsorted(real, 0.0)
    below, above = -real[:zero][::-1], real[zero:]
    if min(len(below), len(above)) < 0.4 * len(real):
        return False
    sizes = np.quantile(np.abs(real), np.linspace(0.05, 0.95, 19))
    gap = np.searchsorted(below, sizes) / len(below) - np.searchsorted(above, sizes) / len(above)
    return float(np.abs(gap).max()) < 0.12
