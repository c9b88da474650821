"""Images that are the same picture: compared as small thumbnails, in all flips and quarter turns.

The likeness of two images is the normalised correlation (Pearson's r over pixels) of their thumbnails, so
brightness and contrast do not matter. It is found in two steps. Every pair is compared coarsely by matrix
products, on thumbnails of the whole image and of the image without its black border, because copies on the web
differ in their borders; the larger correlation counts. The few candidates this leaves are compared again on
finer thumbnails without border, shifted and scaled to fit: a copy that was cropped a little then stands out
from a neighbouring slice of the same patient, which it does not before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from mri_transfer.datasets.alignment import aligned_correlation

THUMBNAIL = 64  # pixels
COARSE = 32  # pixels, of the first comparison

CANDIDATE = 0.86
"""Coarse correlation from which on a pair is looked at again."""

DISCOUNT = (0.0, 0.06)
"""Taken off the coarse correlation of thumbnails without border, and whole ones: those agree by their frame alone."""

NEAR_DUPLICATE = 0.97
"""Measured on every pair of the public four-class set: after alignment 113 pairs correlate above 0.974, and all that
were looked at are the same picture; none lies between 0.96 and 0.974, and below come neighbouring slices."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of alike images, best first; :func:`turned` by `orientation` makes `second` look like `first`."""

    first: np.ndarray  # int (pairs,)
    second: np.ndarray  # int (pairs,)
    correlation: np.ndarray  # float32 (pairs,)
    orientation: np.ndarray  # int (pairs,), 0 to 7

    def __len__(self) -> int:
        return len(self.first)

    def fields(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The arrays, in the order in which they are declared."""
        return self.first, self.second, self.correlation, self.orientation

    def above(self, threshold: float) -> Pairs:
        """Only the pairs that correlate at `threshold` or more."""
        chosen = self.correlation >= threshold
        return Pairs(
            self.first[chosen], self.second[chosen], self.correlation[chosen], self.orientation[chosen]
        )


def content_box(image: np.ndarray) -> tuple[int, int, int, int]:
    """The box (left, top, right, bottom) without black borders; the whole image if nothing stands out.

    A row or column belongs to the border while less than 2% of it is brighter than a fifth of the bright parts of
    the image (its 99th percentile): noise in the air and letters do not count as content. Nor does the outermost
    2%, where screenshots have frames.
    """
    height, width = image.shape
    margin = max(1, round(0.02 * min(height, width)))
    inner = image[margin:-margin, margin:-margin]
    if inner.size:
        levels = np.cumsum(np.bincount(inner.ravel(), minlength=256))
        bright = inner > max(10.0, 0.2 * float(np.searchsorted(levels, 0.99 * inner.size)))
        rows = np.flatnonzero(bright.mean(axis=1) > 0.02) + margin
        columns = np.flatnonzero(bright.mean(axis=0) > 0.02) + margin
        if len(rows) >= 4 and len(columns) >= 4:
            return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    return 0, 0, width, height


def thumbnails(image: np.ndarray) -> np.ndarray:
    """Thumbnails to compare by: without black border, and whole.

    Args:
        image: uint8 (height, width).

    Returns:
        uint8 (2, THUMBNAIL, THUMBNAIL), each stretched to 0..255 so that rounding costs little.
    """
    picture = Image.fromarray(image)
    size = (THUMBNAIL, THUMBNAIL)
    found = np.empty((2, THUMBNAIL, THUMBNAIL), np.uint8)
    for place, box in enumerate((content_box(image), (0, 0, picture.width, picture.height))):
        small = picture.convert("F").resize(size, Image.Resampling.BOX, box=box)
        values = np.asarray(small)
        low, high = float(values.min()), float(values.max())
        found[place] = np.round((values - low) * (255 / (high - low))) if high > low else 0
    return found


def turned(images: np.ndarray, orientation: int) -> np.ndarray:
    """One of the eight flips and quarter turns of square images (..., side, side); 0 leaves them alone."""
    flipped = images[..., ::-1] if orientation >= 4 else images
    return np.rot90(flipped, orientation % 4, axes=(-2, -1))


def normalised(thumbs: np.ndarray) -> np.ndarray:
    """float32 (n, pixels) of mean 0 and length 1, so that a matrix product of two gives correlations.

    A flat image has no pattern to compare and becomes zeros.
    """
    vectors = thumbs.reshape(len(thumbs), -1).astype(np.float32)  # a copy, changed below
    vectors -= vectors.mean(axis=1, keepdims=True)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 1e-3)


def coarse(thumbs: np.ndarray) -> np.ndarray:
    """Thumbnails of `COARSE` pixels from those of `THUMBNAIL`, by means of blocks; float32 (..., COARSE, COARSE)."""
    step = THUMBNAIL // COARSE
    blocks = thumbs.reshape(*thumbs.shape[:-2], COARSE, step, COARSE, step)
    return blocks.mean(axis=(-3, -1), dtype=np.float32)


def similar_pairs(
    thumbs: np.ndarray,
    threshold: float,
    others: np.ndarray | None = None,
    *,
    orientations: int = 8,
    chunk: int = 1024,
) -> Pairs:
    """All pairs whose coarse thumbnails correlate at `threshold` or more, in their best orientation, discounted.

    Memory grows with `chunk` squared and the number of pairs found, not with the number of images squared.

    Args:
        thumbs: uint8 (n, kinds, side, side), as from :func:`thumbnails`.
        threshold: correlation, -1 to 1.
        others: uint8 (m, kinds, side, side) to compare with; None: `thumbs` with themselves, each pair once.
        orientations: 8 for flips and quarter turns, 1 for upright only.
        chunk: images compared at a time.
    """
    pool = thumbs if others is None else others
    kinds = thumbs.shape[1]
    found: list[tuple[np.ndarray, ...]] = []
    for start in range(0, len(pool), chunk):
        block = pool[start : start + chunk]
        right = [
            [normalised(turned(coarse(block[:, kind]), o)) for o in range(orientations)]
            for kind in range(kinds)
        ]
        # Compared with themselves, images need only be held against those before them.
        for begin in range(0, len(thumbs) if others is not None else start + len(block), chunk):
            left = [normalised(coarse(thumbs[begin : begin + chunk, kind])) for kind in range(kinds)]
            best = np.full((len(left[0]), len(block)), -np.inf, np.float32)
            orientation = np.zeros(best.shape, np.int8)
            for kind in range(kinds):
                for o in range(orientations):
                    correlation = left[kind] @ right[kind][o].T - np.float32(DISCOUNT[kind])
                    better = correlation > best
                    orientation[better] = o
                    np.maximum(best, correlation, out=best)
            rows, columns = np.nonzero(best >= threshold)
            if others is None:
                once = rows + begin < columns + start
                rows, columns = rows[once], columns[once]
            found.append((rows + begin, columns + start, best[rows, columns], orientation[rows, columns]))
    first, second, alike, turn = (
        (np.concatenate(part) for part in zip(*found, strict=True)) if found else (np.empty(0, int),) * 4
    )
    order = np.lexsort((second, first, -alike))
    return Pairs(
        first[order],
        second[order],
        np.minimum(alike[order], 1).astype(np.float32),
        turn[order].astype(int),
    )


def correlation_of(thumbs: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Correlation of given pairs, upright, without borders.

    Args:
        thumbs: uint8 (n, kinds, side, side).
        first, second: int (pairs,).

    Returns:
        float32 (pairs,).
    """
    vectors = normalised(coarse(thumbs[:, 0]))
    return np.einsum("ij,ij->i", vectors[first], vectors[second])


def near_duplicates(
    thumbs: np.ndarray, pairs: Pairs, others: np.ndarray | None = None, threshold: float = NEAR_DUPLICATE
) -> Pairs:
    """Which of the candidates are the same picture, small differences of crop aside.

    Args:
        thumbs: uint8 (n, kinds, side, side), as from :func:`thumbnails`.
        pairs: candidates, as from :func:`similar_pairs` at `CANDIDATE`.
        others: uint8 (m, kinds, side, side), if the candidates' second images are among those.
        threshold: correlation after alignment.

    Returns:
        The pairs that reach it, with the correlation after alignment, best first.
    """
    pool = thumbs if others is None else others
    correlation = np.empty(len(pairs), np.float32)
    for orientation in np.unique(pairs.orientation):
        members = np.flatnonzero(pairs.orientation == orientation)
        for start in range(0, len(members), 4096):
            chosen = members[start : start + 4096]
            second = turned(pool[pairs.second[chosen], 0], int(orientation))
            correlation[chosen] = aligned_correlation(thumbs[pairs.first[chosen], 0], second)
    order = np.lexsort((pairs.second, pairs.first, -correlation))
    refined = Pairs(pairs.first[order], pairs.second[order], correlation[order], pairs.orientation[order])
    return refined.above(threshold)
