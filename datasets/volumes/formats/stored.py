"""What every reader returns, the error that all of them raise, and the checks that they share."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from mri_transfer.words import size_in_words

SLACK_BYTES = 1 << 26  # a file, or what comes behind the voxels, may exceed the limit on voxels by this
LONGEST_ZOOM = 1000.0  # mm; beyond, the header is in other units or broken
DEFAULT_LIMIT = 1 << 30
HEADER_BYTES = 1 << 18  # within which the header of any format that can be described lies


class BadVolume(Exception):
    """A file that can't be used. The text says why, in a few words and without the file's name."""


@dataclass(frozen=True)
class Evidence:
    """What shows that a file holds no anatomical scan.

    Attributes:
        kind: of :data:`left_out.KINDS`, by which it can be asked for nevertheless.
        reason: in a few words.
    """

    kind: str
    reason: str


class NotAScan(BadVolume):
    """A sound file that holds something else than an anatomical scan, and can be asked for by `--include`."""

    def __init__(self, evidence: Evidence):
        super().__init__(f"{evidence.reason}; see --include {evidence.kind}")
        self.kind = evidence.kind


def require_scan(evidence: Evidence | None, include: Collection[str]) -> None:
    """Refuse what is no scan, unless its kind was asked for.

    Raises:
        NotAScan: there is evidence that it is none.
    """
    if evidence is not None and evidence.kind not in include:
        raise NotAScan(evidence)


def beside(header: Path, name: str, alone: str) -> Path:
    """The data file that a header names, which lies in the header's folder or below.

    Args:
        header: that names it.
        name: as written there.
        alone: suffix of the form of the format that has header and data in one file, for the remedy.

    Raises:
        BadVolume: it is several files, named in a way that leads out of the header's folder, or not there.
    """
    if name.upper().startswith("LIST") or "%" in name:
        raise BadVolume(f"its voxels lie in several files; convert it to one {alone}")
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise BadVolume("its data file is named by a path out of its folder; put it beside the header")
    if not (header.parent / path).is_file():
        raise BadVolume(f"its data file, {path.name[:80]}, is missing")
    return header.parent / path


@dataclass(frozen=True)
class Described:
    """What a header says, checked: three axes of real numbers, not too many, at a place in space.

    Attributes:
        shape, dtype: of the voxels.
        affine: (4, 4), from voxel indices to RAS mm.
        offset: where in the (decompressed) file the voxels begin.
        negative, notes, evidence: as in :class:`Stored`.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    affine: np.ndarray
    offset: int = 0
    negative: bool = False
    notes: tuple[str, ...] = ()
    evidence: Evidence | None = None
    scale: tuple[float, float] = (1.0, 0.0)


@dataclass(frozen=True)
class Stored:
    """A volume as it lies in a file, before it is brought into canonical orientation.

    Attributes:
        voxels: 3-D, in the numbers and the byte order of the file.
        affine: (4, 4), from voxel indices to mm; axes run to the patient's right, front and top (RAS+).
        negative: larger numbers are darker, by a negative scale factor or by the photometric interpretation.
        notes: what was assumed or mended.
        evidence: what the header says that shows it to be no anatomical scan.
        scale: slope and intercept that make real intensities of the stored numbers.
    """

    voxels: np.ndarray
    affine: np.ndarray
    negative: bool = False
    notes: tuple[str, ...] = ()
    evidence: Evidence | None = None
    scale: tuple[float, float] = (1.0, 0.0)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """No warnings and log lines of libraries on the terminal: what is wrong with a file is said once, by us.

    nibabel mends headers and says so in its log, which Python prints where no handler takes it.
    """
    levels = {name: logging.getLogger(name).level for name in ("nibabel", "nibabel.global", "pydicom", "PIL")}
    try:
        for name in levels:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def promised_bytes(shape: Sequence[int], dtype: np.dtype, max_bytes: int) -> int:
    """How many bytes of voxels a header promises.

    Raises:
        BadVolume: more than `max_bytes`.
    """
    count = int(np.prod([int(length) for length in shape], dtype=object)) * dtype.itemsize
    if count > max_bytes:
        raise BadVolume(f"header promises {size_in_words(count)} of voxels, more than --max-mb allows")
    return count


def spatial_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape without trailing axes of length one beyond the third.

    Raises:
        BadVolume: an axis is empty, or there are not three.
    """
    shape = tuple(int(length) for length in shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if any(length < 1 for length in shape):
        raise BadVolume(f"an axis of length {min(shape)}")
    if len(shape) > 3:
        raise BadVolume(f"{len(shape)}-D series ({' x '.join(map(str, shape))}), not one 3-D volume")
    if len(shape) < 3:
        raise BadVolume(f"{len(shape)}-D, not a 3-D volume")
    return shape


def check_voxel_type(dtype: np.dtype) -> None:
    """Refuse voxels that are no real numbers."""
    if dtype.fields is not None:
        raise BadVolume("colour (RGB) voxels, not intensities")
    if dtype.kind not in "iuf":
        raise BadVolume(f"{dtype.name} voxels, not real intensities")


def check_affine(affine: np.ndarray | None) -> None:
    """Refuse an affine that is no change of coordinates in millimetres."""
    if affine is None or not np.isfinite(affine).all():
        raise BadVolume("affine is not finite")
    zooms = np.sqrt((affine[:3, :3].astype(np.float64) ** 2).sum(axis=0))
    if not (zooms > 0).all() or np.abs(np.linalg.det(affine[:3, :3] / zooms)) < 1e-3:
        raise BadVolume("affine is singular: voxels have no volume")
    if zooms.max() > LONGEST_ZOOM:
        raise BadVolume(f"voxel size of {zooms_text(zooms)} mm")


def zooms_text(zooms: Sequence[float] | np.ndarray) -> str:
    """Voxel sizes, for a message."""
    return " x ".join(f"{zoom:g}" for zoom in zooms)
