"""The least correlation at which two images are the same picture, determined for each set of images.

The similarity of a copy to its original depends on the images' size, noise and sharpness. So does that of different
pictures: neighbouring slices of one patient may be few or many millimetres apart. So some images are copied as on the
web, compressed, shrunk, cropped, framed and turned, half of them in other tones, and the threshold is set where it
misses few of those and where the set's own pairs leave the widest gap.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from mri_transfer.datasets.tumors.copies.duplicates import Pairs, aligned, neighbours
from mri_transfer.datasets.tumors.copies.thumbnails import thumbnail, turned

SAMPLE = 200  # number of images to copy
MISSED = 0.05  # of the planted copies at most
LOWEST, HIGHEST = 0.95, 0.995  # of the threshold: one outside these would separate something else
USUAL = 0.985
"""The threshold of the public four-class set, used if a set is too small to measure: there 133 pairs of distinct files
correlate at 0.989 or more, and all those inspected are the same picture; the next, at 0.980, are neighbouring
slices."""

FEWEST = 20  # images; with fewer, `USUAL` is used


@dataclass(frozen=True)
class Calibration:
    """The threshold and its basis.

    Attributes:
        threshold: least correlation after alignment for two images to be the same picture.
        gap: the nearest correlations among the set's own pairs, below and above; either may be missing.
        share_found: share of the planted copies that match their originals and reach the threshold; None if not
            measured.
        planted: correlations of the planted copies with their originals, sorted.
    """

    threshold: float
    gap: tuple[float | None, float | None]
    share_found: float | None
    planted: tuple[float, ...]

    def summary(self) -> dict:
        """For `audit.json`."""
        return {
            "near_duplicate": round(self.threshold, 4),
            "gap": [None if end is None else round(end, 4) for end in self.gap],
            "planted_copies": len(self.planted),
            "planted_copies_found": None if self.share_found is None else round(self.share_found, 4),
        }


def _gamma(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    return _curved(picture, 2 ** random.uniform(-1, 1))


def _curved(picture: Image.Image, gamma: float) -> Image.Image:
    return Image.fromarray(np.round(255 * (np.asarray(picture) / 255) ** gamma).astype(np.uint8))


def _stretched(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    return ImageOps.autocontrast(picture, cutoff=random.uniform(0.2, 2))


def _sharpened(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    return picture.filter(ImageFilter.UnsharpMask(random.uniform(1, 3), int(random.integers(50, 201)), 0))


def _tinted(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    channels = [_curved(picture, gamma) for gamma in random.uniform(0.6, 1.7, 3)]
    return Image.merge("RGB", channels).convert("L")


def _negative(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    return ImageOps.invert(picture)


TONES = {
    "gamma": _gamma,  # 0.5 to 2
    "stretched": _stretched,  # up to 2% of the pixels clipped at each end
    "sharpened": _sharpened,  # by an unsharp mask of 1 to 3 pixels, 50 to 200%
    "tinted": _tinted,  # a separate gamma for each channel
    "negative": _negative,
}
"""Further changes to copies: each takes a grey picture and a random generator."""


def copied(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A copy as found on the web.

    Args:
        image: uint8 (height, width).
        random: decides: up to 8% cut off each side, half to full size (not below 96 pixels), in half of the cases
            other tones (see :data:`TONES`), in half a black or white margin, a flip or quarter turn, JPEG of quality
            40 to 95.

    Returns:
        uint8 (height', width').
    """
    height, width = image.shape
    top, bottom = (random.uniform(0, 0.08, 2) * height).astype(int)
    left, right = (random.uniform(0, 0.08, 2) * width).astype(int)
    picture = Image.fromarray(image[top : height - bottom, left : width - right])
    scale = max(random.uniform(0.5, 1.0), 96 / min(picture.size))
    scale = min(scale, max(1.0, 1024 / max(picture.size)))  # a strip a few pixels wide stays a strip
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)))
    if random.random() < 0.5:
        picture = TONES[list(TONES)[random.integers(len(TONES))]](picture, random)
    copy = np.asarray(picture)
    if random.random() < 0.5:
        margins = (random.uniform(0.02, 0.15, 4) * np.repeat(copy.shape, 2)).astype(int).reshape(2, 2)
        copy = np.pad(copy, margins, constant_values=int(random.choice([0, 255])))
    copy = np.ascontiguousarray(turned(copy, int(random.integers(8))))
    buffer = io.BytesIO()
    Image.fromarray(copy).save(buffer, "JPEG", quality=int(random.integers(40, 96)))
    return np.asarray(Image.open(buffer))


def planted_copies(
    images: Sequence[np.ndarray],
    seed: int = 0,
    *,
    among: np.ndarray | None = None,
    rows: np.ndarray | None = None,
) -> np.ndarray:
    """Measured similarity of copies to their originals.

    Args:
        images: uint8 (height, width) each.
        seed: for the copies.
        among: uint8 (n, side, side), thumbnails of the whole set, among which copies must find their originals.
        rows: int (images,), the originals' indices in it.

    Returns:
        float32 (n,), sorted: correlation after alignment; 0 for a copy whose original is not among its neighbours.
    """
    random = np.random.default_rng(seed)
    if not len(images):
        return np.empty(0, np.float32)
    copies = np.stack([thumbnail(copied(image, random)) for image in images])
    if among is None or rows is None:
        among, rows = np.stack([thumbnail(image) for image in images]), np.arange(len(images))
    candidates = neighbours(copies, among)
    own_copies = candidates[candidates[:, 1] == np.asarray(rows)[candidates[:, 0]]]
    correlation = np.zeros(len(images), np.float32)
    correlation[: len(own_copies)] = aligned(copies, own_copies, among).correlation
    return np.sort(correlation)


def calibrate(pairs: Pairs, planted: np.ndarray) -> Calibration:
    """The threshold between different and identical pictures.

    It is the middle of the widest gap among the pairs' correlations r, in terms of -log(1 - r), between `LOWEST` and
    the 5th percentile of the planted copies' correlations.

    Args:
        pairs: every candidate pair of the set, with correlations after alignment.
        planted: from :func:`planted_copies`.
    """
    correlations = np.unique(pairs.correlation.astype(float))
    if len(planted) < FEWEST:
        threshold, share_found = USUAL, None
    else:
        high = float(np.clip(np.quantile(planted, MISSED), LOWEST + 1e-3, HIGHEST))
        marks = np.concatenate(
            [[LOWEST], correlations[(correlations > LOWEST) & (correlations < high)], [high]]
        )
        depth = -np.log(1 - marks)
        widest = int(np.argmax(np.diff(depth)))
        threshold = float(1 - np.exp(-(depth[widest] + depth[widest + 1]) / 2))
        share_found = float((planted >= threshold).mean())
    place = int(np.searchsorted(correlations, threshold))
    below = float(correlations[place - 1]) if place else None
    above = float(correlations[place]) if place < len(correlations) else None
    return Calibration(threshold, (below, above), share_found, tuple(planted.tolist()))
