"""metrics.jsonl: one line a report, for people, plots and programs. A full disk delays lines and loses none."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from mri_transfer.storage.files import atomic_write, finite, to_json, write_all


class Metrics:
    """The lines of a run so far, on disk and in memory.

    Args:
        path: of the file.
        step: lines of later steps are dropped: a power cut or a divergence undid them, and they will be written again.
    """

    def __init__(self, path: Path, step: int):
        self.path = Path(path)
        self.lines: list[dict[str, Any]] = []
        self._waiting = b""
        self.drop_after(step)

    def drop_after(self, step: int) -> None:
        """Forget lines of steps after `step`, and what a power cut tore."""
        written = (
            self.path.read_bytes().decode("utf-8", "replace").splitlines() if self.path.is_file() else []
        )
        self.lines, self._waiting, found = [], b"", len(written)
        for line in written:
            try:
                known = json.loads(line)
            except json.JSONDecodeError:
                continue  # torn by the cut
            if isinstance(known, dict) and isinstance(known.get("step"), int) and known["step"] <= step:
                self.lines.append(known)
        if len(self.lines) != found:
            self._rewrite()

    def add(self, line: dict[str, Any]) -> None:
        """Add a line of JSON values; while the disk is full it waits in memory for the next one."""
        text = to_json(finite(line), indent=None)
        self.lines.append(json.loads(text))
        self._waiting += text.encode() + b"\n"
        self._write()

    def amend(self, figures: dict[str, Any]) -> None:
        """Add figures to the last line; on a full disk only to the one in memory."""
        self.lines[-1] |= json.loads(to_json(finite(figures), indent=None))
        with contextlib.suppress(OSError):
            self._rewrite()

    def _rewrite(self) -> None:
        with atomic_write(self.path) as file:
            file.writelines(to_json(line, indent=None) + "\n" for line in self.lines)
        self._waiting = b""

    def _write(self) -> None:
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError:
            return
        try:
            size = os.fstat(descriptor).st_size
            try:
                write_all(descriptor, self._waiting)
            except OSError:
                os.ftruncate(descriptor, size)  # no torn line in the middle of the file
                return
            self._waiting = b""
        finally:
            os.close(descriptor)

    @property
    def last(self) -> dict[str, Any]:
        """The last line, or an empty one."""
        return self.lines[-1] if self.lines else {}
