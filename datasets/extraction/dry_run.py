"""`mri-transfer slices --dry-run`: what would be used or skipped, and why, from names and headers; writes nothing."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mri_transfer.datasets.extraction.collection import Collection, reader_versions
from mri_transfer.datasets.store.journal import events
from mri_transfer.datasets.store.ledger import Ledger
from mri_transfer.datasets.store.store import JOURNAL, KIND
from mri_transfer.datasets.store.summary.people_table import overview, scans_in, scans_of, table_lines
from mri_transfer.datasets.store.summary.store_summary import nothing_used, say_skipped
from mri_transfer.datasets.volumes.find import find_volumes, printable
from mri_transfer.datasets.volumes.formats.stored import BadVolume, NotAScan
from mri_transfer.datasets.volumes.headers import expected_slices, read_geometry
from mri_transfer.errors import UserError
from mri_transfer.progress import bar, say
from mri_transfer.storage.files import check_claim
from mri_transfer.storage.json_lines import read_lines

if TYPE_CHECKING:
    from mri_transfer.datasets.extraction.extract import SlicesConfig


def plan(config: SlicesConfig) -> dict[str, Any]:
    """Inspect names, headers and the store's journal, and report what the command would do.

    Returns:
        Counts of volumes and subjects to read, by sequence and source; the approximate slices and MB they would give;
        the number of volumes already in the store; and every file that would be skipped.

    Raises:
        UserError: as the command itself would.
    """
    inventory = find_volumes(config.paths, config.table, config.include, config.images, config.subject)
    ledger = _ledger(config.out, config.settings())
    todo = Collection(ledger, inventory, reader_versions(config.max_mb, config.include)).new()
    skipped = [{"file": skip.name, "reason": skip.reason} for skip in inventory.skipped]
    if config.strict and (broken := next((skip for skip in inventory.skipped if skip.broken), None)):
        raise UserError(f"{broken.path}: {broken.reason}")
    usable, by_plane = [], Counter[str]()
    for source in bar(todo, desc="headers", unit="volume"):
        try:
            if source.plane:  # a picture, of one slice
                by_plane[source.plane] += 1
            else:
                geometry = read_geometry(source, config.max_mb * 1_000_000, config.include)
                by_plane.update(expected_slices(geometry, config.planes, config.spacing))
        except BadVolume as error:
            if config.strict and not isinstance(error, NotAScan):
                raise UserError(f"{source.path}: {error}") from None
            skipped.append({"file": source.name, "reason": str(error)})
        else:
            usable.append(source)
    paths = {printable(str(source.path)) for source in inventory.sources}
    before = [entry for entry in ledger.skipped if entry.get("path") in paths and "bytes" in entry]
    todo_names = {source.name for source in todo}
    skipped += [
        {"file": entry["source"], "reason": entry["reason"]}
        for entry in before
        if entry["source"] not in todo_names
    ]
    slices = sum(by_plane.values())
    summary = {
        "dry_run": True,
        "out": str(config.out),
        "people": overview([*scans_in(ledger), *scans_of(usable)]),
        "volumes": len(usable),
        "subjects": len({source.identity.subject for source in usable}),
        "by_sequence": dict(sorted(Counter(source.identity.sequence for source in usable).items())),
        "by_source": dict(sorted(Counter(source.name.split("/")[0] for source in usable).items())),
        "expected_slices": slices,
        "expected_by_plane": dict(sorted(by_plane.items())),
        "expected_mb": round(slices * config.size**2 / 1e6, 1),
        "free_mb": round(_free_bytes(config.out) / 1e6),
        "in_store": {"volumes": len(ledger.used), "slices": ledger.slices},
        "skipped": skipped,
        "settings": config.settings(),
    }
    if not usable and not ledger.used:
        failed = [
            entry for entry in skipped if entry["file"] in {source.name for source in inventory.sources}
        ]
        raise nothing_used(config.out, len(inventory.sources), failed, skipped)
    _tell(config, summary, inventory.remarks)
    return summary


def _ledger(folder: Path, settings: dict[str, Any]) -> Ledger:
    """What a store already knows; empty if there is none yet."""
    ledger = Ledger(folder)
    journal = folder / JOURNAL
    if check_claim(folder, KIND) and journal.is_file():
        with journal.open("rb") as file:
            ledger.replay(event for _, event in events(read_lines(file), journal))
        if ledger.settings:
            ledger.check_settings(settings)
    return ledger


def _free_bytes(folder: Path) -> int:
    folder = Path(folder).absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _tell(config: SlicesConfig, summary: dict[str, Any], remarks: Sequence[str]) -> None:
    def in_words(counts: dict[str, int]) -> str:
        return ", ".join(f"{count} {name}" for name, count in counts.items())

    say("dry run, nothing is written; who was scanned (correct it with --subject or --table):")
    for line in (*table_lines(summary["people"]), *remarks):
        say(f"  {line}")
    if in_store := summary["in_store"]["volumes"]:
        say(f"{config.out} has {in_store} volumes already, {summary['in_store']['slices']} slices")
    if summary["volumes"]:
        say(
            f"{summary['volumes']} volumes of {summary['subjects']} subjects would be read "
            f"({in_words(summary['by_sequence'])}; from {in_words(summary['by_source'])})"
        )
        say(
            f"about {summary['expected_slices']} slices ({in_words(summary['expected_by_plane'])}) of {config.size} "
            f"px, {summary['expected_mb']:g} MB ({summary['free_mb']} MB are free), before redundant ones are left out"
        )
        if summary["expected_mb"] > summary["free_mb"]:
            say(
                "that is more than fits on the disk; choose another --out, fewer --planes or a wider --spacing"
            )
    else:
        say("no new volumes")
    say_skipped(summary["skipped"], "would be skipped", "--json FILE lists all")
