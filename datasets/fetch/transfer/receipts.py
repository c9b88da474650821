"""What has been received, in a file that survives being cut off, and the lock that keeps two processes apart."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from mri_transfer.errors import UserError
from mri_transfer.storage.files import fsync_folder, lock, names_errors, write_all

RECEIPT = "receipt.jsonl"


class Receipts:
    """One line of JSON a received file, in the order of receipt; of several lines of a file the last counts.

    Only a finished file has a line. A line that was half written when the power went is dropped at the next
    start. While it is open no other process can write to the folder.
    """

    def __init__(self, folder: Path):
        """Open or begin the folder's receipt.

        Raises:
            UserError: another process writes to the folder, or the receipt is damaged.
        """
        self.path = folder / RECEIPT
        self._guard = threading.Lock()
        with names_errors(self.path):
            self._file = self.path.open("a+b", buffering=0)
        try:
            lock(self._file, folder)
            self._entries = self._read()
            _sweep(folder)
        except BaseException:
            self._file.close()
            raise
        fsync_folder(folder)

    def _read(self) -> dict[str, dict[str, Any]]:
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        try:
            entries = [json.loads(line) for line in whole.splitlines()]
            found = {entry["file"]: entry for entry in entries}
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f"{self.path}: damaged; remove it, and the same command checks what is there"
            ) from None
        if len(whole) < len(content):
            os.ftruncate(self._file.fileno(), len(whole))
        return found

    def get(self, name: str) -> dict[str, Any] | None:
        """The entry of a received file."""
        return self._entries.get(name)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(list(self._entries.values()))

    def add(self, entry: dict[str, Any]) -> None:
        """Note a file whose content is safe on disk; `entry["file"]` names it."""
        # Unlike UTF-8, escapes can hold the bytes of a file name that are no text.
        line = json.dumps(entry, ensure_ascii=True).encode() + b"\n"
        with self._guard, names_errors(self.path):
            end = self._file.seek(0, os.SEEK_END)
            try:
                write_all(self._file.fileno(), line)
                os.fsync(self._file.fileno())
            except OSError:
                os.ftruncate(self._file.fileno(), end)
                raise
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


def _sweep(folder: Path) -> None:
    """Remove the temporary files of atomic writes that were killed; nobody else can be writing here."""
    for path in folder.rglob("*.part"):
        if re.search(r"\.[0-9a-f]{8}\.part$", path.name) and path.is_file():
            path.unlink()
