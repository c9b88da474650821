"""One pass over the image files at full resolution: measurements for all checks other than copies."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mri_transfer.datasets.audit.markings import Mark, find_marks
from mri_transfer.datasets.audit.modality import looks_like
from mri_transfer.datasets.image_files import open_image, read_bytes, square, upright
from mri_transfer.datasets.tumors.global_figures import picture_measures
from mri_transfer.datasets.tumors.images import ImageFile
from mri_transfer.datasets.volumes.formats.stored import quiet_libraries
from mri_transfer.machine.device import cores
from mri_transfer.progress import bar

CHROMA_NOISE = 16
"""Levels by which Cb and Cr of a grey pixel may deviate from 128. Grey content never deviates, at any JPEG quality; the
primary colours and their mixtures deviate by more than 100 (ITU-R BT.601)."""

SIDE = 48
"""Pixels of the small pictures, as in the published figures for raw-pixel nearest neighbours."""

_BITS = {"1": 1, "I;16": 16, "I;16B": 16, "I;16L": 16, "I": 32, "F": 32}  # every other Pillow mode has 8

# The luminance table of ITU-T T.81, annex K, that libjpeg scales by its quality setting.
_LUMINANCE = np.fromstring(
    """
    16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
    18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99
    """,
    dtype=int,
    sep=" ",
)


@dataclass(frozen=True, eq=False)
class Measurements:
    """One entry per file, in file order; NaN (and "" for the mode) if a file can't be read."""

    width: np.ndarray  # float (n,), pixels
    height: np.ndarray  # float (n,), pixels
    bytes: np.ndarray  # float (n,), size of the file
    number: np.ndarray  # float (n,), in the file's name, 0 if there is none
    mean: np.ndarray  # float (n,), intensity, 0..255
    contrast: np.ndarray  # float (n,), standard deviation of intensity
    entropy: np.ndarray  # float (n,), entropy of the histogram, bits per pixel
    sharpness: np.ndarray  # float (n,), mean step between neighbours, as a share of the contrast
    border: np.ndarray  # float (n,), share of the picture outside its content's bounding box
    offset_x: np.ndarray  # float (n,), left minus right margin, as a share of the width
    offset_y: np.ndarray  # float (n,), upper minus lower margin, as a share of the height
    quality: np.ndarray  # float (n,), libjpeg's quality setting, 1 to 100; 0 if not a JPEG
    colour: np.ndarray  # float (n,), share of pixels that are not grey
    depth: np.ndarray  # float (n,), bits per channel
    mode: np.ndarray  # str (n,), Pillow's name for the channels
    marks: tuple[tuple[Mark, ...], ...]  # what looks drawn on each picture
    hints: tuple[tuple[str, ...], ...]  # non-MRI content each picture looks like
    small: np.ndarray  # uint8 (n, SIDE, SIDE), padded to a square; black if a file can't be read

    def __len__(self) -> int:
        return len(self.width)

    @property
    def readable(self) -> np.ndarray:
        """bool (n,)."""
        return np.isfinite(self.width)


@cache
def _scaled_tables() -> np.ndarray:
    """int (100, 64): libjpeg's luminance table for each quality from 1 to 100, sorted.

    Sorted, because Pillow releases differ in whether they return a file's table in zigzag order.
    """
    quality = np.arange(1, 101)[:, None]
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)  # jpeg_quality_scaling of jcparam.c
    return np.sort(np.clip((_LUMINANCE * scale + 50) // 100, 1, 255), axis=1)


def jpeg_quality(table: Sequence[int]) -> int:
    """The quality setting, 1 to 100, with the luminance table nearest to a file's.

    Exact for files written by libjpeg with its own tables; other programs use different tables.
    """
    distance = np.abs(_scaled_tables() - np.sort(np.asarray(table, dtype=int)))
    return int(distance.sum(axis=1).argmin()) + 1


def coloured_share(picture: Image.Image) -> float:
    """Share of the pixels that are not grey."""
    if picture.mode == "L":
        return 0.0
    picture = picture.convert("YCbCr")
    strayed = np.abs(np.array(picture.getextrema()[1:]) - 128)
    if strayed.max() <= CHROMA_NOISE:  # almost always, and ten times faster
        return 0.0
    chroma = np.asarray(picture)[..., 1:].astype(np.int16) - 128
    return float((np.abs(chroma).max(axis=-1) > CHROMA_NOISE).mean())


def _measure(path: Path, number: int) -> dict | None:
    """The fields of :class:`Measurements` for one file; None if it can't be read."""
    with contextlib.ExitStack() as opened:
        try:
            content = read_bytes(path)
            file = opened.enter_context(open_image(io.BytesIO(content)))
            mode = file.mode
            tables = getattr(file, "quantization", None)
            picture = upright(file, "YCbCr")
        except Exception:  # of almost any kind, for damaged files; `decode` reports the reason
            return None
        grey = np.asarray(picture.convert("L"))
        height, width = grey.shape
        colour = coloured_share(picture)
        return {
            "width": width,
            "height": height,
            "bytes": len(content),
            "number": number,
            **picture_measures(grey),
            "quality": jpeg_quality(tables[min(tables)]) if tables else 0,
            "colour": colour,
            "depth": _BITS.get(mode, 8),
            "mode": mode,
            "marks": tuple(find_marks(grey)),
            "hints": looks_like(grey, colour),
            "small": square(grey, SIDE),
        }


def measure(folder: Path, files: Sequence[ImageFile]) -> Measurements:
    """Measure every file, in parallel.

    Args:
        folder, files: the argument and result of :func:`mri_transfer.datasets.tumors.images.list_images`.

    Returns:
        One entry per file; NaN for files that can't be read.
    """
    folder = Path(folder)
    with quiet_libraries(), ThreadPoolExecutor(cores()) as pool:
        measurements = pool.map(lambda file: _measure(folder / file.path, file.number), files)
        rows = list(bar(measurements, desc="measuring images", unit="image", total=len(files)))
    missing = {"mode": "", "marks": (), "hints": (), "small": np.zeros((SIDE, SIDE), np.uint8)}
    columns: dict[str, Any] = {}
    for field in dataclasses.fields(Measurements):
        values = [row[field.name] if row else missing.get(field.name, np.nan) for row in rows]
        if field.name in ("marks", "hints"):
            columns[field.name] = tuple(values)
        else:
            columns[field.name] = np.array(values, dtype=None if field.name in missing else float)
    return Measurements(**columns)
