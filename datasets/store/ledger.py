"""A slice store's journal in memory: settings, volumes in use, unused files, and counts."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mri_transfer.datasets.store.store import FORMAT
from mri_transfer.errors import UserError
from mri_transfer.storage.files import Kind, wrong_fields

OF_SLICES = ("planes", "position_mm", "position")  # lists of a journal line not held in memory

_OF_VOLUME = ("source", "subject", "session", "sequence", "sha256")
_FIELDS: dict[str, dict[str, Kind]] = {  # by kind of event
    "settings": {"size": int},
    "volume": {
        **dict.fromkeys(_OF_VOLUME, str),
        **{"planes": [str], "position_mm": [(int, float)], "position": [(int, float)]},
    },
    "skipped": {"source": str, "reason": str},
    "known": {"source": str, "path": str, "of": str},
    "gone": {"path": str},
}
_WHERE_GIVEN: dict[str, Kind] = {
    **dict.fromkeys(("path", "content", "how", "dataset"), str),
    **{"first": int, "redundant": int, "notes": [str], "evidence": dict},
}
_IN_EVIDENCE: dict[str, Kind] = {"parts": [str], "top": str}
_IN_EVIDENCE_WHERE_GIVEN: dict[str, Kind] = {
    **dict.fromkeys(("dataset", "patient", "study", "sequence", "beside"), str),
    **{"picture": bool, "is_folder": bool, "told": [[str]]},
}

_MOST_FOLDERS = 200  # in a path: others end in a RecursionError

# Values used by stores made before the setting existed.
_EARLIER_SETTINGS = {"max_correlation": 1.0}


class Ledger:
    """The sum of a journal's events.

    Its size grows with the number of volumes, about a kilobyte each, not with that of slices.

    Attributes:
        settings: those the store was created with; empty before that.
        used: one dictionary per volume in the store, in order: its journal line, with the number of its first slice
            ("first") and the run lengths of planes ("runs") in place of the lists.
        known: by path, files that hold a volume of the store but are not, or no longer, the one it was read from.
        slices: number of slices of the used volumes.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.settings: dict[str, Any] = {}
        self.used: list[dict[str, Any]] = []
        self.known: dict[str, dict[str, Any]] = {}
        self.slices = 0
        self._skips: dict[str, dict[str, Any]] = {}

    def replay(self, events: Iterable[dict[str, Any]]) -> Ledger:
        """Absorb a journal's events.

        Raises:
            UserError: this version does not know one of them.
        """
        for event in events:
            kind = event["kind"]
            self.check(event)
            if kind == "volume" and event.get("first", self.slices) != self.slices:
                raise UserError(
                    f"{self.folder}: a line is missing in the journal before that of {event['source']}; remove the "
                    "store and extract it again"
                )
            if kind != "settings" and not self.settings:
                raise UserError(
                    f"{self.folder}: the journal's first line, the settings, is missing; remove the store and "
                    "extract it again"
                )
            self.note(kind, event)
        return self

    def check(self, event: dict[str, Any]) -> None:
        """Check that an event is one that :meth:`note` understands.

        Raises:
            UserError: it is not.
        """
        if wrong := _fault_of(event):
            raise UserError(f"{self.folder}: journal not understood ({wrong}); it may be of a newer version")

    def note(self, kind: str, entry: dict[str, Any]) -> None:
        """Absorb one event."""
        entry = {key: value for key, value in entry.items() if key != "kind"}
        if kind == "settings":
            self.settings = entry
        elif kind == "volume":
            runs = [(plane, len(list(run))) for plane, run in itertools.groupby(entry["planes"])]
            facts = {key: value for key, value in entry.items() if key not in OF_SLICES}
            self.used.append({**facts, "first": self.slices, "runs": runs})
            self.slices += len(entry["planes"])
            self._skips.pop(entry.get("path", ""), None)
        elif kind == "skipped":
            key = entry.get("path") or f"{entry['source']}: {entry['reason']}"
            self._skips.pop(key, None)  # a file's latest event counts
            self._skips[key] = entry
        elif kind == "known":
            self.known[entry["path"]] = entry
            self._skips.pop(entry["path"], None)
        else:  # gone
            self._skips.pop(entry["path"], None)

    @property
    def skipped(self) -> list[dict[str, Any]]:
        """Journal entries of files that are not used, in order."""
        return list(self._skips.values())

    def skip_of(self, path: str) -> dict[str, Any] | None:
        """The journal entry of a skipped file."""
        return self._skips.get(path)

    def check_settings(self, settings: dict[str, Any]) -> None:
        """Check that a store keeps the settings it began with.

        Raises:
            UserError: something differs; the message says what.
        """
        now = {**_EARLIER_SETTINGS, "format": FORMAT, **settings}
        before = {**_EARLIER_SETTINGS, **self.settings}
        differing = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
        if differing:
            differences = ", ".join(
                f"{key} {_text(before.get(key))} and not {_text(now.get(key))}" for key in differing
            )
            options = [
                f"--{key.replace('_', '-')} {_text(before[key])}"
                for key in differing
                if key in before and key != "format"
            ]
            advice = f"use the same settings ({' '.join(options)}) or " if options else "use "
            raise UserError(f"{self.folder}: was made with {differences}; {advice}another --out")

    def counts(self) -> dict[str, Any]:
        """Slices, volumes and subjects, in total and by plane, sequence and source, and redundant slices."""
        planes: Counter[str] = Counter()
        sequences: Counter[str] = Counter()
        sources: Counter[str] = Counter()
        for entry in self.used:
            for plane, count in entry["runs"]:
                planes[plane] += count
                sequences[entry["sequence"]] += count
                sources[source_of(entry)] += count
        return {
            "slices": self.slices,
            "redundant": sum(entry.get("redundant", 0) for entry in (*self.used, *self._skips.values())),
            "volumes": len(self.used),
            "subjects": len({entry["subject"] for entry in self.used}),
            "by_plane": dict(sorted(planes.items())),
            "by_sequence": dict(sorted(sequences.items())),
            "by_source": dict(sorted(sources.items())),
            "skipped": len(self._skips),
        }

    def about(self) -> dict[str, Any]:
        """A manifest's information beyond the store's content."""
        notes = ((entry["source"], note) for entry in self.used for note in entry.get("notes", ()))
        asked_for = [entry["source"] for entry in self.used if entry.get("asked_for")]
        return {
            "counts": self.counts(),
            "people_decided_together": all("evidence" in entry for entry in self.used),
            # Their names say that they are not scans, but the user wanted them.
            **({"asked_for": asked_for} if asked_for else {}),
            "notes": [{"file": file, "note": note} for file, note in notes],
            "skipped": [{"file": entry["source"], "reason": entry["reason"]} for entry in self.skipped],
        }


