"""Identify the slice of a public collection that a picture shows, by small grey signatures, in two steps.

1. *As a whole.* The picture is shrunk to signature size and compared with all signatures in eight orientations. This
   finds slices that were resized, compressed, turned, mirrored, tinted or inverted.
2. *A closer look* at the rest: lost strips at the sides are tried against all signatures, and the best candidates are
   shifted and scaled to fit, always from the finer picture, and tried with other gammas.

Measured on the 2,870 distinct pictures of "Brain Tumor Classification (MRI)", of which 2,292 are known to be slices of
Figshare 1512427: see `BOUND` and `CLOSE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from mri_transfer.datasets.tumors.copies.alignment import align
from mri_transfer.datasets.tumors.copies.thumbnails import block_means, normalised, turned
from mri_transfer.datasets.tumors.persons.originals import SIDE, Originals

FINE = 64
"""Pixels of the picture from which signatures are made."""

BOUND = 0.99
"""Least correlation for a whole picture to be the slice. Known slices reach 0.9997 (one, trimmed and squeezed, 0.866),
and 0.998 at 128 px and JPEG quality 40; the most similar of the 578 other pictures reaches 0.976. Two different slices
reach 0.997 at most, so the best match is the right one."""

CLOSE = 0.989
"""The same after a closer look, where the trimmed one reaches 0.991 and other pictures at most 0.987, whatever was done
to their tones."""

DETAIL = 0.96
"""Least correlation of the residual detail without the coarse pattern. Heads are bright ovals on black, and an empty
oval reaches 0.992 as a whole, but 0.88 in its detail; known slices reach 0.98 as a whole picture. None of 1,500 drawn
ovals is bound; at 0.93 five were."""

UNSURE = 0.98  # cap on similarity without matching detail

TONES = (0.4, 0.5, 0.6, 0.7, 0.85, 1.2, 1.4, 1.7, 2.0, 2.5)
"""Exponents of grey values to try, to undo a change of gamma."""

CANDIDATES = 3  # originals to try with other gammas, and as many to shift and scale
ROUNDS = 3  # of fitting
STRIPS = tuple((share * left, share * (1 - left)) for share in (0.05,) for left in (0, 0.5, 1))
TRIMS = tuple((*x, *y) for x in ((0, 0), *STRIPS) for y in ((0, 0), *STRIPS))
"""Possible losses on the left, right, top and bottom, as shares of the original's side."""

SCALES, SHIFTS = (0.85, 1.3), (-0.3, 0.3)  # on axes from -1 to 1; limits of fitting
_COARSE = 8  # pixels, for trying trims
_CHUNK = 1024  # pictures compared at a time


@dataclass(frozen=True, eq=False)
class Binding:
    """The original that each of `n` pictures shows."""

    original: np.ndarray  # int (n,), position in Originals; -1: none
    correlation: np.ndarray  # float32 (n,), of the best match, bound or not

    def __len__(self) -> int:
        return len(self.original)


def fine(image: np.ndarray) -> np.ndarray:
    """The whole picture, stretched to a square; uint8 (FINE, FINE) from uint8 (height, width)."""
    small = Image.fromarray(image).convert("F").resize((FINE, FINE), Image.Resampling.BOX)
    return np.round(np.asarray(small)).astype(np.uint8)


def signatures(pictures: np.ndarray) -> np.ndarray:
    """Signatures: uint8 (n, SIDE, SIDE) from uint8 (n, FINE, FINE)."""
    return np.round(block_means(pictures, SIDE)).astype(np.uint8)


def bind(pictures: np.ndarray, originals: Originals) -> Binding:
    """The original that each picture shows: the most similar one, if similar enough.

    Args:
        pictures: uint8 (n, FINE, FINE), from :func:`fine`.
        originals: those to search.
    """
    original, correlation = np.full(len(pictures), -1), np.full(len(pictures), -1, np.float32)
    for start in range(0, len(pictures) if len(originals) else 0, _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(pictures)))
        best, value = _as_a_whole(pictures[rows], originals)
        bound = value >= BOUND
        rest = rows[~bound]
        original[rows], correlation[rows] = np.where(bound, best, -1), value
        if len(rest):
            best, value = _closer(pictures[rest], originals)
            original[rest] = np.where(value >= CLOSE, best, -1)
            correlation[rest] = np.maximum(correlation[rest], value)
    return Binding(original, correlation)


