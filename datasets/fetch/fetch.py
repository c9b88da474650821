"""`mri-transfer fetch`: public data to a folder, whole, checked, and with their terms beside them."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mri_transfer.datasets.fetch.archives import (
    ArchiveJob,
    bring_archive,
    check_selection,
    is_finished,
    is_whole,
    still_needed,
    unpack_own,
)
from mri_transfer.datasets.fetch.config import FetchConfig
from mri_transfer.datasets.fetch.kaggle import HOW, credentials
from mri_transfer.datasets.fetch.layout import TABLE, Place, place_ixi, place_oasis, place_tumors, write_table
from mri_transfer.datasets.fetch.openneuro import (
    DESCRIPTION,
    Listed,
    check_number,
    licence_of,
    list_anatomy,
)
from mri_transfer.datasets.fetch.part import Remote
from mri_transfer.datasets.fetch.receipts import RECEIPT, Receipts
from mri_transfer.datasets.fetch.sources import (
    IXI_ARCHIVES,
    SOURCES,
    TUMOR_ARCHIVE,
    Archive,
    Source,
    oasis_archive,
)
from mri_transfer.datasets.fetch.space import need_space, readable
from mri_transfer.datasets.fetch.terms import keep_terms, terms_text
from mri_transfer.datasets.fetch.transport import Downloader, Patience, Refused
from mri_transfer.datasets.fetch.workers import run_all
from mri_transfer.errors import UserError
from mri_transfer.files import claim_folder, write_json
from mri_transfer.progress import bar, say

SUMMARY = "summary.json"
SHOWN = 8  # lines of a list that are printed; all of it goes into the summary

Job = TypeVar("Job")


def fetch(config: FetchConfig) -> dict[str, Any]:
    """Download a source into a folder; what is there already is not downloaded again.

    Returns:
        The summary, also written to `summary.json`: files, bytes, what was skipped, the next command.

    Raises:
        UserError: an option is wrong, terms are not accepted, the folder can't be used, the disk is too small, or
            the source can't be reached or can't be had.
    """
    config.check()
    source = SOURCES[config.source]
    run = _Run(config, source)
    if source.ask and not config.accept_terms:
        say(terms_text(source, source.title, run.base) + "\n")
        raise UserError(
            f"{source.name}: its owners ask for agreement to the terms above; read {source.home}, and run again with "
            "--accept-terms"
        )
    claim_folder(config.out, source.kind)
    with Receipts(config.out) as receipts:
        if config.source == "openneuro":
            summary = run.dataset(receipts, check_number(config.name))
        else:
            summary = run.archives(receipts)
        summary = {"source": config.source, "out": str(config.out), **summary}
        write_json(config.out / SUMMARY, summary)
    _tell(config.out, summary)
    failed = summary["failed"]
    if failed and (config.strict or config.source != "openneuro" or not summary["files"]):
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise UserError(failed[0]["reason"] + more)
    if config.strict and summary["skipped"]:
        worst = summary["skipped"][0]
        raise UserError(f"{worst['archive']}: {worst['member']}: {worst['reason']}")
    return summary


class _Run:
    """One call of the command: its settings, its downloader, its bar."""

    def __init__(self, config: FetchConfig, source: Source):
        self.config, self.source = config, source
        self.base = (config.mirror or source.base).rstrip("/") + "/"
        self.stop = threading.Event()
        self._guard = threading.Lock()
        self._bar: Any = None
        self.gained = 0
        auth = None
        if source.name == "tumors" and config.mirror is None and config.zip is None:
            auth = credentials()  # never sent to a mirror
        patience = Patience(tries=config.retries, timeout=config.timeout)
        self.downloader = Downloader(patience, self.stop, self._tick, auth)

    def _tick(self, gained: int) -> None:
        with self._guard:
            self.gained += gained
            if self._bar is not None:
                self._bar.update(gained)

    def archives(self, receipts: Receipts) -> dict[str, Any]:
        """The sources that come in archives."""
        out = self.config.out
        terms = keep_terms(out, self.source.name, terms_text(self.source, self.source.title, self._from()))
        failed: list[dict[str, str]] = []
        if self.config.zip is not None:
            entries = [unpack_own(self.config.zip, out, place_tumors, receipts)]
            ready = 0
        else:
            jobs = self._archive_jobs()
            check_selection(jobs, out, receipts)
            todo = [job for job in jobs if not is_finished(job, out, receipts, self.config.verify)]
            ready = len(jobs) - len(todo)
            total = self._check_archive_space(todo)
            keep = self.config.keep_archives

            def work(job: ArchiveJob) -> dict[str, Any]:
                return bring_archive(job, out, self.downloader, receipts, keep, self.stop)

            failed = self._run(todo, work, total, lambda job: job.archive.name)
            missing = {failure["file"] for failure in failed}
            names = [job.archive.name for job in jobs if job.archive.name not in missing]
            entries = [entry for name in names if (entry := receipts.get(name))]
        files = {name: size for entry in entries for name, (size, _) in entry["files"].items()}
        summary = {
            "archives": len(entries),
            "already_there": ready,
            "files": len(files),
            "bytes": sum(files.values()),
            "downloaded_bytes": self.gained,
            "skipped": [{"archive": entry["file"], **skip} for entry in entries for skip in entry["skipped"]],
            "failed": failed,
            "terms": terms.name,
        }
        if self.source.name == "tumors":
            return {**summary, "next": f"mri-transfer audit {shlex.quote(str(out))}"}
        every = sorted({*files, *_earlier(receipts, out)})
        volumes = write_table(out, every)
        return {**summary, "volumes": volumes, "table": TABLE, "next": _next_slices(out, out / TABLE)}

    def dataset(self, receipts: Receipts, number: str) -> dict[str, Any]:
        """One data set of OpenNeuro, in a folder of its number, by which its subjects are told from others'."""
        out = self.config.out
        listed = list_anatomy(self.downloader, self.base, number)
        (out / number).mkdir(exist_ok=True)

        def bring(file: Listed) -> None:
            target = out / number / file.path
            name = f"{number}/{file.path}"
            known = receipts.get(name) is not None  # then it is damaged, or has another content by now
            entry = self.downloader.get(file.remote(self.base, number), target, adopt=not known)
            receipts.add({"file": name, **entry, "etag": file.etag})

        todo = [file for file in listed if not self._is_here(file, number, receipts)]
        need_space(out, sum(file.bytes for file in todo), f"{number} ({len(todo)} files)")
        first = [file for file in todo if file.path.as_posix() == DESCRIPTION]
        failed = self._run(first, bring, None, str)
        stated = licence_of(out / number / DESCRIPTION)
        terms = keep_terms(
            out, number, terms_text(self.source, f"OpenNeuro {number}", self._from(number), stated)
        )
        rest = [file for file in todo if file not in first]
        failed += self._run(rest, bring, sum(file.bytes for file in rest), lambda file: str(file.path))
        missing = {failure["file"] for failure in failed}
        here = [file for file in listed if str(file.path) not in missing]
        return {
            "name": number,
            "already_there": len(listed) - len(todo),
            "files": len(here),
            "volumes": sum(file.path.name.endswith((".nii", ".nii.gz")) for file in here),
            "bytes": sum(file.bytes for file in here),
            "downloaded_bytes": self.gained,
            "skipped": [],
            "failed": failed,
            "terms": terms.name,
            "next": _next_slices(out / number),
        }

    def _is_here(self, file: Listed, number: str, receipts: Receipts) -> bool:
        name = f"{number}/{file.path}"
        entry = receipts.get(name)
        if entry is None or entry.get("etag") != file.etag or entry["bytes"] != file.bytes:
            return False
        return is_whole(self.config.out, {name: (file.bytes, entry["sha256"])}, self.config.verify)

    def _from(self, below: str = "") -> str:
        return str(self.config.zip) if self.config.zip else self.base + below

    def _archive_jobs(self) -> list[ArchiveJob]:
        config = self.config
        wanted: list[tuple[Archive, Place, str]]
        if config.source == "ixi":
            wanted = [(IXI_ARCHIVES[name], place_ixi, "") for name in config.modalities]
        elif config.source == "oasis1":
            place = place_oasis(config.variant)
            wanted = [(oasis_archive(disc, config.variant), place, config.variant) for disc in config.discs]
        else:
            wanted = [(TUMOR_ARCHIVE, place_tumors, "")]
        return [
            ArchiveJob(
                archive,
                Remote(
                    self.base + (archive.address or archive.name),
                    self.source.home,
                    md5=archive.md5,
                    denied=f"Kaggle does not accept the token; {HOW}" if config.source == "tumors" else "",
                ),
                place,
                selection,
            )
            for archive, place, selection in wanted
        ]

    def _check_archive_space(self, jobs: list[ArchiveJob]) -> int:
        """See that archives and their content fit; returns the bytes to download, about."""
        sizes = [self.downloader.size(job.remote) for job in jobs]
        needs = [still_needed(job, self.config.out, size) for job, size in zip(jobs, sizes, strict=True)]
        downloads = [download for download, _ in needs]
        # An archive is removed once it is unpacked, so only as many are there as are worked on.
        at_once = downloads if self.config.keep_archives else sorted(downloads)[-self.config.parallel :]
        need_space(
            self.config.out,
            sum(at_once) + sum(content for _, content in needs),
            f"{self.source.name} ({readable(sum(downloads))} to download, then unpacked)",
        )
        return sum(downloads)

    def _run(
        self,
        jobs: Sequence[Job],
        work: Callable[[Job], Any],
        total: int | None,
        name_of: Callable[[Job], str],
    ) -> list[dict[str, str]]:
        """Do the jobs; a file that can't be had is listed, any other trouble ends them all."""
        failed = []
        with bar(total=total, desc="download", unit="B", unit_scale=True, unit_divisor=1000) as self._bar:
            for done in _closing(run_all(jobs, work, self.config.parallel, self.stop)):
                try:
                    done.result()
                except Refused as refusal:
                    if self.config.strict:
                        raise
                    failed.append({"file": name_of(done.job), "reason": str(refusal)})
        self._bar = None
        self.stop.clear()
        return failed