def source_of(entry: dict[str, Any]) -> str:
    """The collection of a volume: the folder given on the command line."""
    return str(entry["source"]).split("/")[0]


def _fault_of(event: dict[str, Any]) -> str:
    """The fault in a journal line, in its kind or its fields; or ""."""
    kind = event["kind"]
    if not isinstance(kind, str) or kind not in _FIELDS:
        return f"kind {kind!r}"[:80]
    wrong = wrong_fields(event, _FIELDS[kind], _WHERE_GIVEN)
    if not wrong and event.get("evidence"):
        wrong = wrong_fields(event["evidence"], _IN_EVIDENCE, _IN_EVIDENCE_WHERE_GIVEN)
        wrong = wrong or _wrong_path(event["evidence"])
    if not wrong and event.get("redundant", 0) < 0:
        wrong = ["redundant"]
    if not wrong and kind == "volume" and len({len(event[key]) for key in OF_SLICES}) > 1:
        wrong = list(OF_SLICES)
    return ", ".join(wrong)


def _wrong_path(evidence: dict[str, Any]) -> list[str]:
    """Fields of a file's evidence whose lists have no length that they can have."""
    told = evidence.get("told", [])
    pairs = all(len(pair) == 2 for pair in told) and (not told or "subject" in dict(told))
    parts = 0 < len(evidence["parts"]) <= _MOST_FOLDERS
    return [*([] if parts else ["parts"]), *([] if pairs else ["told"])]


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
