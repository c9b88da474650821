"""The journal of an extraction: one JSON line an event, appended and fsynced, so that a crash costs the last second."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mri_transfer.errors import UserError
from mri_transfer.progress import say
from mri_transfer.storage.json_lines import Line, LineFile, line_of, text_in


class DamagedJournal(UserError):
    """A line is damaged that counts, or may count, slices which stand before those of a later line."""


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
        """Every event that was written, in order; a torn last line, of a crash, is cut off.

        So is what begins with a damaged line, if none of it is a volume: what it noted is found anew.

        Raises:
            DamagedJournal: a volume stands behind a damaged line.
            UserError: the first line, the settings, is damaged.
        """
        end = 0
        for line, event in events(self._file.read(), self.path):
            end = line.end
            yield event
        if end < self.path.stat().st_size:
            os.truncate(self.path, end)

    def log(self, kind: str, event: dict[str, Any]) -> None:
        """Note an event, to be written with the next :meth:`commit`."""
        self._pending.append(line_of({"kind": kind, **event}))

    def commit(self) -> None:
        """Make what was noted survive a power cut."""
        # Taken away before it is written: interrupted from the keyboard, the next commit must not write it again.
        pending, self._pending = self._pending, []
        if pending:
            self._file.add(pending)

    def close(self) -> None:
        """Let other processes write; what was not committed is lost."""
        self._file.close()


def events(lines: Iterable[Line], path: Path) -> Iterator[tuple[Line, dict[str, Any]]]:
    """The events of a journal's lines, up to a damaged one behind which no volume stands.

    Raises:
        DamagedJournal: a volume stands behind a damaged line.
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
        say(f"{path}: {described(line)} is damaged, and is found anew")


def described(line: Line) -> str:
    """A damaged line, by its number and the file that it seems to name."""
    name = text_in(line.content, "source") or text_in(line.content, "path")
    return f"line {line.number}" + (f", of {name}," if name else "")
