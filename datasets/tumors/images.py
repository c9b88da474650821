"""A folder of labelled images: finding the files, and decoding each once for all later steps."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mri_transfer.datasets.image_files import open_image, read_bytes, square, upright
from mri_transfer.datasets.tumors.copies.thumbnails import THUMBNAIL, thumbnail
from mri_transfer.datasets.tumors.layout import Layout, read_layout
from mri_transfer.datasets.tumors.persons.binding import FINE, fine
from mri_transfer.datasets.volumes.formats.stored import quiet_libraries
from mri_transfer.machine.device import cores
from mri_transfer.progress import bar
from mri_transfer.storage.arrays import Shape, check_shapes, load_npz, save_npz
from mri_transfer.storage.files import parse_json, wrong_fields
from mri_transfer.words import counted, reason_in_words

CACHE_FORMAT = 7
CACHED = ("rows", "images", "thumbs", "fine", "pixels", "bytes")  # arrays of a `Decoded`


@dataclass(frozen=True)
class ImageFile:
    """One labelled image file; a numbered name is split, "gg (12).jpg" into "gg (" and 12.

    A folder within the class is part of the prefix.
    """

    path: str  # relative to the folder, with forward slashes
    split: str
    label: int
    prefix: str
    number: int


@dataclass(frozen=True, eq=False)
class Decoded:
    """Decoded data, one row per readable file."""

    rows: np.ndarray  # int (n,), positions in the list of files
    images: np.ndarray  # uint8 (n, size, size), padded to a square
    thumbs: np.ndarray  # uint8 (n, side, side)
    fine: np.ndarray  # uint8 (n, side, side), the whole picture, for recognising it
    pixels: np.ndarray  # str (n,), SHA-256 of the decoded pixels and their shape
    bytes: np.ndarray  # str (n,), SHA-256 of the file
    skipped: list[dict]  # {"file", "reason"} of each unreadable file


def _numbered(stem: str) -> tuple[str, int]:
    """The text before the last number of a file name, and the number (0 if there is none)."""
    match = re.fullmatch(r"(.*?)(\d+)\)?", stem, re.DOTALL)
    return (match[1], int(match[2][-18:])) if match else (stem, 0)


def list_images(folder: Path) -> tuple[list[ImageFile], tuple[str, ...]]:
    """Every image below `folder`, in a machine-independent order, and the class names.

    Args:
        folder: laid out as :mod:`mri_transfer.datasets.tumors.layout` says; within a class, folders may be nested.

    Returns:
        Files, training first, each class in the order of its file numbers; class names, sorted.

    Raises:
        UserError: as in :func:`mri_transfer.datasets.tumors.layout.read_layout`.
    """
    layout = read_layout(Path(folder))
    return images_of(layout, Path(folder)), layout.classes


def images_of(layout: Layout, folder: Path) -> list[ImageFile]:
    """The files of a layout of `folder`, in the order of :func:`list_images`."""
    files: list[ImageFile] = []
    for place in layout.places:
        keys = []
        for path in place.images:
            within = path.parent.relative_to(place.folder).as_posix()
            prefix, number = _numbered(path.stem)
            keys.append(("" if within == "." else f"{within}/", prefix, number, path))
        label = layout.classes.index(place.name)
        files += [
            ImageFile(path.relative_to(folder).as_posix(), place.split, label, within + prefix, number)
            for within, prefix, number, path in sorted(keys)
        ]
    return files


def unreadable(skipped: Sequence[dict]) -> list[str]:
    """A line on files that can't be read, as of :class:`Decoded`; none if all can."""
    if not skipped:
        return []
    first = skipped[0]
    rest = f", and {counted(len(skipped) - 1, 'more picture')}" if len(skipped) > 1 else ""
    return [f"left out as unreadable: {first['file']} ({first['reason']}){rest}; summary.json lists all"]


def _decode(path: Path, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, str, str] | str:
    """Small image, thumbnail, whole picture, hash of pixels and hash of bytes; or the reason for failure."""
    with contextlib.ExitStack() as opened:
        try:
            content = read_bytes(path)
            file = opened.enter_context(open_image(io.BytesIO(content)))
            grey = np.asarray(upright(file, "L").convert("L"))
        except Exception as error:  # Pillow's readers raise almost anything on damaged files
            return reason_in_words(error) or type(error).__name__
        pixels = hashlib.sha256(repr(grey.shape).encode())
        pixels.update(np.ascontiguousarray(grey))
        digest = hashlib.sha256(content).hexdigest()
        return square(grey, size), thumbnail(grey), fine(grey), pixels.hexdigest(), digest


