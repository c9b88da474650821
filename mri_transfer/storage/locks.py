"""One process at a time in a folder; the kernel lets go of a lock however its process ends."""

from __future__ import annotations

import contextlib
import os
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
        who = f" ({owner})" if owner else ""
        raise UserError(
            f"{folder}: another process{who} is writing to it; wait for it to end or choose another --out"
        ) from None


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
        UserError: another process holds it.
    """
    with (Path(folder) / LOCK).open("a+b", buffering=0) as file:
        file.seek(0)
        lock(file, folder, file.read(32).decode(errors="replace").strip())
        file.truncate(0)
        with contextlib.suppress(OSError):  # a full disk: the lock holds without a name on it
            file.write(f"pid {os.getpid()}\n".encode())
        yield
