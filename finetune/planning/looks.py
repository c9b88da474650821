"""How often the same images were scored in one output folder: whoever looks often finds something in the end.

`looks.jsonl` only grows. A report of the very same trials is no further look, so reports may be made anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mri_transfer.storage.files import names_errors, to_json, write_all

RECORD = "looks.jsonl"


class Looks:
    """The looks at one set of images in one output folder.

    Args:
        folder: of the comparison.
        images: paths of the scored images.
        trials: names of the trials of this look.
    """

    def __init__(self, folder: Path, images: Iterable[str], trials: Iterable[str]):
        self.path = Path(folder) / RECORD
        self.images, self.trials = _key(images), _key(trials)
        self._noted, self.before = self._read()

    def _read(self) -> tuple[bool, int]:
        """Whether this look is noted, and how many there were by other trials; a damaged line counts as one."""
        if not self.path.exists():
            return False, 0
        others: set[str] = set()
        with names_errors(self.path):
            lines = self.path.read_bytes().split(b"\n")[
                :-1
            ]  # behind the last line feed is nothing, or a torn line
        for number, line in enumerate(lines):
            try:
                look = json.loads(line)
                if look["images"] == self.images:
                    others.add(str(look["trials"]))
            except (ValueError, KeyError, TypeError):
                others.add(f"damaged line {number}")
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
        with names_errors(self.path), self.path.open("a+b", buffering=0) as file:
            file.seek(0)
            content = file.read()
            os.ftruncate(
                file.fileno(), content.rfind(b"\n") + 1
            )  # a line that was being written when the power went
            write_all(file.fileno(), to_json(entry, indent=None).encode() + b"\n")
            os.fsync(file.fileno())
        self._noted = True


def _key(parts: Iterable[str]) -> str:
    """Short SHA-256 of texts, whatever their order."""
    return hashlib.sha256("\0".join(sorted(parts)).encode("utf-8", "surrogateescape")).hexdigest()[:16]
