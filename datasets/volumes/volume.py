"""Reading one volume: from files on disk to a 3-D array in canonical orientation, or the reason why not."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib
import re
import struct
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from mri_transfer.datasets.volumes.contents import no_scan
from mri_transfer.datasets.volumes.formats.compressed import start_of
from mri_transfer.datasets.volumes.formats.metaimage import is_metaimage
from mri_transfer.datasets.volumes.formats.nifti import is_nifti
from mri_transfer.datasets.volumes.formats.stored import (
    DEFAULT_LIMIT,
    HEADER_BYTES,
    SLACK_BYTES,
    BadVolume,
    Described,
    NotAScan,
    Stored,
    quiet_libraries,
    require_scan,
)
from mri_transfer.words import size_in_words

__all__ = ["BadVolume", "NotAScan", "Volume", "describe_volume", "read_volume"]


# MP2RAGE's ratio of two echoes: in air it is as evenly distributed as phase.
_UNIFORM = re.compile(r"mp2rage|(?<![a-z])uni(?![a-z])|unit1", re.IGNORECASE)
_FEWEST_PADDING = 0.001  # of the voxels; fewer are outliers


@dataclass(frozen=True)
class Volume:
    """A volume in canonical orientation: axes run to the patient's right, front and top (RAS+).

    Attributes:
        voxels: (x, y, z) as stored in the file. A positive scale factor and an offset shared by all voxels are not
            applied, as everything made from the voxels is invariant under both; a negative factor is applied.
        zooms: distance between voxel centres along x, y and z, mm.
        origins: position of the first layer of voxels along each axis, mm, in scanner coordinates on that
            axis.
        sha256: of the files' bytes, one file after the other.
        notes: what was assumed or fixed.
    """

    voxels: np.ndarray
    zooms: tuple[float, float, float]
    origins: tuple[float, float, float]
    sha256: str
    notes: tuple[str, ...] = ()


def read_volume(
    files: Sequence[Path], max_bytes: int = DEFAULT_LIMIT, include: Collection[str] | None = None
) -> Volume:
    """Read a volume in any known format, recognised by content.

    Args:
        files: one file; a header and its image; or the slices of a DICOM series.
        max_bytes: larger files, or headers that promise more voxels, are rejected before anything is allocated.
        include: kinds in :data:`left_out.KINDS` to keep though they are not anatomical scans; None skips the check of
            what the volume shows.

    Raises:
        NotAScan: the header or the voxels show another kind.
        BadVolume: the file is broken, or is not one 3-D volume of real numbers with something in it.
    """
    with _reasons():
        total = sum(path.stat().st_size for path in files)
        if total > max_bytes + SLACK_BYTES:
            raise BadVolume(f"file of {size_in_words(total)}, more than --max-mb allows")
        blobs = [path.read_bytes() for path in files]
        digest = hashlib.sha256()
        for blob in blobs:
            digest.update(blob)
        with quiet_libraries():
            stored: Stored = _reader(blobs[0], files).read(blobs, files, max_bytes)
        del blobs
        if include is not None:
            require_scan(stored.evidence, include)
        volume = _canonical(stored, digest.hexdigest())
        if include is not None:
            finding = no_scan(volume.voxels, _scale_of(stored))
            uniform = finding is not None and finding.kind == "fmap" and _UNIFORM.search(files[-1].name)
            require_scan(None if uniform else finding, include)
        return volume


def describe_volume(
    files: Sequence[Path], max_bytes: int = DEFAULT_LIMIT, include: Collection[str] | None = None
) -> Described:
    """What the header of a volume says, read from the start of its first file if the format allows.

    Args:
        files, max_bytes, include: as in :func:`read_volume`.

    Raises:
        NotAScan: the header shows another kind.
        BadVolume: the header shows that the volume can't be used.
    """
    with _reasons(), quiet_libraries():
        with files[0].open("rb") as file:
            start = file.read(HEADER_BYTES)
        reader = _reader(start, files)
        description: Described = reader.describe(start, files, max_bytes)
        if include is not None:
            require_scan(description.evidence, include)
        return description


@contextlib.contextmanager
def _reasons() -> Iterator[None]:
    """Turn what readers and their libraries raise into a BadVolume with a short reason."""
    try:
        yield
    except BadVolume:
        raise
    except MemoryError:
        raise BadVolume("needs more memory than there is") from None
    except ImportError as error:
        extra = {"pydicom": "dicom", "nrrd": "nrrd"}.get(str(error.name).split(".")[0])
        if extra is None:
            raise
        reason = f"reading it needs a library that is missing: pip install 'mri-transfer[{extra}]'"
        raise BadVolume(reason) from None
    except (OSError, EOFError, zlib.error) as error:
        raise BadVolume(_why_unreadable(error)) from None
    except Exception as error:  # a damaged header makes the libraries raise many kinds of errors
        raise BadVolume(f"header not understood ({' '.join(str(error).split())[:100]})") from None


def _reader(start: bytes, files: Sequence[Path]) -> Any:
    """The module that reads files, by the first one's leading bytes."""
    return importlib.import_module(f"mri_transfer.datasets.volumes.formats.{_format(start, files)}")


