"""What every reader returns, the error they all raise, and the checks they share."""

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

SLACK_BYTES = 1 << 26  # a file, or data after the voxels, may exceed the voxel limit by this
LONGEST_ZOOM = 1000.0  # mm; above this, the header is in other units or broken
DEFAULT_LIMIT = 1 << 30
HEADER_BYTES = 1 << 18  # bytes that contain the header of any format that can be described


class BadVolume(Exception):
    """A file that can't be used. The text says briefly why, without the file name."""


@dataclass(frozen=True)
class Evidence:
    """Evidence that a file is not an anatomical scan.

    Attributes:
        kind: in :data:`left_out.KINDS`, to request it nevertheless.
        reason: in a few words.
    """

    kind: str
    reason: str


class NotAScan(BadVolume):
    """A valid file that is not an anatomical scan, and can be requested by `--include`."""

    def __init__(self, evidence: Evidence):
        super().__init__(f"{evidence.reason}; see --include {evidence.kind}")
        self.kind = evidence.kind


def require_scan(evidence: Evidence | None, include: Collection[str]) -> None:
    """Reject what is not a scan, unless its kind was requested.

    Raises:
        NotAScan: there is evidence that it is not a scan.
    """
    if evidence is not None and evidence.kind not in include:
        raise NotAScan(evidence)


def beside(header: Path, name: str, alone: str) -> Path:
    """The data file that a header names, in the header's folder or below.

    Args:
        header: that names it.
        name: as written there.
        alone: suffix of the single-file variant of the format, for the remedy.

    Raises:
        BadVolume: it is several files, its name leads out of the header's folder, or it doesn't exist.
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
    """A header's content, validated: three axes of real numbers, not too many, with a position in space.

    Attributes:
        shape, dtype: those of the voxels.
        affine: (4, 4), from voxel indices to RAS mm.
        offset: of the voxels in the (decompressed) file.
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
    """A volume as stored in a file, before reorientation to canonical axes.

    Attributes:
        voxels: 3-D, in the file's number type and byte order.
        affine: (4, 4), from voxel indices to mm; axes run to the patient's right, front and top (RAS+).
        negative: larger values are darker, by a negative scale factor or the photometric interpretation.
        notes: what was assumed or fixed.
        evidence: what in the header shows that it is not an anatomical scan.
        scale: slope and intercept that convert stored values to real intensities.
    """

    voxels: np.ndarray
    affine: np.ndarray
    negative: bool = False
    notes: tuple[str, ...] = ()
    evidence: Evidence | None = None
    scale: tuple[float, float] = (1.0, 0.0)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Suppress library warnings and log lines on the terminal: we report a file's faults ourselves, once.

    nibabel fixes headers and logs it, which Python prints if there is no handler.
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
    """The number of bytes of voxels a header promises.

    Raises:
        BadVolume: more than `max_bytes`.
    """
    count = int(np.prod([int(length) for length in shape], dtype=object)) * dtype.itemsize
    if count > max_bytes:
        raise BadVolume(f"header promises {size_in_words(count)} of voxels, more than --max-mb allows")
    return count


def spatial_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape without trailing length-one axes after the third.

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
    """Reject voxels that are not real numbers."""
    if dtype.fields is not None:
        raise BadVolume("colour (RGB) voxels, not intensities")
    if dtype.kind not in "iuf":
        raise BadVolume(f"{dtype.name} voxels, not real intensities")


def check_affine(affine: np.ndarray | None) -> None:
    """Reject an affine that is not a coordinate transform in millimetres."""
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
