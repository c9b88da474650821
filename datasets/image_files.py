"""Image files, whatever they hold: opened within limits, turned upright, padded to a square."""

from __future__ import annotations

import io
import stat
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps

from mri_transfer.words import size_in_words

# What files whose names are read may hold. Pillow tries every format it knows otherwise, and hands one of them, EPS, to
# Ghostscript, which runs programs.
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "TIFF", "WEBP", "GIF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")


MOST_PIXELS = 40_000_000
"""Of an image file. A slice has 2 million at most; a few kilobytes can promise billions."""


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

    Pillow reads from memory, because of a file on disk it reads as much at once as a header in it promises.

    Raises:
        ValueError: it is no regular file, or larger than any picture; OSError: it can't be read.
    """
    if path.is_symlink() and not path.exists():
        raise ValueError("a link that leads nowhere")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would never end
        raise ValueError("no regular file")
    if status.st_size > MOST_BYTES:
        raise ValueError(f"{size_in_words(status.st_size)}, and no picture has so many")
    return path.read_bytes()


def open_image(file: IO[bytes]) -> Image.Image:
    """Open an image file, only its header read so far; the pixels come with :func:`upright`.

    Raises:
        ValueError: it promises more than `MOST_PIXELS` pixels.
        PIL.UnidentifiedImageError: it is no image; the text says what it is instead.
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
    return image


def _unidentified(content: bytes) -> str:
    if not content.strip(b"\0 \t\r\n"):
        return "an empty file"
    for magic, name in MAGIC.items():
        if content.startswith(magic):
            return f"a damaged {name} file, or cut off within its header"
    return "not an image, whatever its name says"


def upright(file: Image.Image, mode: str) -> Image.Image:
    """The picture of an opened file as plain grey or colour, the way round a viewer shows it.

    Transparency lies on black; deeper than 8 bits becomes grey, stretched from its own range; of several frames
    the first counts.

    Args:
        file: as from :func:`open_image`.
        mode: "L" or "YCbCr", what the caller will convert to; a JPEG is decoded to it directly.

    Returns:
        Of mode "L", "RGB" or `mode`.
    """
    # A JPEG's luma and chroma need no trip through RGB; equal for grey content, and faster.
    file.draft(mode, file.size)
    file.load()
    image = ImageOps.exif_transpose(file)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0, neginf=0)
        low, high = values.min(), values.max()
        image = Image.fromarray(
            np.round((values - low) * (255 / (high - low) if high > low else 0)).astype(np.uint8)
        )
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    if image.mode not in ("L", "RGB", mode):
        image = image.convert("RGB")
    return image


def read_grey(path: Path) -> np.ndarray:
    """An image file as grey, uint8 (height, width), the way round a viewer shows it.

    Colour becomes luma; transparency lies on black; deeper than 8 bits is stretched from its own range.

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
