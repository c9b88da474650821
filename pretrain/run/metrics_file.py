"""metrics.jsonl: one line per report, for people, plots and programs. A full disk delays lines but loses none."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from mri_transfer.progress import say
from mri_transfer.storage.files import Kind, atomic_write, finite, parse_json, to_json, wrong_fields
from mri_transfer.storage.json_lines import append, line_of, read_lines, value_of

_NUMBER: Kind = (int, float, type(None))
_WHERE_GIVEN: dict[str, Kind] = {  # what a run's end needs
    **dict.fromkeys(("loss", "views_per_second", "power_w", "throttle_events"), _NUMBER),
    "temperatures_c": dict[str, int | float],
}


class Metrics:
    """The lines of a run so far, on disk and in memory.

    Args:
        path: of the file.
        step: lines of later steps are dropped: undone by a power cut or divergence, they will be written again.
    """

    def __init__(self, path: Path, step: int):
        self.path = Path(path)
        self.lines: list[dict[str, Any]] = []
        self._waiting = b""
        self.drop_after(step)

    def drop_after(self, step: int) -> None:
        """Drop lines after `step`, torn ones, and damaged ones, which are reported."""
        self.lines, self._waiting = [], b""
        if self.path.is_file():
            with self.path.open("rb") as file:
                lines = list(read_lines(file))
            for line in lines:
                if line.value is None:
                    say(f"{self.path}: line {line.number} is damaged and left out")
                elif wrong := wrong_fields(line.value, {"step": int}, _WHERE_GIVEN):
                    say(f"{self.path}: line {line.number} is damaged ({', '.join(wrong)}) and left out")
                elif line.value["step"] <= step:
                    self.lines.append(line.value)
            end = lines[-1].end if lines else 0
            if end < self.path.stat().st_size or len(self.lines) != len(lines):
                self._rewrite()

    def add(self, line: dict[str, Any]) -> None:
        """Add a line of JSON values; while the disk is full, it waits in memory for the next one."""
        text = line_of(finite(line))
        self.lines.append(value_of(text))
        self._waiting += text
        self._write()

    def amend(self, figures: dict[str, Any]) -> None:
        """Add figures to the last line; if the disk is full, only in memory."""
        self.lines[-1] |= parse_json(to_json(finite(figures)))
        with contextlib.suppress(OSError):
            self._rewrite()

    def _rewrite(self) -> None:
        with atomic_write(self.path, "wb") as file:
            file.writelines(map(line_of, self.lines))
        self._waiting = b""

    def _write(self) -> None:
        with contextlib.suppress(OSError), self.path.open("ab", buffering=0) as file:
            append(file.fileno(), self._waiting, sync=False)
            self._waiting = b""

    @property
    def last(self) -> dict[str, Any]:
        """The last line, or an empty one."""
        return self.lines[-1] if self.lines else {}
