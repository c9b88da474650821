"""Licence terms: shown before anything is downloaded, and kept beside the data."""

from __future__ import annotations

from pathlib import Path

from mri_transfer.datasets.fetch.sources import Source
from mri_transfer.progress import say
from mri_transfer.storage.files import atomic_write


def terms_text(source: Source, title: str, base: str, stated: str | None = None) -> str:
    """The terms of a source.

    Args:
        title: the data's.
        base: the download address.
        stated: terms stated by the data set itself.
    """
    lines = [
        title,
        f"Licence: {source.licence}",
        f"Terms: {source.terms}",
        f"Cite: {source.cite}",
        f"Read: {source.home}",
        f"From: {base}",
    ]
    if stated:
        lines.insert(1, stated)
    return "\n".join(lines)


def keep_terms(folder: Path, name: str, text: str) -> Path:
    """Show the terms and write them into the folder.

    Returns:
        The file, `TERMS-<name>.txt`.
    """
    say(text + "\n")
    path = folder / f"TERMS-{name}.txt"
    with atomic_write(path) as file:
        file.write(text + "\n")
    return path