def decode(folder: Path, files: Sequence[ImageFile], size: int, cache: Path | None = None) -> Decoded:
    """Read every file, in parallel; with `cache`, only once for this list of files and this size.

    Args:
        folder, files: the argument and result of :func:`list_images`.
        size: pixels of the small images.
        cache: a folder for caching the result; a damaged or outdated cache is rebuilt.
    """
    folder = Path(folder)
    cache_file = None
    if cache is not None:
        cache = Path(cache)
        cache.mkdir(exist_ok=True)
        cache_file = cache / f"tumors-{_state(folder, files, size)[:16]}.npz"
        if (cached := _load_cache(cache_file, size, len(files))) is not None:
            return cached
    images = np.empty((len(files), size, size), np.uint8)
    thumbs = np.empty((len(files), THUMBNAIL, THUMBNAIL), np.uint8)
    whole = np.empty((len(files), FINE, FINE), np.uint8)
    hashes = []
    rows: list[int] = []
    skipped: list[dict] = []
    # Pillow and hashlib release the GIL while they work.
    with quiet_libraries(), ThreadPoolExecutor(cores()) as pool:
        results = pool.map(lambda file: _decode(folder / file.path, size), files)
        for position, result in enumerate(
            bar(results, desc="reading images", unit="image", total=len(files))
        ):
            if isinstance(result, str):
                skipped.append({"file": files[position].path, "reason": result})
                continue
            images[len(rows)], thumbs[len(rows)], whole[len(rows)] = result[:3]
            hashes.append(result[3:])
            rows.append(position)
    pixels, content = (
        (np.array(column, dtype="U64") for column in zip(*hashes, strict=True)) if hashes else ([], [])
    )
    count = len(rows)
    decoded = Decoded(
        np.array(rows, dtype=int),
        images[:count],
        thumbs[:count],
        whole[:count],
        np.asarray(pixels),
        np.asarray(content),
        skipped,
    )
    if cache_file is not None:
        _save_cache(cache_file, decoded)
    return decoded


def _state(folder: Path, files: Sequence[ImageFile], size: int) -> str:
    """Changes when a file is added, removed, renamed or written."""
    digest = hashlib.sha256(f"{CACHE_FORMAT} {size}".encode())
    for file in files:
        try:
            status = (folder / file.path).stat()
        except OSError:  # a broken link: reported by `_decode`
            status = (folder / file.path).lstat()
        digest.update(
            f"\0{file.path}\0{status.st_size}\0{status.st_mtime_ns}".encode("utf-8", "surrogateescape")
        )
    return digest.hexdigest()


def _save_cache(path: Path, decoded: Decoded) -> None:
    skipped = np.frombuffer(json.dumps(decoded.skipped).encode(), dtype=np.uint8)
    save_npz(path, {name: getattr(decoded, name) for name in CACHED} | {"skipped": skipped})


def _load_cache(path: Path, size: int, files: int) -> Decoded | None:
    try:
        arrays = load_npz(path)
        of_pictures = {"thumbs": THUMBNAIL, "fine": FINE, "images": size}
        expected: dict[str, tuple[str, Shape]] = {
            **{name: ("u", ("files", side, side)) for name, side in of_pictures.items()},
            **{"rows": ("iu", ("files",)), "pixels": ("U", ("files",)), "bytes": ("U", ("files",))},
        }
        check_shapes(arrays, expected)
        rows = arrays["rows"].tolist()
        if sorted({*rows}) != rows or not set(rows) <= set(range(files)):
            raise ValueError("rows are of other files")
        skipped = parse_json(arrays["skipped"].tobytes())
        if wrong_fields({"skipped": skipped}, {"skipped": [{"file": str, "reason": str}]}):
            raise ValueError("the list of skipped files is of the wrong kind")
        return Decoded(**{name: arrays[name] for name in CACHED}, skipped=skipped)
    except (ValueError, KeyError):
        return None
