"""Limits on writing: free disk space, and what a compressed file can plausibly hold."""

from __future__ import annotations

import shutil
from pathlib import Path

from mri_transfer.errors import UserError
from mri_transfer.words import size_in_words

# Compression ratios can reach a thousand; scans shrink to a quarter of their size, flat label images to a hundredth.
_MOST = 100
_SMALL = 1 << 30  # bytes; anything smaller is not a bomb


def most_unpacked(archive: Path) -> int:
    """Bytes a compressed file may unpack to before it counts as a bomb."""
    return max(_SMALL, _MOST * archive.stat().st_size)


def need_space(path: Path, size: float, name: str) -> None:
    """Check that `size` more bytes fit on the disk of `path`, which need not exist yet.

    Raises:
        UserError: they don't; `name` says what needs them.
    """
    place = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    if size > free:
        raise UserError(
            f"{path}: {name} needs {size_in_words(size)} and the disk has {size_in_words(free)}; free some space "
            "or choose another --out; the same command continues"
        )
