"""One process at a time in a folder; the kernel lets go of a lock however its process ends."""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from mri_transfer.errors import UserError

LOCK = "lock"
# What is locked on Windows: one byte beyond what any of these files holds, as others can't read what is locked.
BYTE = 2**31 - 2


def lock(file: IO[bytes], folder: Path, owner: str = "") -> None:
    """Keep other processes out of `folder` for as long as `file`, which lies in it, is open.

    Raises:
        UserError: another process has it; the line names `owner` if that is known.
    """
    try:
        _take(file)
    except OSError:
        holder = f" ({owner})" if owner else ""
        raise UserError(
            f"{folder}: another process{holder} is writing to it; wait for it to end or choose another --out"
        ) from None


def moved(folder: Path) -> UserError:
    """What ends a command whose folder is gone: going on would begin a second, incomplete one in its place."""
    return UserError(
        f"{folder}: was moved or removed while this was writing to it; bring it back, or give its new place as --out, "
        "and run the same command again, it continues"
    )


def require_here(folder: Path) -> None:
    """End, if a folder that this process writes to is gone.

    Raises:
        UserError: it is.
    """
    if not Path(folder).is_dir():
        raise moved(folder)


def is_at(file: IO[bytes], path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), Path(path).stat())
    except OSError:
        return False


def clear_parts(folder: Path, name: str | None = None) -> None:
    """Remove the temporary files of atomic writes that were killed, of one file in a folder or of all below it.

    Nobody else may be writing there.
    """
    folder = Path(folder)
    parts = folder.rglob("*.part") if name is None else folder.glob(f"{glob.escape(name)}.*.part")
    for path in parts:
        if re.search(r"\.[0-9a-f]{8}\.part$", path.name) and path.is_file():
            path.unlink(missing_ok=True)


def _take(file: IO[bytes]) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        at = file.tell()
        file.seek(BYTE)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        finally:
            file.seek(at)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold `folder` by a file in it that tells other processes who does.

    Raises:
        UserError: another process holds it; or something failed, and the folder is gone.
    """
    path = Path(folder) / LOCK
    with path.open("a+b", buffering=0) as file:
        file.seek(0)
        lock(file, folder, file.read(32).decode(errors="replace").strip())
        file.truncate(0)
        with contextlib.suppress(OSError):  # a full disk: the lock holds without a name on it
            file.write(f"pid {os.getpid()}\n".encode())
        clear_parts(folder)
        try:
            yield
        except Exception:
            if is_at(file, path):
                raise
            raise moved(folder) from None
