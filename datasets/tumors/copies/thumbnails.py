"""Small versions of images for comparison: without frame and border, in every flip and quarter turn."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

THUMBNAIL = 64  # pixels
COARSE = 32  # pixels, for comparing groups

BLUR = 0.7
"""Standard deviation in pixels: shrunk or compressed copies lack the finest detail of their originals. Of 0, 0.7, 1 and
1.5, measured on the public four-class set, this best separates copies from neighbouring slices."""

DARK = 0.17  # of white: few heads are darker in their box, and neighbouring slices stay distinct
_FRAMES = 4  # nested
_FRAME = 24  # grey levels by which a frame may vary: JPEG compression smears its edge
_ENOUGH = (
    256  # pixels of the longer side for finding content; larger images are sampled at every second or third
)
_GAP = 0.03  # of a side: shorter dark gaps don't end the picture


def _without_frame(image: np.ndarray, dark: bool = False) -> tuple[int, int, int, int]:
    """The box (left, top, right, bottom) inside plain margins of any one colour, as screenshots have them.

    Margins may be nested, as when a picture with a white frame was padded with black. With `dark`, dark margins are
    removed too, if nothing bright is outside them.
    """
    bounds = [0, len(image), 0, image.shape[1]]  # top, bottom, left, right
    framed = list(bounds)
    for _ in range(_FRAMES):
        before = list(bounds)
        for side in range(4):
            rest = image[bounds[0] : bounds[1], bounds[2] : bounds[3]]
            lines = (rest, rest[::-1], rest.T, rest.T[::-1])[side].astype(np.int16)
            colour = float(np.median(lines[0]))
            plain = (np.abs(lines - colour) <= _FRAME).mean(axis=1) >= 0.97
            inside = np.flatnonzero(~plain)
            if len(inside) and inside[0]:
                bounds[side] += int(inside[0]) * (-1 if side % 2 else 1)
                # The air around a head is dark too: dark margins count only outside bright ones.
                if dark or colour > _FRAME:
                    framed = list(bounds)
        if bounds == before:
            break
    top, bottom, left, right = framed
    return left, top, right, bottom


def _longest_run(flags: np.ndarray) -> tuple[int, int] | None:
    """Start and end (exclusive) of the longest run of true values, including short gaps."""
    places = np.flatnonzero(flags)
    if not len(places):
        return None
    breaks = np.flatnonzero(np.diff(places) > max(2, _GAP * len(flags)))
    starts = places[np.concatenate([[0], breaks + 1])]
    stops = places[np.concatenate([breaks, [len(places) - 1]])] + 1
    longest = int(np.argmax(stops - starts))
    return int(starts[longest]), int(stops[longest])


def content_box(image: np.ndarray) -> tuple[int, int, int, int]:
    """The box (left, top, right, bottom) around the image's content; the whole image if nothing stands out.

    Plain margins of any colour are cut off first. Then a row or column belongs to the border if less than 2% of it is
    brighter than a fifth of the bright parts of the image (its 99th percentile): noise in the air does not count as
    content, nor does the outermost 2%, where screenshots have lines. The longest of several bright stretches counts, so
    that letters in the border are left out.

    Args:
        image: uint8 (height, width).
    """
    step = max(1, max(image.shape) // _ENOUGH)
    left, top, right, bottom = _box(image[::step, ::step])
    return left * step, top * step, min(right * step, image.shape[1]), min(bottom * step, image.shape[0])


def _box(image: np.ndarray) -> tuple[int, int, int, int]:
    left, top, right, bottom = _without_frame(image)
    inner = image[top:bottom, left:right]
    margin = max(1, round(0.02 * min(inner.shape)))
    inner = inner[margin:-margin, margin:-margin]
    if inner.size:
        levels = np.cumsum(np.bincount(inner.ravel(), minlength=256))
        bright = inner > max(10.0, 0.2 * float(np.searchsorted(levels, 0.99 * inner.size)))
        # Rows are found first, then columns within those rows, then rows within those columns.
        rows = _longest_run(bright.mean(axis=1) > 0.02)
        columns = rows and _longest_run(bright[slice(*rows)].mean(axis=0) > 0.02)
        rows = columns and _longest_run(bright[:, slice(*columns)].mean(axis=1) > 0.02)
        if rows and columns and rows[1] - rows[0] >= 4 and columns[1] - columns[0] >= 4:
            left, top = left + margin, top + margin
            return left + columns[0], top + rows[0], left + columns[1], top + rows[1]
    return 0, 0, image.shape[1], image.shape[0]


def thumbnail(image: np.ndarray) -> np.ndarray:
    """The content of an image as a positive, stretched to a square and to 0..255, and slightly blurred.

    Args:
        image: uint8 (height, width).

    Returns:
        uint8 (THUMBNAIL, THUMBNAIL).
    """
    image = positive(image)
    box = content_box(image)
    bright = lifted(image, box)
    box = box if bright is image else content_box(bright)
    small = Image.fromarray(bright).convert("F")
    small = small.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX, box=box)
    values = gaussian_filter(np.asarray(small), BLUR)
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return np.zeros((THUMBNAIL, THUMBNAIL), np.uint8)
    return np.round((values - low) * (255 / (high - low))).astype(np.uint8)


def positive(image: np.ndarray) -> np.ndarray:
    """The image, inverted if it seems to be a negative: bright all around inside all margins, and mostly bright.

    Args:
        image: uint8 (height, width).
    """
    step = max(1, max(image.shape) // _ENOUGH)
    small = image[::step, ::step]
    if (small > 127).mean() < 0.2:  # quick exit for almost all positives: margins take less than that
        return image
    left, top, right, bottom = _without_frame(small, dark=True)
    inner = small[top:bottom, left:right]
    if min(inner.shape) < 8:
        return image
    edge = max(1, round(0.03 * min(inner.shape)))
    ring = np.concatenate(
        [strip.ravel() for strip in (inner[:edge], inner[-edge:], inner[:, :edge], inner[:, -edge:])]
    )
    return 255 - image if np.median(ring) > 127 and np.median(inner) > 127 else image


def lifted(image: np.ndarray, box: tuple[int, int, int, int] | None = None) -> np.ndarray:
    """A dark image, gamma-corrected to a content mean of `DARK`; others unchanged.

    Otherwise dark tissue would be taken for border. Do this before shrinking an image, as the mean of pixels is not
    that of their powers.

    Args:
        image: uint8 (height, width).
        box: around its content, if known.
    """
    left, top, right, bottom = content_box(image) if box is None else box
    step = max(1, max(image.shape) // _ENOUGH)
    counts = np.bincount(image[top:bottom:step, left:right:step].ravel(), minlength=256)
    tones, target = np.arange(256) / 255, DARK * counts.sum()
    if counts @ tones >= target or not counts[1:].any():
        return image
    low, high = 0.2, 1.0
    for _ in range(10):
        middle = (low + high) / 2
        low, high = (middle, high) if counts @ tones**middle > target else (low, middle)
    return np.round(255 * tones ** ((low + high) / 2)).astype(np.uint8)[image]


def turned(images: np.ndarray, orientation: int) -> np.ndarray:
    """One of the eight flips and quarter turns of square images (..., side, side); 0 is the identity."""
    flipped = images[..., ::-1] if orientation >= 4 else images
    return np.rot90(flipped, orientation % 4, axes=(-2, -1))


def opposite(orientation: np.ndarray) -> np.ndarray:
    """The inverse of an orientation; a turn after a flip is its own inverse. int, any shape."""
    return np.where(orientation >= 4, orientation, -orientation % 4)


def normalised(images: np.ndarray) -> np.ndarray:
    """Vectors of mean 0 and length 1, so that matrix products are correlations.

    A flat image has no pattern to compare and becomes zeros.

    Args:
        images: (..., side, side).

    Returns:
        float32 (..., pixels).
    """
    vectors = images.reshape(*images.shape[:-2], -1).astype(np.float32)  # a copy, changed below
    vectors -= vectors.mean(axis=-1, keepdims=True)
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 1e-3)


def coarse(thumbs: np.ndarray) -> np.ndarray:
    """Thumbnails of `COARSE` pixels from those of `THUMBNAIL`, by block means; float32 (..., COARSE, COARSE)."""
    return block_means(thumbs, COARSE)


def block_means(images: np.ndarray, side: int) -> np.ndarray:
    """Square images of a multiple of `side` pixels, by block means; float32 (..., side, side)."""
    step = images.shape[-1] // side
    blocks = images.reshape(*images.shape[:-2], side, step, side, step)
    return blocks.mean(axis=(-3, -1), dtype=np.float32)