def _likeness(sampled: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Correlation of pairs of signatures, float32 (n,), capped unless their detail agrees too."""
    whole, detail = (
        (normalised(change(sampled)) * normalised(change(target))).sum(axis=1)
        for change in (np.asarray, _detail)
    )
    return np.where(detail >= DETAIL, whole, np.minimum(whole, UNSURE)).astype(np.float32)


def _detail(small: np.ndarray) -> np.ndarray:
    small = small.astype(np.float32)
    return small - gaussian_filter(small, (0, 0.7, 0.7))


def _as_a_whole(pictures: np.ndarray, originals: Originals) -> tuple[np.ndarray, np.ndarray]:
    """The most similar original of each picture, int (n,), and its similarity, float32 (n,)."""
    small, vectors = block_means(pictures, SIDE), normalised(originals.signatures).T
    original, correlation = np.zeros(len(pictures), int), np.full(len(pictures), -1, np.float32)
    upright = small.copy()
    for orientation in range(8):
        oriented = turned(small, orientation)
        likeness = normalised(oriented) @ vectors
        for sign in (1, -1):  # -1: inverted
            best = (sign * likeness).argmax(axis=1)
            value = sign * likeness[np.arange(len(best)), best]
            better = value > correlation
            original[better], correlation[better] = best[better], value[better]
            upright[better] = sign * oriented[better]
    return original, _likeness(upright, originals.signatures[original])


def _closer(pictures: np.ndarray, originals: Originals) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`_as_a_whole`, for pictures with lost strips or changed gamma."""
    n = len(pictures)
    whole = _candidates(pictures, originals, SIDE, TRIMS[:1])
    trimmed = _candidates(pictures, originals, _COARSE, TRIMS)
    upright = [_upright(pictures, orientation) for _, orientation, _ in (whole, trimmed)]
    target = [originals.signatures[other.ravel()] for other, _, _ in (whole, trimmed)]
    fitted = _fit(upright[1], target[1], np.array([_axes(trim) for trim in TRIMS])[trimmed[2].ravel()])
    toned = np.full(whole[0].size, -1, np.float32)
    for tone in TONES:
        grey = (upright[0] / np.float32(255)) ** np.float32(tone)
        np.maximum(toned, _likeness(block_means(grey, SIDE), target[0]), out=toned)
    value = np.concatenate([toned.reshape(n, -1), fitted.reshape(n, -1)], axis=1)
    best = value.argmax(axis=1)
    other = np.concatenate([whole[0], trimmed[0]], axis=1)
    return other[np.arange(n), best], value[np.arange(n), best]


def _upright(pictures: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    """Each picture in each of its orientations, int (n, k); uint8 (n k, FINE, FINE)."""
    upright = np.repeat(pictures, orientation.shape[1], axis=0)
    for turn in range(1, 8):
        rows = orientation.ravel() == turn
        upright[rows] = turned(upright[rows], turn)
    return upright


def _candidates(
    pictures: np.ndarray, originals: Originals, side: int, trims: Sequence[tuple]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Originals worth a closer look at signatures of `side` pixels.

    Returns:
        Position of the original, orientation and position of the trim, each int (n, CANDIDATES).
    """
    vectors = normalised(block_means(originals.signatures, side)).T
    tries = [(orientation, trim) for orientation in range(8) for trim in range(len(trims))]
    everyone = np.arange(len(pictures))
    best = np.empty((len(tries), len(pictures)), int)
    value = np.empty((len(tries), len(pictures)), np.float32)
    for number, (orientation, trim) in enumerate(tries):
        axes = np.broadcast_to(_axes(trims[trim]), (len(pictures), 4))
        likeness = normalised(_sampled(turned(pictures, orientation), axes, side)) @ vectors
        best[number] = likeness.argmax(axis=1)
        value[number] = likeness[everyone, best[number]]
    candidates = np.empty((len(pictures), CANDIDATES), int)
    for picture, order in enumerate(np.argsort(-value, axis=0).T):
        _, first = np.unique(best[order, picture], return_index=True)  # each original once
        candidates[picture] = order[np.resize(np.sort(first), CANDIDATES)]
    turns, numbers = np.array(tries).T
    return best[candidates, everyone[:, None]], turns[candidates], numbers[candidates]


def _fit(pictures: np.ndarray, target: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Correlation, float32 (n,), of each picture with its target after shifting and scaling to fit, starting at `axes`.

    Args:
        pictures: uint8 (n, FINE, FINE), upright.
        target: uint8 (n, SIDE, SIDE).
        axes: float (n, 4), as in :func:`_sampled`.
    """
    correlation = np.full(len(pictures), -1, np.float32)
    for last in [*[False] * ROUNDS, True]:
        sampled = _sampled(pictures, axes, SIDE)
        np.maximum(correlation, _likeness(sampled, target), out=correlation)
        if not last:
            _, warp = align(target, sampled)
            scale = np.clip(axes[:, ::2] * (1 + warp[:, ::2]), *SCALES)
            shift = np.clip(axes[:, 1::2] + axes[:, ::2] * warp[:, 1::2], *SHIFTS)
            axes = np.stack([scale[:, 0], shift[:, 0], scale[:, 1], shift[:, 1]], axis=1)
    return correlation


def _axes(trim: Sequence[float]) -> np.ndarray:
    """From the original's axes, -1 to 1, to those of a picture lacking these shares of it, for :func:`_sampled`."""
    left, right, top, bottom = trim
    width, height = 1 - left - right, 1 - top - bottom
    return np.array([1 / width, (right - left) / width, 1 / height, (bottom - top) / height])


def _sampled(pictures: np.ndarray, axes: np.ndarray, side: int) -> np.ndarray:
    """Block means over the original's frame; black outside a picture.

    Args:
        pictures: (n, FINE, FINE).
        axes: float (n, 4), scale and shift along x, then along y, from the original's axes to the picture's.
        side: pixels of the result.

    Returns:
        float32 (n, side, side).
    """
    edges = np.linspace(-1, 1, side + 1)
    pixel = np.arange(FINE)

    def weights(scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
        places = ((scale[:, None] * edges + shift[:, None]) + 1) * (FINE / 2)  # in pixels of the picture
        overlap = np.minimum(places[:, 1:, None], pixel + 1) - np.maximum(places[:, :-1, None], pixel)
        size = (places[:, 1:] - places[:, :-1])[:, :, None]
        return (np.clip(overlap, 0, None) / size).astype(np.float32)

    across, down = weights(axes[:, 0], axes[:, 1]), weights(axes[:, 2], axes[:, 3])
    return down @ pictures.astype(np.float32, copy=False) @ across.transpose(0, 2, 1)
