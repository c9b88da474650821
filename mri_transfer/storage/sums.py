"""SHA256SUMS: what every file of a finished folder holds, as `sha256sum -c SHA256SUMS` reads it too.

A command that goes on in a finished folder renames the list to SHA256SUMS.before until it is done. In the new list a
file that the command hasn't touched keeps the sum it had, without being read: what was damaged isn't signed anew.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from mri_transfer.storage.files import atomic_write, folder_kind, read_whole, sha256
from mri_transfer.storage.locks import LOCK

SUMS = "SHA256SUMS"
BEFORE = "SHA256SUMS.before"
# Not of what a folder holds: who writes to it, and what was seen whole.
LEFT_OUT = (SUMS, BEFORE, LOCK, "verified.json")
_LINE = re.compile(rb"([0-9a-f]{64})  ([^\n\\]+)\n")


def files_in(folder: Path) -> dict[str, Path]:
    """The files that a list names, by their path in the folder."""
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(Path(folder).rglob("*"))}
    return {
        name: path
        for name, path in paths.items()
        if path.is_file() and not path.is_symlink() and name not in LEFT_OUT and not name.endswith(".part")
    }


def read_sums(path: Path) -> dict[str, str]:
    """SHA-256 by path in the folder.

    Raises:
        ValueError: a line is none of such a list.
        OSError: it can't be read.
    """
    sums = {}
    for number, line in enumerate(read_whole(path).splitlines(keepends=True), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"line {number}")
        sums[match[2].decode("utf-8", "surrogateescape")] = match[1].decode()
    return sums


def _stamps(folder: Path) -> dict[str, tuple[int, ...]]:
    stats = {name: path.stat() for name, path in files_in(folder).items()}
    return {name: (at.st_size, at.st_mtime_ns, at.st_ctime_ns, at.st_ino) for name, at in stats.items()}


def write_sums(
    folder: Path,
    known: Mapping[str, str] = MappingProxyType({}),
    before: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
) -> None:
    """List what a folder holds.

    Args:
        folder: one of ours.
        known: sums that need not be computed again.
        before: size, times and inode of files at the time when the former list was still valid.
    """
    folder = Path(folder)
    former: dict[str, str] = {}
    for name in (SUMS, BEFORE):
        with contextlib.suppress(OSError, ValueError):
            former |= read_sums(folder / name)
    now, digests = _stamps(folder), dict(known)
    digests |= {name: former[name] for name in former if name in before and before[name] == now.get(name)}
    with atomic_write(folder / SUMS) as file:
        for name, path in files_in(folder).items():
            if "\\" not in name and "\n" not in name:
                file.write(f"{digests.get(name) or sha256(path)}  {name}\n")
    (folder / BEFORE).unlink(missing_ok=True)


@contextlib.contextmanager
def signed(folder: Path, kind: str) -> Iterator[dict[str, str]]:
    """List what a folder of ours holds, once a command that may go on in a finished one is done without an error.

    Yields:
        Sums that are known by then, for the command to fill in.
    """
    folder = Path(folder)
    before: dict[str, tuple[int, ...]] = {}
    if (folder / SUMS).is_file() and folder_kind(folder) == kind:
        before = _stamps(folder)
        (folder / SUMS).replace(folder / BEFORE)
    digests: dict[str, str] = {}
    try:
        yield digests
    except BaseException:
        if (folder / BEFORE).is_file() and _stamps(
            folder
        ) == before:  # it refused to go on, and changed nothing
            (folder / BEFORE).replace(folder / SUMS)
        raise
    write_sums(folder, digests, before)
