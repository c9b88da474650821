"""One process at a time in a folder; the kernel releases a lock however its process ends."""

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
# Locked on Windows: one byte past the end of any of these files, as other processes can't read locked bytes.
BYTE = 2**31 - 2


def lock(file: IO[bytes], folder: Path, owner: str = "") -> None:
    """Keep other processes out of `folder` for as long as `file`, inside it, is open.

    Raises:
        UserError: another process holds it; the message names `owner` if known.
    """
    try:
        _take(file)
    except OSError:
        holder = f" ({owner})" if owner else ""
        raise UserError(
            f"{folder}: another process{holder} is writing to it; wait for it to finish or choose another --out"
        ) from None


def moved(folder: Path) -> UserError:
    """Ends a command whose folder is gone: continuing would create a second, incomplete one in its place."""
    return UserError(
        f"{folder}: was moved or removed while this was writing to it; bring it back, or give its new place as --out, "
        "and run the same command again to continue"
    )


def require_here(folder: Path) -> None:
    """Stop if a folder this process writes to is gone.

    Raises:
        UserError: it is.
    """
    if not Path(folder).is_dir():
        raise moved(folder)


def is_at(file: IO[bytes], path: Path) -> bool:
    """Whether an open file is still the one at its path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), Path(path).stat())
    except OSError:
        return False


def clear_parts(folder: Path, name: str | None = None) -> None:
    """Remove temporary files left by killed atomic writes, of one file in a folder or of all below it.

    No other process may be writing there.
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
    """Lock `folder` with a file in it that tells other processes who holds it.

    Raises:
        UserError: another process holds it, or an error occurred and the folder is gone.
    """
    path = Path(folder) / LOCK
    with path.open("a+b", buffering=0) as file:
        file.seek(0)
        lock(file, folder, file.read(32).decode(errors="replace").strip())
        file.truncate(0)
        with contextlib.suppress(OSError):  # a full disk: the lock works without the owner's name
            file.write(f"pid {os.getpid()}\n".encode())
        clear_parts(folder)
        try:
            yield
        except Exception:
            if is_at(file, path):
                raise
            raise moved(folder) from None
