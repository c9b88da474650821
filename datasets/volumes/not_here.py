"""Files that stand for a volume that is not here yet: pointers of git-annex and Git LFS, and archives to unpack."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

_POINTER_BYTES = 1024  # the longest pointer file; git-annex and Git LFS both write less
_LFS = b"version https://git-lfs.github.com/spec/"
_ANNEX_FILE = re.compile(rb"^(?:[^\n]*/)?annex/objects/[^\n]+\n?")
_ANNEX_LINK = re.compile(r"(?:^|/)annex/objects/")
# How a compressed or packed file is made into what it holds, by the end of its name.
_UNPACK = {
    ".tar.gz": "tar -xzf {}",
    ".tgz": "tar -xzf {}",
    ".tar.bz2": "tar -xjf {}",
    ".tar.xz": "tar -xJf {}",
    ".tar": "tar -xf {}",
    ".zip": "unzip {}",
    ".bz2": "bunzip2 {}",
    ".xz": "unxz {}",
    ".zst": "unzstd {}",
    ".7z": "7z x {}",
    ".rar": "unrar x {}",
}
_ALONE = (".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar", ".7z", ".rar")  # may hold whole folders


def absent(path: Path) -> str | None:
    """Why a file's content is not here, with the command that gets it, or None if it seems to be.

    Args:
        path: of a file, or of a link to one that may be missing.
    """
    name = shlex.quote(path.name)
    if path.is_symlink() and _ANNEX_LINK.search(os.fspath(path.readlink()).replace("\\", "/")):
        if path.exists():
            return None
        return f"only git-annex's link, its content is not here; get it with: git annex get {name} (or datalad get)"
    try:
        if not path.is_file() or path.stat().st_size > _POINTER_BYTES:  # a pipe would wait for its other end
            return None
        with path.open("rb") as file:
            start = file.read(_POINTER_BYTES)
    except OSError:
        return None  # said by whoever opens it next
    if start.startswith(_LFS):
        return f'only a pointer of Git LFS; get its content with: git lfs pull --include "{path.name}"'
    if _ANNEX_FILE.match(start):
        return f"only a pointer of git-annex; get its content with: git annex get {name} (or datalad get)"
    return None


def packed(path: Path, suffixes: tuple[str, ...]) -> str | None:
    """How to unpack a file that is compressed in a way that no reader takes, or an archive; None for all others.

    Args:
        path: of the file.
        suffixes: of the files that are looked for. A file that is compressed by itself is told only if it is one.
    """
    name = path.name.lower()
    for ending, command in _UNPACK.items():
        if not name.endswith(ending):
            continue
        inside = name.removesuffix(ending)
        if ending in _ALONE or inside.endswith((*suffixes, ".dcm", ".ima")):
            form = "an archive" if ending in _ALONE else f"compressed as {ending}"
            return (
                f"{form}, which is not looked into; unpack it first: {command.format(shlex.quote(path.name))}"
            )
    return None
