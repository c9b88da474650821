"""The licences found beside volumes, so that a store shows how it may be used."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from mri_transfer.datasets.fetch.openneuro import licence_of

_NAMES = re.compile(r"(un)?licen[cs]e|copying|terms|data[-_ ]?use|dua\b", re.IGNORECASE)
_TEXT = {"", ".txt", ".md", ".rst"}
_DESCRIPTION = "dataset_description.json"
_LONGEST = 2000  # characters of a licence to keep
_OF_FETCH = "TERMS-*.txt"


def find_licences(paths: Iterable[Path]) -> list[dict[str, str]]:
    """Licence files directly in the given folders and in the BIDS dataset around them, and those left by `fetch`.

    Other parent folders are ignored: a folder of volumes may be in a project with its own licence.

    Returns:
        "file" and the beginning of its "text", without duplicates.
    """
    files: list[Path] = []
    for path in paths:
        top = path.resolve() if path.is_dir() else path.resolve().parent
        below = [child for child in _children(top) if child.is_dir() and not child.name.startswith(".")]
        dataset = [folder for folder in top.parents if (folder / _DESCRIPTION).is_file()][:1]
        for folder in (top, *below, *dataset):
            files += _children(folder)
        files += sorted(top.parent.glob(_OF_FETCH))
    texts = ((file, _text(file)) for file in dict.fromkeys(files))
    return [{"file": f"{file.parent.name}/{file.name}", "text": text} for file, text in texts if text]


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:  # not a licence we may read
        return []


def _text(file: Path) -> str | None:
    if file.name == _DESCRIPTION:
        return licence_of(file)
    if file.suffix.lower() not in _TEXT or not _NAMES.match(file.name) or not file.is_file():
        return None
    try:
        with file.open(encoding="utf-8", errors="replace") as opened:
            text = opened.read(_LONGEST + 1)
    except OSError:
        return None
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " …"
