"""Unpack member by member: each under a temporary name, then renamed; nothing outside the folder."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from mri_transfer.datasets.fetch.archive_layout import Place
from mri_transfer.datasets.fetch.transfer.members import DamagedArchive, Member, members_of, reading
from mri_transfer.datasets.fetch.transfer.space import most_unpacked, need_space
from mri_transfer.datasets.fetch.transfer.threads import Stopped
from mri_transfer.datasets.volumes.find import printable
from mri_transfer.storage.files import BINARY, fsync_folder, names_errors, write_all

_BLOCK = 1 << 20  # bytes


@dataclass
class Unpacked:
    """The result of unpacking an archive.

    Attributes:
        files: paths below the folder, with size in bytes and SHA-256.
        skipped: wanted members that failed: name, reason, and whether it is damage.
        left_out: number of unwanted members.
    """

    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    skipped: list[dict[str, str | bool]] = field(default_factory=list)
    left_out: int = 0

    @property
    def damaged(self) -> bool:
        """Whether another copy of the archive might be better."""
        return any(skip["damaged"] for skip in self.skipped)


class _BadMember(Exception):
    """A member that can't be unpacked."""

    def __init__(self, reason: str, damaged: bool = False):
        super().__init__(reason)
        self.damaged = damaged


def unpack(
    archive: Path,
    folder: Path,
    place: Place,
    stop: threading.Event | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Unpacked:
    """Unpack the wanted members of an archive into the folder.

    An existing file is compared and kept if identical, so unpacking again resumes an interrupted run. A member with an
    unsafe name, a link, a special file, an encrypted or damaged one is listed instead of unpacked; so is one whose name
    differs from an earlier one's only in case, as it would overwrite it on many disks.

    Args:
        archive: tar, tar.gz or zip.
        folder: an existing folder; nothing is written outside of it.
        place: returns a member's destination, or None if unwanted.
        stop: when set, ends the work between two blocks.
        tick: called after each member.

    Raises:
        DamagedArchive: as a whole. Members before the damage may have been unpacked.
        UserError: the disk lacks the room the archive says it needs.
        OSError: it can't be written.
        Stopped: `stop` was set.
    """
    result, used_keys = Unpacked(), set[str]()
    folders: set[Path] = set()
    root = folder.resolve()
    scratch = folder / f".{archive.name[:40]}.member.part"
    left = most_unpacked(archive)
    try:
        for member in members_of(archive):
            if stop is not None and stop.is_set():
                raise Stopped
            path = place(member.path) if member.path else None
            if path is None and member.path:
                result.left_out += 1
                continue
            reason, damaged = member.reason, False
            if path is not None and not reason:
                key = unicodedata.normalize("NFC", path.as_posix()).casefold()
                try:
                    if key in used_keys:
                        twice = path.as_posix() in result.files
                        raise _BadMember(
                            "its name comes twice"
                            if twice
                            else "its name differs from another's only in case"
                        )
                    _make_folders(root, path, folders)
                    need = member.size if not (root / path).is_file() else 0
                    need_space(root, need, f"{archive.name}: {printable(member.name)}")
                    left -= member.size
                    if left < 0:
                        raise DamagedArchive("unpacks to an absurd multiple of its size")
                    result.files[path.as_posix()] = _bring(member, root / path, scratch, stop)
                    used_keys.add(key)
                except _BadMember as bad:
                    reason, damaged = str(bad), bad.damaged
                except NotADirectoryError:
                    reason = "needs a folder where there is a file"
                except OSError as error:
                    if error.errno not in (errno.ENAMETOOLONG, errno.EILSEQ):
                        raise
                    reason = (os.strerror(error.errno)).lower()
            if reason:
                result.skipped.append(
                    {"member": printable(member.name), "reason": reason, "damaged": damaged}
                )
            tick()
    finally:
        scratch.unlink(missing_ok=True)
    for made_folder in sorted(folders):
        fsync_folder(made_folder)
    return result


def _make_folders(root: Path, path: PurePosixPath, folders: set[Path]) -> None:
    """Create the parent folders of `path`; a link among them would lead elsewhere."""
    parent = root / path.parent
    if parent in folders:
        return
    folder = root
    for part in path.parent.parts:
        folder = folder / part
        if folder.is_symlink():
            raise _BadMember("its folder is a link")
        try:
            folder.mkdir(exist_ok=True)
        except FileExistsError:
            raise NotADirectoryError(folder) from None
        folders.add(folder)
    folders |= {root, parent}


def _bring(member: Member, target: Path, scratch: Path, stop: threading.Event | None) -> tuple[int, str]:
    """Write the member's content to `target`; returns its size and SHA-256."""
    if target.is_dir():
        raise _BadMember("a folder has its name")
    if target.is_file() and not target.is_symlink() and target.stat().st_size == member.size:
        target_digest, digest = hashlib.sha256(), hashlib.sha256()
        with _open(member) as stream, target.open("rb") as file:
            for block in _blocks(stream, member.size, stop):
                digest.update(block)
                target_digest.update(file.read(len(block)))
        if target_digest.digest() == digest.digest():
            return member.size, digest.hexdigest()
    digest = hashlib.sha256()
    with _open(member) as stream, names_errors(scratch):
        through_no_link = getattr(os, "O_NOFOLLOW", 0)  # not on Windows
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | BINARY | through_no_link
        descriptor = os.open(scratch, flags, 0o666)
        try:
            for block in _blocks(stream, member.size, stop):
                digest.update(block)
                write_all(descriptor, block)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    scratch.replace(target)
    return member.size, digest.hexdigest()


def _open(member: Member) -> IO[bytes]:
    with reading(_damaged):
        return member.open()


def _damaged(reason: str) -> _BadMember:
    return _BadMember(f"damaged ({reason})", True)


def _blocks(stream: IO[bytes], size: int, stop: threading.Event | None) -> Iterator[bytes]:
    """The member's bytes, exactly as many as promised, read to the end to verify its checksum."""
    left = size
    while True:
        if stop is not None and stop.is_set():
            raise Stopped
        with reading(_damaged):
            block = stream.read(min(_BLOCK, left) if left else 1)
        if not block:
            break
        left -= len(block)
        if left < 0:
            raise _BadMember("holds more than it says", True)
        yield block
    if left:
        raise _BadMember(f"ends {left} bytes too early", True)
