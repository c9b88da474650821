"""The contents of an archive: safe names, and members one by one, as readable files."""

from __future__ import annotations

import contextlib
import errno
import gzip
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

# tarfile reads a long name or a pax header at once, whatever length it claims.
_LONGEST_READ = 16 << 20  # bytes
_BLOCK = 1 << 20  # bytes
_LONGEST_NAME = 255  # bytes, of most file systems
_LONGEST_PATH = 1024  # bytes

# What a crafted or damaged archive makes its readers raise. OSErrors count only if no disk raises them.
_READ_ERRORS = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, struct.error),
    *(ValueError, OverflowError, IndexError, KeyError, RuntimeError),
)
_NOT_OF_A_DISK = (None, errno.EINVAL)  # bz2 and gzip; a seek to before the start


class DamagedArchive(Exception):
    """The archive as a whole is unreadable or truncated."""


@contextlib.contextmanager
def reading(damage: Callable[[str], Exception]) -> Iterator[None]:
    """Turn whatever reading damaged data raises into `damage(reason)`; disk errors pass through."""
    try:
        yield
    except (*_READ_ERRORS, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NOT_OF_A_DISK:
            raise
        raise damage(" ".join(str(error).split())[:120] or type(error).__name__) from None


class UnsafeName(Exception):
    """A member name that would not be a file below the folder."""


@dataclass(frozen=True)
class Member:
    """One file of an archive.

    Attributes:
        name: as in the archive.
        path: the same, verified safe, or None.
        size: in bytes, as stated by the archive.
        reason: why it can't be unpacked, or "".
        open: opens its content; may be called again.
    """

    name: str
    path: PurePosixPath | None
    size: int
    reason: str
    open: Callable[[], IO[bytes]]


def safe_path(name: str) -> PurePosixPath:
    """A member's name as a path below the destination folder.

    Backslashes count as separators, as in archives made on Windows.

    Raises:
        UnsafeName: it is absolute, has a drive, goes up, holds control characters, is too long or empty.
    """
    text = name.replace("\\", "/")
    if text.startswith("/"):
        raise UnsafeName("an absolute name")
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
        raise UnsafeName("a name with control characters")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UnsafeName("a name that leads out of the folder")
    if not parts:
        raise UnsafeName("an empty name")
    if re.match(r"[A-Za-z]:", parts[0]):
        raise UnsafeName("a name with a drive letter")
    try:
        sizes = [len(part.encode("utf-8", "surrogateescape")) for part in parts]
    except UnicodeEncodeError:
        raise UnsafeName("a name that is not text") from None
    if max(sizes) > _LONGEST_NAME or sum(sizes) + len(sizes) > _LONGEST_PATH:
        raise UnsafeName("a name that is too long")
    return PurePosixPath(*parts)


def members_of(archive: Path) -> Iterator[Member]:
    """The files of a tar, tar.gz or zip, recognised by its first bytes, in order; folders are skipped.

    Raises:
        DamagedArchive: it is none of these, or its structure is damaged or truncated.
        OSError: it can't be read.
    """
    with archive.open("rb") as file:
        start = file.read(512)
    if start[:2] == b"\x1f\x8b":
        yield from _tar(archive, gzip.open)
    elif start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        yield from _zip(archive)
    elif start[257:262] == b"ustar" or _old_tar(start):
        yield from _tar(archive, open)
    else:
        raise DamagedArchive("is not a tar, tar.gz or zip archive")


def _old_tar(start: bytes) -> bool:
    """Pre-POSIX tar has no magic; its header checksum identifies it."""
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True


class _Bounded:
    """A file that refuses enormous reads."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LONGEST_READ:
            raise DamagedArchive(f"has a header that claims {size} bytes")
        return self._file.read(size)


def _tar(archive: Path, open_file: Callable[..., Any]) -> Iterator[Member]:
    damage = partial(_damaged, "is damaged")
    with open_file(archive, "rb") as file, reading(damage):
        bounded = _Bounded(file)
        tar = tarfile.TarFile(fileobj=bounded, mode="r", errors="surrogateescape", encoding="utf-8")  # type: ignore[arg-type]
        while (info := tar.next()) is not None:
            if info.size < 0:
                raise DamagedArchive(f"has a member of negative size ({info.name})")
            if not info.isdir():
                yield _tar_member(tar, info)
        # tarfile mistakes a damaged header for the end; the true end is a block of zeros.
        bounded.seek(tar.offset)
        if bounded.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise DamagedArchive("ends too early or has a damaged header")
        while file.read(_BLOCK):  # a gzip file's checksum is at its end
            pass


def _damaged(subject: str, reason: str) -> DamagedArchive:
    return DamagedArchive(f"{subject} ({reason})")


def _tar_member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    kinds = {
        tarfile.SYMTYPE: "a link; links are not followed",
        tarfile.LNKTYPE: "a hard link; links are not followed",
        tarfile.CHRTYPE: "a device",
        tarfile.BLKTYPE: "a device",
        tarfile.FIFOTYPE: "a named pipe",
    }
    reason = kinds.get(info.type, "")
    if not reason and (not info.isreg() or info.issparse()):
        reason = "a special file"

    def open_member() -> IO[bytes]:
        content = tar.extractfile(info)
        assert content is not None  # it is a regular file
        return content

    return _member(info.name, info.size, reason, open_member)


def _zip(archive: Path) -> Iterator[Member]:
    with reading(partial(_damaged, "is damaged or ends too early")):
        file = zipfile.ZipFile(archive)
    with file:
        for info in file.infolist():
            if info.filename.endswith("/"):
                continue
            mode = info.external_attr >> 16
            reason = ""
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                reason = "a link; links are not followed" if stat.S_ISLNK(mode) else "a special file"
            elif info.flag_bits & 1:
                reason = "encrypted; unpack it yourself with its password"

            def open_member(info: zipfile.ZipInfo = info) -> IO[bytes]:
                return file.open(info)

            yield _member(info.orig_filename, info.file_size, reason, open_member)


def _member(name: str, size: int, reason: str, open_member: Callable[[], IO[bytes]]) -> Member:
    path = None
    try:
        path = safe_path(name)
    except UnsafeName as unsafe:
        reason = reason or str(unsafe)
    return Member(name, path, size, reason, open_member)
