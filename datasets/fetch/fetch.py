"""`mri-transfer fetch`: public data to a folder, complete, checked, and with their terms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mri_transfer.datasets.fetch.archives import fetch_archives
from mri_transfer.datasets.fetch.config import FetchConfig
from mri_transfer.datasets.fetch.context import Run
from mri_transfer.datasets.fetch.openneuro import fetch_dataset
from mri_transfer.datasets.fetch.sources import SOURCES
from mri_transfer.datasets.fetch.terms import terms_text
from mri_transfer.datasets.fetch.transfer.receipts import RECEIPT, Receipts
from mri_transfer.errors import UserError
from mri_transfer.progress import say
from mri_transfer.storage.files import claim_folder, write_json
from mri_transfer.words import counted, size_in_words

SUMMARY = "summary.json"
SHOWN = 8  # lines of a list to print; the summary has them all


def fetch(config: FetchConfig) -> dict[str, Any]:
    """Download a source into a folder, skipping what is already there.

    Returns:
        The summary, also written to `summary.json`: files, bytes, what was skipped, the next command.

    Raises:
        UserError: an option is wrong, terms are not accepted, the folder can't be used, the disk is too small, or the
            source can't be reached or is unavailable.
        OSError: the folder can't be written, or is full.
    """
    config.check()
    source = SOURCES[config.source]
    if source.ask and not config.accept_terms:
        say(terms_text(source, source.title, source.base_of(config.mirror)) + "\n")
        raise UserError(
            f"{source.name}: its owners ask for agreement to the terms above; read {source.home}, and run again with "
            "--accept-terms"
        )
    claim_folder(config.out, source.kind)
    with Receipts(config.out) as receipts:
        bring = fetch_dataset if config.source == "openneuro" else fetch_archives
        summary = {"source": config.source, "out": str(config.out), **bring(Run(config, source, receipts))}
        write_json(config.out / SUMMARY, summary)
    _tell(config.out, summary)
    failed, skipped = summary["failed"], summary["skipped"]
    # One bad file among many in a listing is left out; an archive was requested by name.
    if failed and (config.strict or config.source != "openneuro" or not summary["files"]):
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise UserError(failed[0]["reason"] + more)
    if config.strict and skipped:
        raise UserError(f"{skipped[0]['archive']}: {skipped[0]['member']}: {skipped[0]['reason']}")
    return summary


def _tell(out: Path, summary: dict[str, Any]) -> None:
    archives, present = summary.get("archives"), summary["already_there"]
    packed = "" if archives is None else f" from {counted(archives, 'archive')}"
    already = f" ({present} already there)" if present else ""
    say(
        f"{out}: {counted(summary['files'], 'file')}, {size_in_words(summary['bytes'])}{packed}{already}; "
        f"checksums in {out / RECEIPT}, terms in {out / summary['terms']}"
    )
    for kind, title in (("failed", "could not be had"), ("skipped", "not unpacked")):
        entries = summary[kind]
        if entries:
            say(f"{len(entries)} {title}, listed in {out / SUMMARY}:")
            for entry in entries[:SHOWN]:
                say(f"  {entry.get('file') or entry['member']}: {entry['reason']}")
    say(f"next: {summary['next']}")