def _closing(jobs: Generator[Any, None, None]) -> Generator[Any, None, None]:
    """Close the generator also when its consumer leaves it by an error."""
    try:
        yield from jobs
    finally:
        jobs.close()


def _earlier(receipts: Receipts, out: Path) -> list[str]:
    """Files of archives that other calls of the command brought."""
    return [name for entry in receipts for name in entry.get("files", {}) if (out / name).is_file()]


def _next_slices(folder: Path, table: Path | None = None) -> str:
    by_table = f" --table {shlex.quote(str(table))}" if table else ""
    return f"mri-transfer slices {shlex.quote(str(folder))}{by_table} --out store"


def _tell(out: Path, summary: dict[str, Any]) -> None:
    already = f", {summary['already_there']} of them already there" if summary["already_there"] else ""
    of = "archives" if "archives" in summary else "files"
    say(
        f"{out}: {summary['files']} files, {readable(summary['bytes'])}; {summary.get(of, summary['files'])} {of} "
        f"received{already}; checksums in {out / RECEIPT}, terms in {out / summary['terms']}"
    )
    for kind, title in (("failed", "could not be had"), ("skipped", "not unpacked")):
        entries = summary[kind]
        if entries:
            say(f"{len(entries)} {title}, listed in {out / SUMMARY}:")
            for entry in entries[:SHOWN]:
                say(f"  {entry.get('file') or entry['member']}: {entry['reason']}")
    say(f"next: {summary['next']}")
