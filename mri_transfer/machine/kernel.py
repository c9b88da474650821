"""Reading the small files through which the kernel and its drivers describe the machine."""

from __future__ import annotations

from pathlib import Path


def read_text(path: Path) -> str:
    """Content of a kernel file, stripped of zero bytes and whitespace; "" if it can't be read now.

    Files vanish with their drivers, and parts that are switched off return EAGAIN; neither is an error.
    """
    try:
        return path.read_bytes().decode("utf-8", "replace").strip("\0 \t\r\n")
    except OSError:
        return ""
