"""MetaImage: `.mha`, and `.mhd` headers with their data beside them, as ITK, elastix and 3D Slicer write them.

Field definitions: ITK's MetaIO documentation ("MetaIO/Documentation", itk.org/Wiki/MetaIO). The header is short and
plain, so it is parsed here; SimpleITK would add 50 MB and decompress whatever a file claims.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mri_transfer.datasets.volumes.formats.compressed import GZIP, inflate, voxel_bytes
from mri_transfer.datasets.volumes.formats.stored import (
    HEADER_BYTES,
    BadVolume,
    Described,
    Stored,
    beside,
    check_affine,
    promised_bytes,
    spatial_shape,
)

_TYPES = {
    **{"MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4"},
    **{"MET_UINT": "u4", "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8"},
    **{"MET_FLOAT": "f4", "MET_DOUBLE": "f8"},
}
_LINE = re.compile(rb"\s*(\w+)\s*=[ \t]*([^\r\n]*)\r?\n")
_HERE = "LOCAL"
_MOST_AXES = 8


def is_metaimage(head: bytes) -> bool:
    """Whether a file begins like a MetaImage header, with a field that only they have."""
    match = _LINE.match(head)
    return match is not None and match[1] in (b"ObjectType", b"NDims", b"Comment") and b"NDims" in head[:4096]


def data_file(header: Path) -> Path | None:
    """The file that holds the voxels of a `.mhd`, or None if the header's own file does.

    Raises:
        BadVolume: there are several, or it is missing or in another folder.
        OSError: the header can't be read.
    """
    with header.open("rb") as file:
        name = _parse(file.read(HEADER_BYTES))[0].get("ElementDataFile", _HERE)
    if name.upper() == _HERE:
        return None
    return beside(header, name, ".mha")


def describe(start: bytes, files: Sequence[Path], max_bytes: int) -> Described:
    """What the header at the start of a file says; `max_bytes` bounds the voxels it may promise."""
    return _describe(*_parse(start), max_bytes)


def read(blobs: Sequence[bytes], files: Sequence[Path], max_bytes: int) -> Stored:
    """Read one volume, from one file or from a header and its data file; `max_bytes` bounds its voxels."""
    fields, end = _parse(blobs[0])
    description = _describe(fields, end, max_bytes)
    count = promised_bytes(description.shape, description.dtype, max_bytes)
    raw, start = (blobs[0], end) if len(blobs) == 1 else (blobs[-1], 0)
    notes = description.notes
    if _flag(fields, "CompressedData"):
        packed = raw[start:]
        if packed[:2] == GZIP:
            content, more = voxel_bytes(packed, 0, count)
            notes += more
        else:
            content = memoryview(inflate(packed, count))
            if len(content) < count:
                raise EOFError
    else:
        skip = int(fields.get("HeaderSize", 0)) if len(blobs) > 1 else 0
        start = len(raw) - count if skip == -1 else start + skip
        if skip < -1 or start < 0 or len(raw) < start + count:
            raise EOFError
        content = memoryview(raw)[start : start + count]
    voxels = np.frombuffer(content, description.dtype).reshape(description.shape, order="F")
    return Stored(voxels, description.affine, notes=notes)


def _parse(blob: bytes) -> tuple[dict[str, str], int]:
    """Fields of the header, and the data offset after its last line, which names the data file."""
    fields: dict[str, str] = {}
    at = 0
    while match := _LINE.match(blob, at, HEADER_BYTES):
        fields[match[1].decode("latin1")] = match[2].decode("utf-8", "surrogateescape").strip()
        at = match.end()
        if match[1] == b"ElementDataFile":
            return fields, at
    raise BadVolume("header does not name its data (ElementDataFile)")


def _flag(fields: dict[str, str], *names: str) -> bool:
    return any(fields.get(name, "").lower() in ("true", "1", "yes") for name in names)


def _numbers(fields: dict[str, str], names: Sequence[str], count: int) -> np.ndarray | None:
    """The values of the first of several fields that is present."""
    text = next((fields[name] for name in names if name in fields), None)
    if text is None:
        return None
    values = np.array([float(word) for word in text.split()])
    if len(values) != count:
        raise BadVolume(f"header gives {len(values)} numbers for {names[0]}, not {count}")
    return values


def _describe(fields: dict[str, str], end: int, max_bytes: int) -> Described:
    missing = [name for name in ("NDims", "DimSize", "ElementType") if name not in fields]
    if missing:
        raise BadVolume(f"header lacks {', '.join(missing)}")
    axes = int(fields["NDims"])
    if not 2 <= axes <= _MOST_AXES:
        raise BadVolume(f"{axes}-D, not a 3-D volume")
    if int(fields.get("ElementNumberOfChannels", 1)) != 1:
        raise BadVolume("several values a voxel, such as colours, not intensities")
    if not _flag({"BinaryData": "True", **fields}, "BinaryData"):
        raise BadVolume("voxels as text; write it as binary data")
    kind = fields["ElementType"].upper()
    if kind not in _TYPES:
        raise BadVolume(f"{kind[:40]} voxels, not real intensities")
    big = _flag(fields, "BinaryDataByteOrderMSB", "ElementByteOrderMSB")
    dtype = np.dtype((">" if big else "<") + _TYPES[kind])
    numbers = _numbers(fields, ("DimSize",), axes)
    assert numbers is not None
    shape = spatial_shape([int(number) for number in numbers] + [1] * (axes == 2))
    notes: tuple[str, ...] = ()
    spacing = _numbers(fields, ("ElementSpacing", "ElementSize"), axes)
    if spacing is None:
        spacing, notes = np.ones(axes), ("voxel size not stated; taken as 1 mm",)
    directions = _numbers(fields, ("TransformMatrix", "Rotation", "Orientation"), axes * axes)
    origin = _numbers(fields, ("Offset", "Position", "Origin"), axes)
    affine = np.eye(4)
    count = min(axes, 3)
    matrix = (
        np.eye(axes) if directions is None else directions.reshape(axes, axes).T
    )  # one row per voxel axis
    affine[:count, :count] = (matrix * np.abs(spacing))[:count, :count]
    affine[:count, 3] = 0.0 if origin is None else origin[:count]
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # world coordinates are LPS, as in ITK
    check_affine(affine)
    promised_bytes(shape, dtype, max_bytes)
    return Described(shape, dtype, affine, end, notes=notes)
