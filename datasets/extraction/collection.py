"""What a store already knows of the files found: used, moved, touched, replaced, tried in vain, gone."""

from __future__ import annotations

import importlib.metadata
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mri_transfer.datasets.store.ledger import Ledger
from mri_transfer.datasets.store.subjects import keep_people
from mri_transfer.datasets.store.summary.store_summary import ANOTHERS, SAME_SCAN
from mri_transfer.datasets.volumes.find import Inventory, Source, printable
from mri_transfer.errors import UserError


def key_of(source: Source) -> dict[str, Any]:
    """Identifies a file without reading it."""
    return {"path": printable(str(source.path)), "bytes": source.bytes, "mtime_ns": source.mtime_ns}


def reader_versions(max_mb: int, include: Sequence[str] = ()) -> str:
    """What, besides a file itself, decides whether it can be used; after a change, failed files are retried."""
    names = ("mri-transfer", "nibabel", "pydicom", "pynrrd")
    versions = []
    for name in names:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join((*versions, f"{max_mb} MB", *include))


@dataclass(frozen=True)
class Recognised:
    """A known volume: the `reason` it is not used, or "" and what to note in the store."""

    reason: str
    note: dict[str, Any] | None = None


class Collection:
    """Compares the files found with those a store knows.

    Args:
        ledger: the store's.
        inventory: the files found this time.
        readers: from :func:`reader_versions`.

    Raises:
        UserError: the store's people conflict with those found now, or it was not made from volumes.
    """

    def __init__(self, ledger: Ledger, inventory: Inventory, readers: str):
        if not all("path" in entry and "content" in entry for entry in ledger.used):
            raise UserError(f"{ledger.folder}: its slices were not cut from volumes; choose another --out")
        keep_people(ledger, inventory)
        self.ledger = ledger
        self.readers = readers
        self._sources = inventory.sources
        paths = [source.path for source in inventory.sources] + [skip.path for skip in inventory.skipped]
        self._paths = {printable(str(path)) for path in paths}
        self._by_path: dict[str, dict[str, Any]] = {}
        self._by_content: dict[str, dict[str, Any]] = {}
        self._of_subject: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self._names: dict[
            str, dict[str, str]
        ] = {}  # by path of a volume: other paths that held it, and their names
        for entry in ledger.used:
            self.add(entry)
        for entry in ledger.known.values():
            if entry["of"] in self._by_path:  # otherwise it notes a volume that is not in the store
                self._names.setdefault(entry["of"], {})[entry["path"]] = entry["source"]

    def new(self) -> list[Source]:
        """The volumes to read: unknown ones, and unusable ones that may be usable now.

        Raises:
            UserError: a volume of the store would now have another subject or sequence.
        """
        skips = {
            entry["path"]: entry for entry in self.ledger.skipped if entry.get("readers") == self.readers
        }
        todo = []
        for source in self._sources:
            key = key_of(source)
            volume, note = self._by_path.get(key["path"]), self.ledger.known.get(key["path"])
            if volume and (_matches(volume, key) or _matches(note, key)):
                self._check_identity(source, volume)
            elif not _matches(note, key) and not _matches(skips.get(key["path"]), key):
                todo.append(source)
        return todo

    def gone(self) -> list[str]:
        """Paths of skipped files that are no longer there."""
        paths = [entry["path"] for entry in self.ledger.skipped if "path" in entry]
        return [path for path in paths if not self._exists(path)]

    def _exists(self, path: str) -> bool:
        return path in self._paths or os.path.lexists(path)

    @staticmethod
    def _check_identity(source: Source, entry: dict[str, Any]) -> None:
        before = (entry["subject"], entry["session"], entry["sequence"])
        now = (source.identity.subject, source.identity.session, source.identity.sequence)
        if [unicodedata.normalize("NFC", text) for text in before] != list(
            now
        ):  # as names are compared today
            raise UserError(
                f"{source.path}: is in the store as {' '.join(filter(None, before))} and would now be "
                f"{' '.join(filter(None, now))}; use the same --table, or another --out"
            )

    def recognise(self, source: Source, sha256: str, content: str) -> Recognised | None:
        """Why a volume that was read should not be added, or None if it is new."""
        key = key_of(source)
        twin = self._by_content.get(content) or self._by_content.get(sha256)
        if twin is None:
            if key["path"] in self._by_path:
                return Recognised(
                    "changed since its slices were stored; another --out would take it as it is now"
                )
            return None
        if self._place(twin) not in (None, key["path"]) and key["path"] != twin["path"]:
            others = ANOTHERS if twin["subject"] != source.identity.subject else ""
            return Recognised(f"{SAME_SCAN}{twin['source']}{others}")
        self._names.setdefault(twin["path"], {})[key["path"]] = source.name
        return Recognised("", {"source": source.name, **key, "of": twin["path"]})

    def add(self, entry: dict[str, Any]) -> None:
        """Take note of a volume in the store, an entry of the ledger's `used`."""
        self._by_path[entry["path"]] = entry
        self._by_content[entry["sha256"]] = self._by_content[entry["content"]] = entry
        self._of_subject.setdefault((entry["subject"], entry["sequence"]), []).append(entry)

    def of_subject(self, subject: str, sequence: str) -> list[dict[str, Any]]:
        """The volumes of a subject and sequence in the store, in order."""
        return self._of_subject.get((subject, sequence), [])

    def _place(self, entry: dict[str, Any]) -> str | None:
        """A store volume's current file: the one it was read from, a later one with the same content, or none."""
        paths = (entry["path"], *reversed(self._names.get(entry["path"], {})))
        return next((path for path in paths if self._exists(path)), None)

    def moved(self) -> list[dict[str, str]]:
        """Volumes read from a different file than the one that holds them now: "from" and "to"."""
        moves = []
        for path, names in self._names.items():
            entry = self._by_path[path]
            place = self._place(entry)
            if place is not None and place != path:
                moves.append({"from": entry["source"], "to": names[place]})
        return moves

    def missing(self) -> list[str]:
        """Volumes of the store whose files are gone, though their slices remain."""
        return [entry["source"] for entry in self.ledger.used if self._place(entry) is None]


def _matches(entry: dict[str, Any] | None, key: dict[str, Any]) -> bool:
    return entry is not None and all(entry.get(name) == value for name, value in key.items())
