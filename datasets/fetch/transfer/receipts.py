"""A crash-safe record of received files, and the lock that keeps other processes out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from mri_transfer.datasets.fetch.transfer.part import clear_cards
from mri_transfer.errors import UserError
from mri_transfer.storage.files import Kind, fsync_folder, wrong_fields
from mri_transfer.storage.json_lines import LineFile, line_of
from mri_transfer.storage.locks import clear_parts, require_here

RECEIPT = "receipt.jsonl"
_WHERE_GIVEN: dict[str, Kind] = {
    **{"bytes": int, "sha256": str, "etag": (str, type(None)), "kept": bool, "selection": str},
    **{"files": dict[str, list], "skipped": [{"member": str, "reason": str}]},  # of an archive
}


class Receipts:
    """One line of JSON per received file, in order of receipt; a file's last line counts.

    Only a finished file has a line. A line half-written at a power cut is dropped at the next start. While the receipt
    is open, no other process can write to the folder.
    """

    def __init__(self, folder: Path):
        """Open or create the folder's receipt.

        Raises:
            UserError: another process writes to the folder, or the receipt is damaged.
        """
        self.path = folder / RECEIPT
        self._guard = threading.Lock()
        self._file = LineFile(self.path)
        try:
            self._entries = self._read()
            clear_parts(folder)
            clear_cards(folder)
        except BaseException:
            self._file.close()
            raise
        fsync_folder(folder)

    def _read(self) -> dict[str, dict[str, Any]]:
        receipts = {}
        for line in self._file.read():
            if line.value is None or not _is_entry(line.value):
                raise UserError(
                    f"{self.path}: damaged (line {line.number}); remove it, and the same command checks what is there"
                )
            receipts[line.value["file"]] = line.value
        return receipts

    def get(self, name: str) -> dict[str, Any] | None:
        """The entry of a received file.

        Raises:
            UserError: the folder was moved or removed.
        """
        require_here(self.path.parent)
        return self._entries.get(name)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(list(self._entries.values()))

    def add(self, entry: dict[str, Any]) -> None:
        """Record a file whose content is safely on disk; `entry["file"]` names it."""
        with self._guard:
            self._file.add([line_of(entry)])
            self._entries[entry["file"]] = entry

    def __enter__(self) -> Receipts:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()


def _is_entry(value: dict[str, Any]) -> bool:
    if wrong_fields(value, {"file": str}, _WHERE_GIVEN):
        return False
    return all(list(map(type, file)) == [int, str] for file in value.get("files", {}).values())
