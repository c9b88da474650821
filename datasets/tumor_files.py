"""A folder of labelled images: finding the files, and decoding each once to what the rest needs of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps

from mri_transfer.datasets.thumbnails import THUMBNAIL, thumbnail
from mri_transfer.device import cores
from mri_transfer.errors import UserError
from mri_transfer.files import atomic_write
from mri_transfer.progress import bar

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")
# What files with those names may hold. Pillow tries every format it knows otherwise, and hands one of them, EPS, to
# Ghostscript, which runs programs.
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "TIFF", "WEBP", "GIF")
MOST_PIXELS = 40_000_000
"""Of an image file. A slice has 2 million at most; a few kilobytes can promise billions."""
TOO_LARGE = "promises {size} pixels, and more than 40 million are refused"
CACHE_FORMAT = 5
UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)  # by a damaged .npz


@dataclass(frozen=True)
class ImageFile:
    """One labelled image file; a numbered name is taken apart, "gg (12).jpg" into "gg (" and 12."""

    path: str  # relative to the folder, with forward slashes
    split: str
    label: int
    prefix: str
    number: int


@dataclass(frozen=True, eq=False)
class Decoded:
    """What was read, one row a file that could be read."""

    rows: np.ndarray  # int (n,), positions in the list of files
    images: np.ndarray  # uint8 (n, size, size), padded to a square
    thumbs: np.ndarray  # uint8 (n, side, side)
    pixels: np.ndarray  # str (n,), SHA-256 of the decoded pixels and their shape
    bytes: np.ndarray  # str (n,), SHA-256 of the file
    skipped: list[dict]  # {"file", "reason"} of each file that could not


def _folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _image_paths(folder: Path) -> list[Path]:
    return [
        entry
        for entry in folder.iterdir()
        if entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".") and entry.is_file()
    ]


def _split_folders(folder: Path) -> dict[str, Path]:
    """Name and folder of each split, training first; or one split, "all", if class folders lie here."""
    inner = _folders(folder)
    named = [entry for entry in inner if re.match(r"(train|test|valid)", entry.name, re.IGNORECASE)]
    if named and len(named) == len(inner):
        return {
            entry.name: entry for entry in sorted(named, key=lambda e: (not _is_training(e.name), e.name))
        }
    return {"all": folder}


def _is_training(name: str) -> bool:
    return name.lower().startswith("train")


def _numbered(stem: str) -> tuple[str, int]:
    """The text before the last number of a file name, and the number (0 if there is none)."""
    match = re.fullmatch(r"(.*?)(\d+)\)?", stem, re.DOTALL)
    return (match[1], int(match[2][-18:])) if match else (stem, 0)


def list_images(folder: Path) -> tuple[list[ImageFile], tuple[str, ...]]:
    """Every image below `folder`, in an order that does not depend on the machine, and the class names.

    Args:
        folder: holds one folder a class, or `Training` and `Testing` which do.

    Returns:
        Files, training first, each class in the order of its file numbers; class names, sorted.

    Raises:
        UserError: no such folder, no class folders, one missing in a split, or one without images.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; name the one that holds Training and Testing, or the class folders"
        )
    splits = _split_folders(folder)
    classes = tuple(sorted({entry.name for split in splits.values() for entry in _folders(split)}))
    if len(classes) < 2:
        found = f"only {classes[0]}" if classes else "none"
        raise UserError(f"{folder}: needs a folder of images for each of two or more classes, found {found}")
    files: list[ImageFile] = []
    for split, place in splits.items():
        for label, name in enumerate(classes):
            if not (place / name).is_dir():
                raise UserError(
                    f"{place / name}: no such folder, though another split has it; add or remove the class"
                )
            paths = _image_paths(place / name)
            if not paths:
                raise UserError(
                    f"{place / name}: holds no images ({', '.join(SUFFIXES)}); add some or remove the class"
                )
            named = sorted((*_numbered(path.stem), path.name) for path in paths)
            files += [
                ImageFile((place / name / file).relative_to(folder).as_posix(), split, label, prefix, number)
                for prefix, number, file in named
            ]
    return files, classes


