"""Repair a store whose journal has a damaged line: reread its volume and rewrite the line.

The volume's slices are in the shards, between those of its neighbours. A file replaces the damaged line only if it
yields exactly these slices again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer.datasets.store.journal import DamagedJournal, described
from mri_transfer.datasets.store.ledger import Ledger
from mri_transfer.datasets.store.pixels import CHECKSUM, checksum_of
from mri_transfer.datasets.store.store import JOURNAL
from mri_transfer.datasets.store.writer import read_slices
from mri_transfer.datasets.volumes.find import Source, printable
from mri_transfer.progress import say
from mri_transfer.storage.files import atomic_write
from mri_transfer.storage.json_lines import Line, LineFile, line_of, read_lines, text_in

Read = Callable[[Source, Ledger], tuple[dict[str, Any], np.ndarray] | None]


def ledger_of_whole_lines(folder: Path) -> Ledger:
    """A journal's content without its damaged lines; slice positions may be wrong."""
    ledger = Ledger(folder)
    with (folder / JOURNAL).open("rb") as file:
        for line in read_lines(file):
            if line.value is not None and "kind" in line.value:
                ledger.check(line.value)
                ledger.note(line.value["kind"], line.value)
    return ledger


def mend(folder: Path, sources: Sequence[Source], read: Read) -> None:
    """Rewrite a journal with volumes' lines in place of damaged ones.

    Args:
        folder: the store's; no process may be writing to it.
        sources: where to look for the lost volumes.
        read: returns a volume's journal entry and slices, as they follow the ledger's content, or None.

    Raises:
        DamagedJournal: no source yields the slices that a damaged line counted.
        UserError: another line is of no kind that this version knows.
    """
    path = folder / JOURNAL
    with LineFile(path) as file:
        ledger, lost = Ledger(folder), list[Line]()
        contents: list[bytes] = []  # in place of each line
        for line in file.read():
            if line.value is None or "kind" not in line.value:
                lost.append(line)
                contents.append(b"")
                continue
            ledger.check(line.value)
            if lost and line.value["kind"] == "volume":
                for damaged in _volumes_before(line.value, lost, ledger):
                    contents[damaged.number - 1] += line_of(_read_again(path, damaged, ledger, sources, read))
                    say(
                        f"{path}: {described(damaged)} was damaged; {ledger.used[-1]['source']} was read again"
                    )
                lost = []
            ledger.note(line.value["kind"], line.value)
            contents.append(line.content)
        with atomic_write(path, "wb") as new:
            new.writelines(contents)


def _volumes_before(event: dict[str, Any], lost: Sequence[Line], ledger: Ledger) -> Iterator[Line]:
    """For each volume that must have preceded the one of `event`, a damaged line that may be its."""
    if "first" not in event:  # an earlier version's line
        yield from (line for line in lost if b'"planes"' in line.content or b'"volume"' in line.content)
        return
    for line in itertools.chain(lost, itertools.repeat(lost[-1])):
        if ledger.slices >= event["first"]:
            return
        yield line


def _read_again(
    path: Path, line: Line, ledger: Ledger, sources: Sequence[Source], read: Read
) -> dict[str, Any]:
    """The event recorded by a damaged line, which the ledger absorbs."""
    used_paths, path_in_line = {entry["path"] for entry in ledger.used}, text_in(line.content, "path")
    for source in sorted(sources, key=lambda source: printable(str(source.path)) != path_in_line):
        extracted = None if printable(str(source.path)) in used_paths else read(source, ledger)
        if extracted is None:
            continue
        entry, images = extracted
        slices = read_slices(path.parent, ledger.slices, len(images), images.shape[-1])
        if len(images) and np.array_equal(slices, images):
            event = {"kind": "volume", **entry, "first": ledger.slices, CHECKSUM: checksum_of(slices)}
            ledger.note("volume", event)
            return event
    raise DamagedJournal(
        f"{path}: {described(line)} is damaged, and no file here gives the slices that it counted; name the PATH of "
        "that volume, too, or remove the store and extract it again"
    )
