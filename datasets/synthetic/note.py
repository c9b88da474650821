"""A note beside generated data that distinguishes them from real data."""

from __future__ import annotations

from pathlib import Path

BANNER = "generated heads, no evidence"
NOTE = (
    f"{BANNER.capitalize()}: drawn from ellipsoids and noise by mri-transfer, so that the program can be tried\n"
    "without data. They show nobody, and results on them say nothing about real MRI.\n"
)
FILE = "README"


def banner_of(folder: Path) -> str:
    """The banner for anything made from a folder of images or volumes: empty unless they are generated."""
    try:
        with (Path(folder) / FILE).open(encoding="utf-8") as file:
            return BANNER if file.read(len(NOTE)) == NOTE else ""
    except (OSError, UnicodeDecodeError):
        return ""
