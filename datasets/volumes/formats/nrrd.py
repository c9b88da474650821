"""`.nrrd`, and `.nhdr` headers with their data beside them, using pynrrd's header parser (extra `[nrrd]`).

Field definitions: "Definition of NRRD File Format", teem.sourceforge.net/nrrd/format.html.
"""

from __future__ import annotations

import bz2
import gzip
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer.datasets.volumes.formats.compressed import stream_bytes
from mri_transfer.datasets.volumes.formats.stored import (
    HEADER_BYTES,
    BadVolume,
    Described,
    Stored,
    beside,
    check_affine,
    check_voxel_type,
    promised_bytes,
    spatial_shape,
)

_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": (
        "longlong",
        "long long",
        "long long int",
        "signed long long",
        "signed long long int",
        "int64",
        "int64_t",
    ),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_TO_RAS = {
    **dict.fromkeys(("right-anterior-superior", "ras"), (1, 1, 1)),
    **dict.fromkeys(("left-anterior-superior", "las"), (-1, 1, 1)),
    **dict.fromkeys(("left-posterior-superior", "lps"), (-1, -1, 1)),
}
_COLOURS = {"rgb-color", "rgba-color", "hsv-color", "xyz-color", "3-color", "4-color"}


def data_file(header: Path) -> Path | None:
    """The file that holds the voxels of a detached header, or None if the header's own file does.

    Raises:
        BadVolume: its name leads out of the header's folder, or it doesn't exist.
        OSError: the header can't be read.
    """
    with header.open("rb") as file:
        lines = _header_lines(file.read(HEADER_BYTES))[0]
    match = re.search(rb"^data ?file:(.*)$", lines, re.MULTILINE | re.IGNORECASE)
    if match is None:
        return None
    return beside(header, match[1].strip().decode("utf-8", "surrogateescape"), ".nrrd")


def _header_lines(blob: bytes) -> tuple[bytes, int]:
    """The header's lines, and the data offset after the empty line that ends it."""
    start = 0
    while (end := blob.find(b"\n", start, HEADER_BYTES)) >= 0:
        if not blob[start:end].strip():
            return blob[:start], end + 1
        start = end + 1
    return blob[:HEADER_BYTES], len(blob)


def describe(start: bytes, files: Sequence[Path], max_bytes: int) -> Described:
    """What the header at the start of a file says; `max_bytes` bounds the voxels it may promise."""
    return _describe(*_parse(start), max_bytes)


def read(blobs: Sequence[bytes], files: Sequence[Path], max_bytes: int) -> Stored:
    """Read one volume, from one file or from a header and its data file; `max_bytes` bounds its voxels."""
    header, start = _parse(blobs[0])
    description = _describe(header, start, max_bytes)
    count = promised_bytes(description.shape, description.dtype, max_bytes)
    voxels = _voxels(header, blobs[-1], start if len(blobs) == 1 else 0, description.dtype, count)
    return Stored(voxels.reshape(description.shape, order="F"), description.affine, notes=description.notes)


def _parse(blob: bytes) -> tuple[dict[str, Any], int]:
    """Fields of the header, spelled without blanks, and the data offset."""
    import nrrd

    lines, start = _header_lines(blob)
    return {key.replace(" ", ""): value for key, value in nrrd.read_header(io.BytesIO(lines)).items()}, start


def _describe(header: dict[str, Any], start: int, max_bytes: int) -> Described:
    missing = [field for field in ("type", "dimension", "sizes", "encoding") if field not in header]
    if missing:
        raise BadVolume(f"header lacks {', '.join(missing)}")
    sizes = [int(length) for length in header["sizes"]]
    if len(sizes) != header["dimension"]:
        raise BadVolume(f"header gives {len(sizes)} sizes for {header['dimension']} dimensions")
    if _COLOURS & {str(kind).lower() for kind in header.get("kinds", ())}:
        raise BadVolume("colour voxels, not intensities")
    affine, axes, notes = _geometry(header, sizes)
    shape = spatial_shape([sizes[axis] for axis in axes])
    dtype = _dtype(header)
    check_affine(affine)
    promised_bytes(shape, dtype, max_bytes)
    return Described(shape, dtype, affine, start, notes=notes)


