"""The journal of an extraction: one JSON line per event, appended and fsynced, so a crash costs the last second."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mri_transfer.errors import UserError
from mri_transfer.progress import say
from mri_transfer.storage.json_lines import Line, LineFile, line_of, text_in


class DamagedJournal(UserError):
    """A damaged line counts, or may count, slices that precede those of a later line."""


class Journal:
    """An append-only file of JSON objects that one process at a time may write.

    Raises:
        UserError: another process is writing to it.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._file = LineFile(self.path)
        self._pending: list[bytes] = []

    def replay(self) -> Iterator[dict[str, Any]]:
        """Every event written, in order; a torn last line from a crash is cut off.

        So is everything from a damaged line on, if it includes no volume: its notes will be made again.

        Raises:
            DamagedJournal: a volume follows a damaged line.
            UserError: the first line, the settings, is damaged.
        """
        end = 0
        for line, event in events(self._file.read(), self.path):
            end = line.end
            yield event
        if end < self.path.stat().st_size:
            os.truncate(self.path, end)

    def log(self, kind: str, event: dict[str, Any]) -> None:
        """Record an event, to be written by the next :meth:`commit`."""
        self._pending.append(line_of({"kind": kind, **event}))

    def commit(self) -> None:
        """Make recorded events survive a power cut."""
        # Cleared before writing: after a keyboard interrupt, the next commit must not write it again.
        pending, self._pending = self._pending, []
        if pending:
            self._file.add(pending)

    def close(self) -> None:
        """Let other processes write; uncommitted events are lost."""
        self._file.close()


def events(lines: Iterable[Line], path: Path) -> Iterator[tuple[Line, dict[str, Any]]]:
    """The events of a journal's lines, up to a damaged one not followed by a volume.

    Raises:
        DamagedJournal: a volume follows a damaged line.
        UserError: the first line, the settings, is damaged.
    """
    damaged: list[Line] = []
    for line in lines:
        if line.value is None or "kind" not in line.value:
            if line.number == 1:
                raise UserError(f"{path}: damaged; choose another --out, or remove the store")
            damaged.append(line)
        elif not damaged:
            yield line, line.value
        elif line.value["kind"] == "volume":
            raise DamagedJournal(
                f"{path}: {described(damaged[0])} is damaged; run `mri-transfer slices` again with the PATH of that "
                "volume, or remove the store"
            )
    for line in damaged:
        say(f"{path}: {described(line)} is damaged, and is worked out again")


def described(line: Line) -> str:
    """A damaged line, by its number and the file it seems to name."""
    name = text_in(line.content, "source") or text_in(line.content, "path")
    return f"line {line.number}" + (f", of {name}," if name else "")
