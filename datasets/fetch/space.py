"""Whether there is room, asked before anything is written."""

from __future__ import annotations

import shutil
from pathlib import Path

from mri_transfer.errors import UserError


def readable(size: float) -> str:
    """A number of bytes as people say it: 4.8 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def need_space(path: Path, size: float, what: str) -> None:
    """See that `size` more bytes fit on the disk that `path` is or will be on.

    Raises:
        UserError: they don't; `what` says what needs them.
    """
    place = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    if size > free:
        raise UserError(
            f"{path}: {what} needs {readable(size)} and the disk has {readable(free)}; free some or choose another "
            "--out; the same command continues"
        )
