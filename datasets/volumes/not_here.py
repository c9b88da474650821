"""Placeholders for volumes not here yet: pointers of git-annex and Git LFS, and archives to unpack."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

_POINTER_BYTES = 1024  # the longest pointer file; git-annex and Git LFS both write less
_LFS = b"version https://git-lfs.github.com/spec/"
_ANNEX_FILE = re.compile(rb"^(?:[^\n]*/)?annex/objects/[^\n]+\n?")
_ANNEX_LINK = re.compile(r"(?:^|/)annex/objects/")
# How to unpack a compressed or archived file, by suffix.
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
    """Why a file's content is missing, with the command that gets it, or None if it seems to be here.

    Args:
        path: a file, or a link whose target may be missing.
    """
    name = shlex.quote(path.name)
    if path.is_symlink() and _ANNEX_LINK.search(os.fspath(path.readlink()).replace("\\", "/")):
        if path.exists():
            return None
        return f"only git-annex's link, its content is not here; get it with: git annex get {name} (or datalad get)"
    try:
        if not path.is_file() or path.stat().st_size > _POINTER_BYTES:  # a pipe would block
            return None
        with path.open("rb") as file:
            start = file.read(_POINTER_BYTES)
    except OSError:
        return None  # reported when it is next opened
    if start.startswith(_LFS):
        return f'only a pointer of Git LFS; get its content with: git lfs pull --include "{path.name}"'
    if _ANNEX_FILE.match(start):
        return f"only a pointer of git-annex; get its content with: git annex get {name} (or datalad get)"
    return None


def packed(path: Path, suffixes: tuple[str, ...]) -> str | None:
    """How to unpack an archive, or a file compressed in a way no reader supports; None for others.

    Args:
        path: the file.
        suffixes: those searched for. A single compressed file is reported only if it has one.
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
