"""Find images that are the same picture among all pairs, in all flips and quarter turns, cropped or framed.

Similarity is the normalised correlation (Pearson's r over pixels) of thumbnails, so brightness and contrast do not
matter; nor do other tones, such as gamma, a tint, sharpening or a negative (see
:func:`~mri_transfer.datasets.tumors.copies.alignment.tone_free`). It takes two steps.

1. *Neighbours.* Thumbnails of 12 pixels, 144 numbers each, are compared by matrix products: each image, in eight
   orientations, with every other in sixteen windows, which leave out a strip at any of the four sides, so that an image
   that lost a strip still matches its original. The most similar others of each image are kept.
2. *Alignment.* These are compared again on finer thumbnails, shifted and scaled to fit: only then does a copy stand out
   from a neighbouring slice of the same patient.

The first step's time is quadratic in the number of images but independent of their pixels; the second's, and memory,
are linear.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from mri_transfer.datasets.tumors.copies.alignment import align, tone_free
from mri_transfer.datasets.tumors.copies.thumbnails import (
    THUMBNAIL,
    block_means,
    coarse,
    normalised,
    opposite,
    turned,
)
from mri_transfer.machine.device import cores
from mri_transfer.progress import bar

SMALL = 12  # pixels
NEAREST = 10
"""Neighbours kept per image. Measured on the public four-class set, with copies of 150 images among its 3,264: at least
98% are among the ten nearest of their originals when cropped by up to 15% per side, and 99-100% when shrunk,
compressed, framed or turned, or all of these with a crop of up to 10%; 97% with letters written on them. Of all but the
last, 96-100% are then distinguished from neighbours; so are 98-100% of copies in other tones (60 each with a gamma of
0.5 to 2, stretched, sharpened, tinted or inverted), cropped, framed, turned and compressed too."""

STRIP = 0.08  # of a side, left out by a window: crops of up to 12% are at most half a strip away
_SIDES = ((0.0, 0.0), (STRIP, 0.0), (0.0, STRIP), (STRIP, STRIP))
WINDOWS = tuple((x, y) for y in _SIDES for x in _SIDES)  # left out left and right, at top and bottom
_CHUNK = 1024  # images compared at a time

ROUGH = 16  # pixels, of the first alignment
ROUGH_ROUNDS = 5
WORTH = 0.85  # least correlation after the first alignment for a second one


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of similar images, best first; :func:`turned` by `orientation` makes `second` look like `first`."""

    first: np.ndarray  # int (pairs,)
    second: np.ndarray  # int (pairs,)
    correlation: np.ndarray  # float32 (pairs,)
    orientation: np.ndarray  # int (pairs,), 0 to 7

    def __len__(self) -> int:
        return len(self.first)

    def fields(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The arrays, in order of declaration."""
        return self.first, self.second, self.correlation, self.orientation

    def where(self, mask: np.ndarray) -> Pairs:
        """Some of the pairs, by mask or index."""
        return Pairs(*(field[mask] for field in self.fields()))

    def beside(self, rows: np.ndarray) -> np.ndarray:
        """The images paired with a chosen one, bool (n,) from bool (n,)."""
        mask = np.zeros(len(rows), bool)
        mask[self.first[rows[self.second]]] = True
        mask[self.second[rows[self.first]]] = True
        return mask

    def above(self, threshold: float) -> Pairs:
        """Only the pairs that correlate at `threshold` or more."""
        return self.where(self.correlation >= threshold)


def _bins(left_out: tuple[float, float]) -> np.ndarray:
    """float32 (SMALL, THUMBNAIL): means over equal parts of a window's share of one axis."""
    edges = np.linspace(left_out[0], 1 - left_out[1], SMALL + 1)[:, None] * THUMBNAIL
    pixel = np.arange(THUMBNAIL)
    overlap = np.minimum(edges[1:], pixel + 1) - np.maximum(edges[:-1], pixel)
    weights = np.clip(overlap, 0, None)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


# On an axis from -1 to 1, a window is smaller by the parts it leaves out, and shifted by half their difference.
_WINDOW_WARPS = np.array([(-(x + x1), x - x1, -(y + y1), y - y1) for (x, x1), (y, y1) in WINDOWS], np.float32)
_ALL_BINS = np.concatenate([_bins(sides) for sides in _SIDES])  # (4 SMALL, THUMBNAIL)


def _windows(thumbs: np.ndarray) -> np.ndarray:
    """Features of images (n, THUMBNAIL, THUMBNAIL) to compare: float32 (n, windows, SMALL, SMALL), the first whole."""
    n = len(thumbs)
    all_bins = _ALL_BINS @ thumbs.astype(np.float32) @ _ALL_BINS.T
    parts = all_bins.reshape(n, len(_SIDES), SMALL, len(_SIDES), SMALL).transpose(0, 1, 3, 2, 4)
    return parts.reshape(n, len(WINDOWS), SMALL, SMALL)


def _likeness(wholes: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """The best correlation, of either sign, of each image in any orientation with each other in any window.

    Args:
        wholes: (n, SMALL, SMALL).
        windows: normalised (m, windows, pixels).

    Returns:
        float32 (n, m).
    """
    best, worst = np.full((2, len(wholes), len(windows)), [[[-np.inf]], [[np.inf]]], np.float32)
    for orientation in range(8):
        left = normalised(turned(wholes, orientation))
        for window in range(windows.shape[1]):
            likeness = left @ windows[:, window].T
            np.maximum(best, likeness, out=best)
            np.minimum(worst, likeness, out=worst)
    return np.maximum(best, -worst)


class _Nearest:
    """Running record of the most similar others of each of `n` images."""

    def __init__(self, n: int, count: int):
        self.value = np.full((n, count), -np.inf, np.float32)
        self.other = np.full((n, count), -1, int)

    def meet(self, rows: slice, likeness: np.ndarray, others: np.ndarray) -> None:
        """Update images `rows` with `others`, int (m,); similarity (rows, m)."""
        value = np.concatenate([self.value[rows], likeness], axis=1)
        other = np.concatenate([self.other[rows], np.broadcast_to(others, likeness.shape)], axis=1)
        best = np.argpartition(-value, self.value.shape[1] - 1, axis=1)[:, : self.value.shape[1]]
        self.value[rows] = np.take_along_axis(value, best, axis=1)
        self.other[rows] = np.take_along_axis(other, best, axis=1)

    def pairs(self) -> np.ndarray:
        """Each image paired with each of its neighbours; int (pairs, 2)."""
        valid = self.other >= 0
        return np.stack([np.nonzero(valid)[0], self.other[valid]], axis=1)


def neighbours(thumbs: np.ndarray, others: np.ndarray | None = None, nearest: int = NEAREST) -> np.ndarray:
    """Pairs worth a closer look: each image with those most similar to it, without repeats.

    Args:
        thumbs: uint8 (n, THUMBNAIL, THUMBNAIL), from :func:`thumbnail`.
        others: uint8 (m, THUMBNAIL, THUMBNAIL) to compare with; None: `thumbs` with themselves.
        nearest: number of others to keep for each of `thumbs`.

    Returns:
        int (pairs, 2), sorted; the smaller index first where images are compared with themselves.
    """
    alone = others is None
    pool = thumbs if others is None else others
    best = _Nearest(len(thumbs), min(nearest, max(len(pool) - alone, 1)))
    numbers = np.arange(len(pool))
    starts = [
        (i, j)
        for j in range(0, len(pool), _CHUNK)
        for i in range(0, len(thumbs), _CHUNK)
        if i <= j or not alone
    ]
    at, windows, wholes_there = -1, np.empty(0), np.empty(0)
    for i, j in bar(starts, desc="comparing images", unit="block", leave=False):
        if j != at:
            views = _windows(pool[j : j + _CHUNK])
            at, windows, wholes_there = j, normalised(views), views[:, 0]
        chunk = _windows(thumbs[i : i + _CHUNK])
        likeness = _likeness(chunk[:, 0], windows)
        np.maximum(likeness, _likeness(wholes_there, normalised(chunk)).T, out=likeness)
        if alone and i == j:
            np.fill_diagonal(likeness, -np.inf)
        rows, columns = slice(i, i + len(chunk)), slice(j, j + len(windows))
        best.meet(rows, likeness, numbers[columns])
        if alone and i < j:
            best.meet(columns, likeness.T, numbers[rows])
    pairs = best.pairs()
    if alone:
        pairs = np.sort(pairs, axis=1)
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    return np.unique(pairs, axis=0)


def aligned(thumbs: np.ndarray, pairs: np.ndarray, others: np.ndarray | None = None) -> Pairs:
    """Similarity of given pairs after turning, shifting and scaling to fit each other.

    Args:
        thumbs, others: as in :func:`neighbours`.
        pairs: int (pairs, 2), as from :func:`neighbours`.

    Returns:
        All of them, best first.
    """
    pool = thumbs if others is None else others
    correlation = np.empty(len(pairs), np.float32)
    orientation = np.empty(len(pairs), int)

    def fit(start: int) -> None:
        rows = slice(start, start + _CHUNK)
        first, second = thumbs[pairs[rows, 0]], pool[pairs[rows, 1]]
        correlation[rows], orientation[rows] = _fit(first, second)

    starts = range(0, len(pairs), _CHUNK)
    with ThreadPoolExecutor(cores()) as threads:  # NumPy releases the GIL while it computes
        for _ in bar(
            threads.map(fit, starts), desc="aligning pairs", unit="block", total=len(starts), leave=False
        ):
            pass
    order = np.lexsort((pairs[:, 1], pairs[:, 0], -correlation))
    return Pairs(pairs[order, 0], pairs[order, 1], correlation[order], orientation[order])


def _fit(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlation after alignment, and orientation, of pairs (n, THUMBNAIL, THUMBNAIL)."""
    n = len(first)
    orientation, window, negative = _beginnings(first, second)
    tries = orientation.shape[1]
    index, orientation, negative = np.repeat(np.arange(n), tries), orientation.ravel(), negative.ravel()
    swapped, window = np.divmod(window.ravel(), len(WINDOWS))
    target, moving = _pictures(rough(first)[index], rough(second)[index], orientation, swapped)
    moving[negative] = 255 - moving[negative]
    correlation, warp = align(target, moving, _WINDOW_WARPS[window], ROUGH_ROUNDS)
    best = np.arange(n) * tries + correlation.reshape(n, tries).argmax(axis=1)
    result = correlation[best]

    worth = np.flatnonzero(result >= WORTH)
    finer = best[worth]
    target, moving = _pictures(first[worth], second[worth], orientation[finer], swapped[finer])
    moving[negative[finer]] = 255 - moving[negative[finer]]
    plainly, place = align(target, moving, warp[finer])
    result[worth] = np.maximum(plainly, tone_free(target, moving, place))
    return result, orientation[best]


def _beginnings(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Four starting points for alignment, since it may fail from any one.

    The most similar orientation starts with the best window of the second picture, with the best of the first, and
    without one. The second most similar is tried too: a head resembles its mirror image almost as much as a crop.

    Returns:
        Orientation, int (n, 4); window, int (n, 4), where those of the first picture start at `len(WINDOWS)`; and
        whether one looks like the negative of the other, bool (n, 4).
    """
    # Indexed by the orientation that makes the second picture look like the first.
    signed = np.stack(
        [_views_alike(first, second)[:, opposite(np.arange(8))], _views_alike(second, first)], axis=2
    )  # (n, 8, 2, windows)
    similarity = np.abs(signed)
    ranked = np.argsort(-similarity.max(axis=(2, 3)), axis=1)
    everyone = np.arange(len(first))
    best, other = ranked[:, 0], ranked[:, 1]
    of_second, of_first = similarity[everyone, best].argmax(axis=2).T
    of_other = similarity[everyone, other].reshape(len(first), -1).argmax(axis=1)
    orientation = np.stack([best, best, best, other], axis=1)
    window = np.stack([of_second, of_first + len(WINDOWS), np.zeros_like(of_first), of_other], axis=1)
    values = signed.reshape(len(first), 8, -1)
    places = np.stack([of_second, of_first + len(WINDOWS), of_second, of_other], axis=1)
    return orientation, window, values[everyone[:, None], orientation, places] < 0


def _views_alike(whole: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Correlation of each whole picture, in eight orientations, with each window of the other; (n, 8, windows)."""
    small, windows = _windows(whole)[:, 0], normalised(_windows(other))
    turns = np.stack([normalised(turned(small, orientation)) for orientation in range(8)], axis=1)
    return turns @ windows.transpose(0, 2, 1)


def _pictures(
    first: np.ndarray, second: np.ndarray, orientation: np.ndarray, swapped: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The fixed picture, and the one moved to fit it, where `orientation` makes second like first."""
    target = np.where(swapped[:, None, None], second, first)
    moving = np.where(swapped[:, None, None], first, second)
    turn = np.where(swapped, orientation, opposite(orientation))
    for number in range(1, 8):
        target[turn == number] = turned(target[turn == number], number)
    return target, moving


def near_duplicates(
    thumbs: np.ndarray, others: np.ndarray | None = None, threshold: float = -1.0, nearest: int = NEAREST
) -> Pairs:
    """All pairs of images that are the same picture, or may be: :func:`neighbours`, then :func:`aligned`.

    Args:
        thumbs, others, nearest: as in :func:`neighbours`.
        threshold: least correlation after alignment of returned pairs.
    """
    return aligned(thumbs, neighbours(thumbs, others, nearest), others).above(threshold)


def rough(thumbs: np.ndarray) -> np.ndarray:
    """Thumbnails of `ROUGH` pixels, by block means; float32 (n, ROUGH, ROUGH)."""
    return block_means(thumbs, ROUGH)


def correlation_of(thumbs: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Correlation of given pairs as they are, upright and not aligned.

    Args:
        thumbs: uint8 (n, THUMBNAIL, THUMBNAIL).
        first, second: int (pairs,).

    Returns:
        float32 (pairs,).
    """
    vectors = normalised(coarse(thumbs))
    return np.einsum("ij,ij->i", vectors[first], vectors[second])
