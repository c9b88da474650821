"""Named arrays in one file: an uncompressed `.npz` that numpy opens, and its SHA-256."""

from __future__ import annotations

import errno
import hashlib
import io
import math
import os
import sys
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np

from mri_transfer.errors import UserError
from mri_transfer.storage.files import atomic_write, sha256

STORED_KINDS = "biufc"  # booleans and numbers: what .npy holds exactly, without pickling
Shape: TypeAlias = tuple[int | str, ...]
"""A string stands for a length that is the same wherever it occurs."""
SHOWN = 3  # list this many differences and only count the rest


class _Hashing:
    """A file that computes the SHA-256 of what is written. It can't seek, so every byte passes once."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.file.write(data)
        return len(data)

    def flush(self) -> None:
        self.file.flush()


def _check(arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        if not name or "\0" in name or "\\" in name or not name.isprintable():
            raise ValueError(f"{name!r} can't be the name of a stored array")
        if array.dtype.kind not in STORED_KINDS:
            raise ValueError(
                f"{name}: numbers of type {array.dtype} can't be stored; convert to float32 first"
            )


def _pack(file: IO[bytes], arrays: Mapping[str, np.ndarray]) -> None:
    # Entries carry zip's earliest date, so the same arrays give the same bytes.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> str:
    """Write arrays to `path`, atomically, and read them back. The same arrays always give the same bytes.

    Args:
        path: the file; its folder must exist.
        arrays: numbers or booleans of any shape; names may contain "/".

    Returns:
        SHA-256 of the file, hexadecimal.

    Raises:
        ValueError: a name a zip can't hold, or an array of objects, text or bfloat16.
        OSError: the disk is full, leaving `path` untouched, or it returns different bytes from those written.
    """
    _check(arrays)
    with atomic_write(path, "wb") as file:
        hashing = _Hashing(file)
        _pack(hashing, arrays)  # type: ignore[arg-type]
    digest = hashing.digest.hexdigest()
    if _read_back(path) != digest:
        raise OSError(errno.EIO, "what was written can't be read back", str(path))
    return digest


def _read_back(path: Path) -> str:
    """SHA-256 of a file as read from the disk, if the system allows dropping its cached copy."""
    if hasattr(os, "posix_fadvise"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    return sha256(path)


def read_arrays(path: Path, sha256: str, remedy: str = "") -> dict[str, np.ndarray]:
    """Read arrays from :func:`write_arrays` after verifying the file's content.

    Args:
        path: the file.
        sha256: the digest it must have.
        remedy: what the user can do if it differs; ends the error message. If empty, the caller adds it.

    Raises:
        UserError: the file is missing, unreadable or changed.
    """
    end = f"; {remedy}" if remedy else ""
    try:
        content = Path(path).read_bytes()
    except (FileNotFoundError, ValueError):  # no name that a file can have
        raise UserError(f"{path}: is missing{end}") from None
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}){end}") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(f"{path}: is damaged (its SHA-256 is not the recorded one){end}")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            arrays = _unpacked(archive, len(content))
        _check(arrays)
        return arrays
    except Exception as error:  # zipfile, struct and numpy raise different exceptions
        raise UserError(f"{path}: holds no arrays ({' '.join(str(error).split())[:120]}){end}") from None


def _unpacked(archive: zipfile.ZipFile, size: int) -> dict[str, np.ndarray]:
    """Every array of an `.npz`, after checking that what its headers promise is in the file and at most `size` bytes.

    Raises:
        ValueError: they promise more.
        Exception: whatever zipfile, zlib, struct and numpy raise for damaged files.
    """
    entries = archive.infolist()
    if sum(entry.file_size for entry in entries) > size:
        raise ValueError("it is compressed too much, or promises more than it holds")
    arrays = {}
    for entry in entries:
        with archive.open(entry) as member:
            old = np.lib.format.read_magic(member) == (1, 0)
            read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(member)
            if dtype.hasobject:
                raise ValueError("it holds pickled objects")
            if math.prod(shape) * dtype.itemsize != entry.file_size - member.tell():
                raise ValueError("an array's header promises another size than the array has")
            member.seek(0)
            array = np.lib.format.read_array(member, allow_pickle=False)
            if not _text_is_whole(array):
                raise ValueError("it holds text with numbers of no character")
            arrays[entry.filename.removesuffix(".npy")] = array
    return arrays


def _text_is_whole(array: np.ndarray) -> bool:
    """Whether text has characters alone: numpy looks at it last, and then raises errors of no known kind."""
    if array.dtype.kind != "U" or not array.nbytes:
        return True
    codes = np.frombuffer(array.tobytes(), np.dtype("u4").newbyteorder(array.dtype.byteorder))
    return int(codes.max()) <= sys.maxunicode


def save_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Cache reproducible arrays, including text, as numpy's own `.npz`: atomically, creating its folder."""
    path.parent.mkdir(exist_ok=True)
    with atomic_write(path, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def load_npz(path: Path, ratio: int = 1) -> dict[str, np.ndarray]:
    """Every array of an `.npz`.

    Args:
        path: the file.
        ratio: most times larger than the file its arrays may be; more than 1 for files that may be compressed.

    Raises:
        ValueError: it is missing, unreadable, holds pickled objects, or would take more memory than that.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _unpacked(archive, ratio * Path(path).stat().st_size)
    except Exception as error:  # zipfile, zlib, struct and numpy raise different exceptions
        raise ValueError(" ".join(str(error).split())[:120] or type(error).__name__) from None


def check_shapes(arrays: Mapping[str, np.ndarray], expected: Mapping[str, tuple[str, Shape]]) -> None:
    """Check that arrays are what their reader expects.

    Args:
        arrays: by name.
        expected: for each, the accepted kinds of number, as in `dtype.kind`, and its shape.

    Raises:
        ValueError: one is missing or differs.
    """
    lengths: dict[int | str, int] = {}
    for name, (kinds, shape) in expected.items():
        array = arrays.get(name)
        if array is None or array.dtype.kind not in kinds or array.ndim != len(shape):
            raise ValueError(f"{name} is missing or of the wrong kind")
        for length, actual in zip(shape, array.shape, strict=True):
            if actual != (length if isinstance(length, int) else lengths.setdefault(length, actual)):
                raise ValueError(f"{name} has the wrong length")


def not_finite(arrays: Mapping[str, np.ndarray]) -> str:
    """The name of the first array with a number that is complex or not finite; "" if there is none."""
    of_others = (
        name for name, array in arrays.items() if array.dtype.kind == "c" or not np.isfinite(array).all()
    )
    return next(of_others, "")


def _first_names(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def differences(expected: Mapping[str, tuple[int, ...]], arrays: Mapping[str, np.ndarray]) -> str:
    """Why `arrays` can't fill variables of the shapes `expected`, in words; empty if they can."""
    missing = [name for name in expected if name not in arrays]
    unexpected = [name for name in arrays if name not in expected]
    shapes = [
        f"{name} {arrays[name].shape} instead of {tuple(shape)}"
        for name, shape in expected.items()
        if name in arrays and arrays[name].shape != tuple(shape)
    ]
    parts = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    return "; ".join(
        f"{len(names)} {problem}: {_first_names(names)}" for problem, names in parts.items() if names
    )
