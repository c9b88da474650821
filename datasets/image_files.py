"""Image files of any content: opened within limits, turned upright, padded to a square."""

from __future__ import annotations

import contextlib
import io
import stat
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps

from mri_transfer.words import size_in_words

# Formats accepted from files. Otherwise Pillow tries every format it knows, and passes one of them, EPS, to
# Ghostscript, which runs programs.
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "TIFF", "WEBP", "GIF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")


MOST_PIXELS = 40_000_000
"""Of an image file. A slice has at most 2 million; a file of a few kilobytes can promise billions."""


LARGE = 4_000_000
"""Pixels of an image that needs hundreds of megabytes to read, at up to 16 bytes per pixel."""


TOO_LARGE = "promises {size} pixels, and more than 40 million are refused"


MOST_BYTES = 256_000_000


MAGIC = {
    b"\xff\xd8": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*": "TIFF",
    b"MM\0*": "TIFF",
}


def read_bytes(path: Path) -> bytes:
    """All of an image file.

    Pillow reads from memory, because from a file on disk it reads as much at once as a header promises.

    Raises:
        ValueError: it is not a regular file, or larger than any picture; OSError: it can't be read.
    """
    if path.is_symlink() and not path.exists():
        raise ValueError("a broken link")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would never end
        raise ValueError("not a regular file")
    if status.st_size > MOST_BYTES:
        raise ValueError(f"{size_in_words(status.st_size)}, and no picture has so many")
    return path.read_bytes()


_ONE_AT_A_TIME = threading.Lock()


@contextlib.contextmanager
def open_image(file: IO[bytes]) -> Iterator[Image.Image]:
    """Open an image file, reading only its header; :func:`upright` reads the pixels.

    Only one image with more than `LARGE` pixels is open at a time; other threads wait.

    Raises:
        ValueError: it promises more than `MOST_PIXELS` pixels.
        PIL.UnidentifiedImageError: it is not an image; the text says what it is instead.
        Exception: whatever Pillow raises for files that are damaged.
    """
    try:
        image = Image.open(file, formats=FORMATS)
    except Image.UnidentifiedImageError:
        file.seek(0)
        raise Image.UnidentifiedImageError(_unidentified(file.read())) from None
    except Image.DecompressionBombError:
        raise ValueError(TOO_LARGE.format(size="hundreds of millions of")) from None
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(TOO_LARGE.format(size=f"{image.width}x{image.height}"))
    with image, _ONE_AT_A_TIME if image.width * image.height > LARGE else contextlib.nullcontext():
        yield image


def _unidentified(content: bytes) -> str:
    if not content.strip(b"\0 \t\r\n"):
        return "an empty file"
    for magic, name in MAGIC.items():
        if content.startswith(magic):
            return f"a damaged {name} file, or cut off within its header"
    return "not an image, whatever its name says"


def upright(file: Image.Image, mode: str) -> Image.Image:
    """The picture of an opened file as plain grey or colour, in the orientation a viewer shows.

    Transparency is composited on black; more than 8 bits becomes grey, rescaled from its own range; of several frames
    the first is used.

    Args:
        file: from :func:`open_image`.
        mode: "L" or "YCbCr", the caller's target; a JPEG is decoded to it directly.

    Returns:
        An image of mode "L", "RGB" or `mode`.

    Raises:
        ValueError: all pixels are NaN or infinite; single ones, as outside a mask, are black.
        Exception: whatever Pillow raises for files that are damaged.
    """
    # A JPEG's luma and chroma need no trip through RGB; equal for grey content, and faster.
    file.draft(mode, file.size)
    file.load()
    ImageOps.exif_transpose(file, in_place=True)
    image: Image.Image = file
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        if not any(np.isfinite(np.asarray(band)).any() for band in _bands(image)):
            raise ValueError("no pixel is a number (all are NaN or infinite)")
        extremes = [(values.min(), values.max()) for values in map(_values, _bands(image))]
        low, high = min(low for low, _ in extremes), max(high for _, high in extremes)
        scale = 255 / (high - low) if high > low else 0
        image = _joined(
            (
                Image.fromarray(np.round((_values(band) - low) * scale).astype(np.uint8))
                for band in _bands(image)
            ),
            Image.new("L", image.size),
        )
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image = _joined(map(_on_black, _bands(image)), Image.new("RGB", image.size))
    if image.mode not in ("L", "RGB", mode):
        image = image.convert("RGB")
    return image


def _bands(image: Image.Image) -> Iterator[Image.Image]:
    # In blocks of rows: processing a whole picture with more than 8 bits or transparency takes a multiple of its size.
    rows = max(1, (1 << 20) // image.width)
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height)))


def _joined(bands: Iterable[Image.Image], canvas: Image.Image) -> Image.Image:
    top = 0
    for band in bands:
        canvas.paste(band, (0, top))
        top += band.height
    return canvas


def _values(image: Image.Image) -> np.ndarray:
    return np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0, neginf=0)


def _on_black(image: Image.Image) -> Image.Image:
    return Image.alpha_composite(
        Image.new("RGBA", image.size, (0, 0, 0, 255)), image.convert("RGBA")
    ).convert("RGB")


def read_grey(path: Path) -> np.ndarray:
    """An image file as grey, uint8 (height, width), in the orientation a viewer shows.

    Colour becomes luma; transparency is composited on black; more than 8 bits is rescaled from its own range.

    Raises:
        Exception: whatever Pillow raises for files that are damaged or no images.
    """
    with open_image(io.BytesIO(read_bytes(path))) as file:
        return np.asarray(upright(file, "L").convert("L"))


def square(image: np.ndarray, size: int) -> np.ndarray:
    """Pad to a square with black, the image in the middle, and resize with anti-aliasing.

    Args:
        image: uint8 (height, width).
        size: pixels.

    Returns:
        uint8 (size, size).
    """
    height, width = image.shape
    scale = size / max(height, width)
    inner = max(1, round(width * scale)), max(1, round(height * scale))
    small = Image.fromarray(image).resize(
        inner, Image.Resampling.BILINEAR
    )  # Pillow widens the filter: no aliasing
    canvas = Image.new("L", (size, size))
    canvas.paste(small, ((size - inner[0]) // 2, (size - inner[1]) // 2))
    return np.asarray(canvas)