def _dtype(header: dict[str, Any]) -> np.dtype:
    name = " ".join(str(header["type"]).lower().split())
    code = next((code for code, names in _TYPES.items() if name in names), None)
    if code is None:
        raise BadVolume(f"{name[:40]} voxels, not real intensities")
    dtype = np.dtype(code)
    if dtype.itemsize > 1 and not _is_text(header):
        endian = str(header.get("endian", "")).lower()
        if endian not in ("little", "big"):
            raise BadVolume("header does not say the byte order of its voxels")
        dtype = dtype.newbyteorder("<" if endian == "little" else ">")
    check_voxel_type(dtype)
    return dtype


def _is_text(header: dict[str, Any]) -> bool:
    return str(header["encoding"]).lower() in ("ascii", "text", "txt")


def _geometry(header: dict[str, Any], sizes: list[int]) -> tuple[np.ndarray, list[int], tuple[str, ...]]:
    """Affine to RAS mm, the spatial axes, and assumptions made."""
    space = str(header.get("space", "")).lower().removesuffix("-time").removesuffix("t")
    notes: tuple[str, ...] = ()
    if space not in _TO_RAS:
        notes = ("orientation not stated; taken as left-posterior-superior",)  # as ITK reads such files
    affine = np.eye(4)
    if "spacedirections" in header:
        directions = np.asarray(header["spacedirections"], dtype=np.float64)
        if directions.ndim != 2 or directions.shape[1] != 3 or len(directions) != len(sizes):
            raise BadVolume("space directions are not one 3-D vector for each axis")
        # An axis without direction lists several values per voxel, or time points.
        axes = [axis for axis in range(len(sizes)) if not np.isnan(directions[axis]).all()]
        affine[:3, : len(axes)] = directions[axes].T[:, :3] if len(axes) <= 3 else np.nan
        origin = np.asarray(header.get("spaceorigin", (0, 0, 0)), dtype=np.float64)
        if origin.shape != (3,):
            raise BadVolume("space origin is not three numbers")
        affine[:3, 3] = np.nan_to_num(origin)
    else:
        axes = list(range(len(sizes)))
        spacings = np.asarray(header.get("spacings", [np.nan] * len(sizes)), dtype=np.float64)
        if len(spacings) != len(sizes):
            raise BadVolume("spacings are not one number for each axis")
        if np.isnan(spacings[:3]).any():
            notes += ("voxel size not stated; taken as 1 mm",)
        if len(sizes) >= 3:
            affine[:3, :3] = np.diag(np.nan_to_num(spacings[:3], nan=1.0))
    others = [sizes[axis] for axis in range(len(sizes)) if axis not in axes]
    if any(length != 1 for length in others):
        axes = list(range(len(sizes)))  # several values per voxel: reported as a series
    flips = np.diag([*_TO_RAS.get(space, _TO_RAS["lps"]), 1]).astype(np.float64)
    return flips @ affine, axes, notes


def _voxels(header: dict[str, Any], raw: bytes, start: int, dtype: np.dtype, count: int) -> np.ndarray:
    """The voxels as one row, decoded from `start` into at most `count` bytes."""
    skip_lines, skip = int(header.get("lineskip", 0)), int(header.get("byteskip", 0))
    encoding = str(header["encoding"]).lower()
    if skip_lines < 0 or skip < -1 or (skip == -1 and encoding != "raw"):
        raise BadVolume("header skips a negative number of lines or bytes")
    for _ in range(skip_lines):
        start = raw.find(b"\n", start) + 1
        if not start:
            raise EOFError
    if encoding == "raw":
        start = len(raw) - count if skip == -1 else start + skip
        if start < 0 or len(raw) < start + count:
            raise EOFError
        return np.frombuffer(raw, dtype, count // dtype.itemsize, start)
    if encoding in ("gzip", "gz"):
        with gzip.GzipFile(fileobj=io.BytesIO(raw[start:])) as gzipped:
            return np.frombuffer(stream_bytes(gzipped, skip, count), dtype)
    if encoding in ("bzip2", "bz2"):
        with bz2.BZ2File(io.BytesIO(raw[start:])) as bzipped:
            return np.frombuffer(stream_bytes(bzipped, skip, count), dtype)
    if _is_text(header):
        words = raw[start + skip :].split(None, count // dtype.itemsize)[: count // dtype.itemsize]
        if len(words) < count // dtype.itemsize:
            raise EOFError
        return np.array([float(word) for word in words]).astype(dtype)
    raise BadVolume(f"{encoding[:40]} encoding; write it as raw or gzip")
