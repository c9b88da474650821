"""MP2RAGE's uniform image told from phase, which has the same numbers in the air.

The ratio Re(S1* S2) / (|S1|² + |S2|²) of two echoes (J. P. Marques et al., "MP2RAGE, a self bias-field corrected
sequence for improved segmentation and T1-mapping at high field", NeuroImage, 2010) is spread evenly from -1/2 to 1/2
where both are noise, just as phase is over its turn. In the head it is a T1 contrast: steps between tissues that lie a
few voxels apart, over most of the range. Phase follows the field there, which changes slowly and starts anew at every
turn; once the field is filtered out, little of the range is left.

The limits stand between ratios and phase that were simulated on T1 heads of six people at 2 mm and two at 1 mm: ratios
with noise of 1.5 to 8% of the signal, and phase of 0.4 to 30 turns, filtered and not, with noise of 1.5 to 15%. All 40
ratios came out as such, and none of 144 images of phase and 16 real parts.
"""

from __future__ import annotations

import numpy as np

_BLOCK = 160  # voxels along a side of the middle that is looked at
_NEIGHBOURS = (
    0.25  # of the range: less apart, around the turn or not, neighbours are of something and not of noise
)
_RESTART = 0.7  # of the range: as far apart, neighbours are on either side of a turn's end
_RESTARTS = 0.0005  # of the neighbours; more are phase
_EVEN = 0.3  # of the mean is the least count of an eighth of the range in noise
_LEAST = 0.03  # of the voxels are tissue
_SPREAD = 0.4  # of the range, from the tenth to the ninetieth percentile of tissue
_LOCAL = 0.09  # of the variance of tissue that is left around means over `_BOX` voxels
_BOX = 9


def is_uniform_image(voxels: np.ndarray) -> bool:
    """Whether a volume that is as even as phase in its air shows tissues.

    Args:
        voxels: (x, y, z), finite.
    """
    from scipy import ndimage

    middle = voxels[
        tuple(slice(max(0, (count - _BLOCK) // 2), (count + _BLOCK) // 2) for count in voxels.shape)
    ]
    if min(middle.shape) < _BOX:
        return False
    low, high = np.quantile(middle[::2, ::2, ::2], (0.001, 0.999))
    values = np.clip((middle.astype(np.float32) - low) / (high - low), 0, 1)
    smooth = np.ones(values.shape, dtype=bool)
    for axis in range(3):
        apart = np.abs(np.diff(values, axis=axis))
        near = np.moveaxis(np.minimum(apart, 1 - apart) < _NEIGHBOURS, axis, 0)
        along = np.moveaxis(smooth, axis, 0)
        along[0] = along[-1] = False
        along[1:-1] &= near[1:] & near[:-1]
    pieces, count = ndimage.label(ndimage.binary_opening(smooth))
    if not count:
        return False
    tissue = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
    if tissue.mean() < _LEAST or _restarts(values, tissue) > _RESTARTS:
        return False
    noise = np.histogram(values[~smooth], bins=8, range=(0, 1))[0]
    if noise.min() < _EVEN * noise.mean():  # a real or imaginary part
        return False
    first, last = np.quantile(values[tissue], (0.1, 0.9))
    weight = ndimage.uniform_filter(tissue.astype(np.float32), _BOX)
    mean = ndimage.uniform_filter(np.where(tissue, values, 0), _BOX)[tissue] / weight[tissue]
    local = np.mean((values[tissue] - mean) ** 2) / values[tissue].var()
    return bool(last - first >= _SPREAD and local >= _LOCAL)


def _restarts(values: np.ndarray, tissue: np.ndarray) -> float:
    """Of the neighbours within tissue, how many are a turn apart."""
    restarts = total = 0
    for axis in range(3):
        along, inside = np.moveaxis(values, axis, 0), np.moveaxis(tissue, axis, 0)
        pairs = inside[1:] & inside[:-1]
        restarts += int(np.count_nonzero((np.abs(np.diff(along, axis=0)) > _RESTART) & pairs))
        total += int(np.count_nonzero(pairs))
    return restarts / max(total, 1)