def _format(start: bytes, files: Sequence[Path]) -> str:
    """The module in `formats` that reads a file, by content or else by name."""
    head = start_of(start, 544)
    if not start:
        raise BadVolume("empty file")
    if head[128:132] == b"DICM":
        return "dicom.volume"
    if head.startswith(b"NRRD"):
        return "nrrd"
    if is_metaimage(head):
        return "metaimage"
    if head.startswith((b"CDF", b"\x89HDF")):
        return "minc"
    if is_nifti(head):
        return "nifti"
    if head.startswith(struct.pack(">i", 1)) and files[0].name.lower().endswith((".mgh", ".mgz", ".mgh.gz")):
        return "mgh"
    if len(files) > 2 or files[0].suffix.lower() in (".dcm", ".dicom", ".ima"):
        return "dicom.volume"  # without preamble, as some archives store them
    if not head:
        raise BadVolume("truncated: the file ends before its data do")
    raise BadVolume("not a volume in a known format, whatever its name says")


def _why_unreadable(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "truncated: the file ends before its data do"
    if isinstance(error, (zlib.error, gzip.BadGzipFile)):
        return f"damaged compression ({error}); fetch it again"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"damaged ({' '.join(str(error).split())[:100]})"


def _canonical(stored: Stored, sha256: str) -> Volume:
    voxels, notes = _finite_native(stored.voxels, stored.negative)
    low, high = voxels.min(), voxels.max()
    if low < 0:
        voxels, padded = _without_padding(voxels, low, high)
        low, notes = voxels.min(), notes + padded
    if low == high:
        raise BadVolume("all voxels are zero" if low == 0 else f"all voxels have the same value, {low:g}")
    turn = io_orientation(stored.affine)  # as nibabel.as_closest_canonical does for images
    affine = stored.affine @ inv_ornt_aff(turn, voxels.shape)
    columns = affine[:3, :3]
    zooms = np.sqrt((columns**2).sum(axis=0))
    x, y, z = (float(zoom) for zoom in zooms)
    right, front, top = (float(origin) for origin in affine[:3, 3] @ (columns / zooms))
    return Volume(
        voxels=apply_orientation(voxels, turn),
        zooms=(x, y, z),
        origins=(right, front, top),
        sha256=sha256,
        notes=(*stored.notes, *notes),
    )


def _without_padding(
    voxels: np.ndarray, low: np.generic, high: np.generic
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Voxels with a value far below all others (-32768 outside the field of view) made background; and a note."""
    middle = (float(low) + float(high)) / 2
    outside = voxels < middle
    share = np.count_nonzero(outside) / outside.size
    if not _FEWEST_PADDING <= share < 1 or (voxels[outside] != low).any():
        return voxels, ()
    lowest = voxels[~outside].min()
    if lowest == high:  # a mask, which is reported as such
        return voxels, ()
    return np.where(outside, lowest, voxels), (
        f"{np.count_nonzero(outside)} voxels of {low:g}, far below all others, taken as background",
    )


def _scale_of(stored: Stored) -> tuple[float, float]:
    """Slope, above zero, and intercept of the voxels as :func:`_canonical` leaves them."""
    slope, intercept = stored.scale
    if not np.isfinite([slope, intercept]).all() or slope == 0:
        return 1.0, 0.0
    return abs(slope), intercept


def _finite_native(voxels: np.ndarray, negative: bool) -> tuple[np.ndarray, tuple[str, ...]]:
    """Voxels in this machine's byte order, at most 4 bytes a float, every one finite; and notes."""
    notes: tuple[str, ...] = ()
    if voxels.dtype.kind == "f" or negative:
        with np.errstate(over="ignore", invalid="ignore"):
            voxels = voxels.astype(np.float32, order="K")
        if negative:
            np.negative(voxels, out=voxels)
        bad = ~np.isfinite(voxels)
        missing = int(np.count_nonzero(bad))
        if missing == voxels.size:
            raise BadVolume("no finite voxel")
        if missing:
            voxels[bad] = voxels[~bad].min()
            notes = (f"{missing} voxels not finite, taken as background",)
    elif not voxels.dtype.isnative:
        voxels = voxels.astype(voxels.dtype.newbyteorder("="), order="K")
    return voxels, notes
