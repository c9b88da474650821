"""Reading the small files in which the kernel and its drivers tell of the machine."""

from __future__ import annotations

from pathlib import Path


def read_text(path: Path) -> str:
    """What a file of the kernel says, without zero bytes and blanks around it; "" if it can't be read now.

    Files vanish with their drivers, and parts that are switched off answer EAGAIN: none of that is an error.
    """
    try:
        return path.read_bytes().decode("utf-8", "replace").strip("\0 \t\r\n")
    except OSError:
        return ""
