"""Counts how often the same images were scored in one output folder: looking often enough finds something.

`looks.jsonl` only grows. Reporting the same trials again is not another look.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mri_transfer.storage.files import names_errors
from mri_transfer.storage.json_lines import LineFile, line_of, read_lines

RECORD = "looks.jsonl"


class Looks:
    """The looks at one set of images in one output folder.

    Args:
        folder: the comparison's.
        images: paths of scored images.
        trials: names of this look's trials.
    """

    def __init__(self, folder: Path, images: Iterable[str], trials: Iterable[str]):
        self.path = Path(folder) / RECORD
        self.images, self.trials = _key(images), _key(trials)
        self._noted, self.before = self._read()

    def _read(self) -> tuple[bool, int]:
        """Whether this look is noted, and the number of looks by other trials; a damaged line counts as one."""
        if not self.path.exists():
            return False, 0
        others: set[str] = set()
        with names_errors(self.path), self.path.open("rb") as file:
            for line in read_lines(file):
                if line.value is None:
                    others.add(f"damaged line {line.number}")
                elif line.value.get("images") == self.images:
                    others.add(str(line.value.get("trials")))
        return self.trials in others, len(others - {self.trials})

    def add(self, about: dict[str, Any], arms: Sequence[str]) -> None:
        """Note this look, unless it is noted already.

        Args:
            about: further facts.
            arms: names of the starts.
        """
        if self._noted:
            return
        entry = {
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            **{"images": self.images, "trials": self.trials, "arms": list(arms)},
            **about,
        }
        with LineFile(self.path) as file:
            list(file.read())  # cuts off a line torn by a power cut
            file.add([line_of(entry)])
        self._noted = True


def _key(parts: Iterable[str]) -> str:
    """Short order-independent SHA-256 of texts."""
    return hashlib.sha256("\0".join(sorted(parts)).encode("utf-8", "surrogateescape")).hexdigest()[:16]
