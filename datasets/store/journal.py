"""The journal of an extraction: one JSON line an event, appended and fsynced, so that a crash costs the last second."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mri_transfer.errors import UserError
from mri_transfer.storage.files import lock, names_errors, to_json


class Journal:
    """An append-only file of JSON objects that one process at a time may write.

    Raises:
        UserError: another process is writing to it.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._file = self.path.open("a+b")
        self._pending = b""
        try:
            lock(self._file, self.path.parent)
        except BaseException:
            self._file.close()
            raise

    def replay(self) -> Iterator[dict[str, Any]]:
        """Every event that was written, in order; a torn last line, of a crash, is cut off.

        Raises:
            UserError: a line in the middle is damaged.
        """
        end = 0
        self._file.seek(0)
        for after, event in read_events(self._file, self.path):
            end = after
            yield event
        if end < self.path.stat().st_size:
            os.ftruncate(self._file.fileno(), end)

    def log(self, kind: str, event: dict[str, Any]) -> None:
        """Note an event, to be written with the next :meth:`commit`."""
        self._pending += to_json({"kind": kind, **event}, indent=None).encode() + b"\n"

    def commit(self) -> None:
        """Make what was noted survive a power cut."""
        # Taken away before it is written: interrupted from the keyboard, the next commit must not write it again.
        pending, self._pending = self._pending, b""
        if pending:
            with names_errors(self.path):
                self._file.write(pending)
                self._file.flush()
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let other processes write; what was not committed is lost."""
        self._file.close()


def read_events(file: IO[bytes], path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The events of a journal that is open at its start, each with where its line ends; a torn last line is no event.

    Raises:
        UserError: a line in the middle is damaged.
    """
    end = 0
    for line in file:
        if not line.endswith(b"\n"):
            break
        end += len(line)
        try:
            event = json.loads(line)
            if not isinstance(event, dict) or "kind" not in event:
                raise ValueError
        except ValueError:
            raise UserError(f"{path}: damaged; choose another --out, or remove the store") from None
        yield end, event
