"""SHA256SUMS: the checksums of a finished folder's files, for `sha256sum -c SHA256SUMS` too.

A command that continues in a finished folder renames the list to SHA256SUMS.before until it is done. In the new list, a
file the command hasn't touched keeps its old sum without being read, so damage is never signed.
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
# Not part of a folder's content: who writes to it, and what was last verified.
LEFT_OUT = (SUMS, BEFORE, LOCK, "verified.json")
_LINE = re.compile(rb"([0-9a-f]{64})  ([^\n\\]+)\n")


def files_in(folder: Path) -> dict[str, Path]:
    """The files a list covers, by their path in the folder."""
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(Path(folder).rglob("*"))}
    return {
        name: path
        for name, path in paths.items()
        if path.is_file() and not path.is_symlink() and name not in LEFT_OUT and not name.endswith(".part")
    }


def read_sums(path: Path) -> dict[str, str]:
    """SHA-256 by path in the folder.

    Raises:
        ValueError: a line is malformed.
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
    """Write the list of a folder's files.

    Args:
        folder: one of this program's.
        known: sums that needn't be recomputed.
        before: size, times and inode of files when the former list was still valid.
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
    """Write the list of a folder's files once a command, which may continue a finished one, succeeds.

    Yields:
        Known sums, for the command to fill in.
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
        if (folder / BEFORE).is_file() and _stamps(folder) == before:  # it refused and changed nothing
            (folder / BEFORE).replace(folder / SUMS)
        raise
    write_sums(folder, digests, before)