@contextlib.contextmanager
def quiet_about_size() -> Iterator[None]:
    """:func:`open_image` refuses images of too many pixels; Pillow would warn of some of them besides."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def open_image(path: Path | IO[bytes]) -> Image.Image:
    """Open an image file, only its header read so far; the pixels come with :func:`upright`.

    Raises:
        ValueError: it promises more than `MOST_PIXELS` pixels.
        Exception: whatever Pillow raises for files that are damaged or no images.
    """
    file = Image.open(path, formats=FORMATS)
    if file.width * file.height > MOST_PIXELS:
        file.close()
        raise ValueError(TOO_LARGE.format(size=f"{file.width}x{file.height}"))
    return file


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
    with open_image(path) as file:
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


def _decode(path: Path, size: int) -> tuple[np.ndarray, np.ndarray, str, str] | str:
    """Small image, thumbnail, hash of pixels and hash of bytes; or the reason why not."""
    try:
        content = path.read_bytes()
        grey = read_grey(path)
    except Exception as error:  # Pillow's readers raise nearly anything for damaged files
        if isinstance(error, Image.UnidentifiedImageError):
            return "not an image, whatever its name says" if content.strip() else "an empty file"
        return " ".join(
            f"{error.strerror if isinstance(error, OSError) and error.strerror else error}".split()
        )
    pixels = hashlib.sha256(repr(grey.shape).encode() + grey.tobytes()).hexdigest()
    return square(grey, size), thumbnail(grey), pixels, hashlib.sha256(content).hexdigest()


def decode(folder: Path, files: Sequence[ImageFile], size: int, cache: Path | None = None) -> Decoded:
    """Read every file, in parallel; with `cache`, only once for this list of files and this size.

    Args:
        folder, files: as given to and by :func:`list_images`.
        size: pixels of the small images.
        cache: a folder to keep the result in; a damaged or outdated cache is made anew.
    """
    folder = Path(folder)
    kept = None
    if cache is not None:
        cache = Path(cache)
        cache.mkdir(parents=True, exist_ok=True)
        kept = cache / f"tumors-{_state(folder, files, size)[:16]}.npz"
        if (found := _load_cache(kept)) is not None:
            return found
    images = np.empty((len(files), size, size), np.uint8)
    thumbs = np.empty((len(files), THUMBNAIL, THUMBNAIL), np.uint8)
    hashes = []
    rows: list[int] = []
    skipped: list[dict] = []
    # Pillow and hashlib let go of the interpreter while they work.
    with quiet_about_size(), ThreadPoolExecutor(cores()) as pool:
        results = pool.map(lambda file: _decode(folder / file.path, size), files)
        for position, result in enumerate(
            bar(results, desc="reading images", unit="image", total=len(files))
        ):
            if isinstance(result, str):
                skipped.append({"file": files[position].path, "reason": result})
                continue
            images[len(rows)], thumbs[len(rows)] = result[0], result[1]
            hashes.append(result[2:])
            rows.append(position)
    pixels, content = (
        (np.array(column, dtype="U64") for column in zip(*hashes, strict=True)) if hashes else ([], [])
    )
    count = len(rows)
    decoded = Decoded(
        np.array(rows, dtype=int),
        images[:count],
        thumbs[:count],
        np.asarray(pixels),
        np.asarray(content),
        skipped,
    )
    if kept is not None:
        _save_cache(kept, decoded)
    return decoded


def _state(folder: Path, files: Sequence[ImageFile], size: int) -> str:
    """Changes when a file is added, removed, renamed or written."""
    digest = hashlib.sha256(f"{CACHE_FORMAT} {size}".encode())
    for file in files:
        status = (folder / file.path).stat()
        digest.update(
            f"\0{file.path}\0{status.st_size}\0{status.st_mtime_ns}".encode("utf-8", "surrogateescape")
        )
    return digest.hexdigest()


def _save_cache(path: Path, decoded: Decoded) -> None:
    with atomic_write(path, "wb") as file:
        np.savez(
            file,
            rows=decoded.rows,
            images=decoded.images,
            thumbs=decoded.thumbs,
            pixels=decoded.pixels,
            bytes=decoded.bytes,
            skipped=np.frombuffer(json.dumps(decoded.skipped).encode(), dtype=np.uint8),
        )


def _load_cache(path: Path) -> Decoded | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            kept = {name: arrays[name] for name in ("rows", "images", "thumbs", "pixels", "bytes")}
            return Decoded(**kept, skipped=json.loads(arrays["skipped"].tobytes()))
    except UNREADABLE:
        return None
