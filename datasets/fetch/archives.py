"""Sources that come as archives: download, check, unpack, record and remove each."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mri_transfer.datasets.fetch.archive_layout import (
    TABLE,
    Place,
    place_ixi,
    place_oasis,
    place_tumors,
    write_table,
)
from mri_transfer.datasets.fetch.config import FetchConfig
from mri_transfer.datasets.fetch.context import Run
from mri_transfer.datasets.fetch.kaggle import HOW, credentials
from mri_transfer.datasets.fetch.sources import IXI_ARCHIVES, TUMOR_ARCHIVE, Archive, oasis_archive
from mri_transfer.datasets.fetch.terms import keep_terms, terms_text
from mri_transfer.datasets.fetch.transfer.answers import Refused
from mri_transfer.datasets.fetch.transfer.members import DamagedArchive
from mri_transfer.datasets.fetch.transfer.part import Part, Remote, digests, gzip_fault
from mri_transfer.datasets.fetch.transfer.receipts import Receipts
from mri_transfer.datasets.fetch.transfer.space import need_space
from mri_transfer.datasets.fetch.unpack import Unpacked, unpack
from mri_transfer.errors import UserError
from mri_transfer.progress import say
from mri_transfer.words import size_in_words


@dataclass(frozen=True)
class ArchiveJob:
    """One archive to fetch; `selection` names what to take from it."""

    archive: Archive
    remote: Remote
    place: Place
    selection: str = ""


def fetch_archives(run: Run) -> dict[str, Any]:
    """Fetch the archives the settings request, or unpack the user's own.

    Returns:
        The summary.

    Raises:
        UserError, OSError: see :func:`mri_transfer.datasets.fetch.fetch.fetch`.
    """
    config, source, out = run.config, run.source, run.out
    place_of_origin = str(config.zip) if config.zip else run.base
    terms = keep_terms(out, source.name, terms_text(source, source.title, place_of_origin))
    failed: list[dict[str, str]] = []
    already = 0
    if config.zip:
        entries = [unpack_own(config.zip, out, place_tumors, run.receipts)]
    else:
        jobs = archive_jobs(config, source.home, run.base)
        check_selection(jobs, out, run.receipts)
        todo = [job for job in jobs if not _is_finished(job, run)]
        already = len(jobs) - len(todo)
        if todo and source.name == "tumors" and config.mirror is None:
            run.downloader.client.auth = credentials()  # never sent to a mirror
        total = _check_space(todo, run)
        failed = run.download(todo, lambda job: bring_archive(job, run), total, lambda job: job.archive.name)
        missing = {failure["file"] for failure in failed}
        receipts = [run.receipts.get(job.archive.name) for job in jobs if job.archive.name not in missing]
        entries = [entry for entry in receipts if entry]
    sizes = {name: size for entry in entries for name, (size, _) in entry["files"].items()}
    summary = {
        "archives": len(entries),
        "already_there": already,
        "files": len(sizes),
        "bytes": sum(sizes.values()),
        "downloaded_bytes": run.gained,
        "skipped": [
            {"archive": entry["file"], **skip} for entry in entries for skip in entry.get("skipped", ())
        ],
        "failed": failed,
        "terms": terms.name,
    }
    folder = shlex.quote(str(out))
    if source.name == "tumors":
        return {**summary, "next": f"mri-transfer audit {folder}"}
    earlier = {name for entry in run.receipts for name in entry.get("files", ()) if (out / name).is_file()}
    volumes = write_table(out, earlier | set(sizes))
    table = shlex.quote(str(out / TABLE))
    return {
        **summary,
        "volumes": volumes,
        "table": TABLE,
        "next": f"mri-transfer slices {folder} --table {table} --out store",
    }


def archive_jobs(config: FetchConfig, home: str, base: str) -> list[ArchiveJob]:
    """The archives the settings request."""

    def job(archive: Archive, place: Place, selection: str = "", denied: str = "") -> ArchiveJob:
        url = base + (archive.address or archive.name)
        return ArchiveJob(archive, Remote(url, home, md5=archive.md5, denied=denied), place, selection)

    if config.source == "ixi":
        return [job(IXI_ARCHIVES[name], place_ixi) for name in config.modalities]
    if config.source == "oasis1":
        variant = config.variant
        return [job(oasis_archive(disc, variant), place_oasis(variant), variant) for disc in config.discs]
    denied = "" if config.mirror else f"Kaggle does not accept the token; {HOW}"
    return [job(TUMOR_ARCHIVE, place_tumors, denied=denied)]


def check_selection(jobs: Sequence[ArchiveJob], folder: Path, receipts: Receipts) -> None:
    """Check that the folder holds nothing else from these archives: `slices` would take the same scan twice.

    Raises:
        UserError: it does.
    """
    for job in jobs:
        before = (receipts.get(job.archive.name) or {}).get("selection", job.selection)
        if before != job.selection:
            raise UserError(
                f"{folder}: holds {before} of {job.archive.name}; choose another --out for {job.selection}"
            )


def _is_finished(job: ArchiveJob, run: Run) -> bool:
    """Whether an archive was unpacked and its files are still there."""
    entry = run.receipts.get(job.archive.name)
    if entry is None or "files" not in entry or not run.is_whole(entry["files"]):
        return False
    if not entry.get("kept", True):  # killed just before it was removed
        (run.out / job.archive.name).unlink(missing_ok=True)
    return True


def _check_space(jobs: Sequence[ArchiveJob], run: Run) -> int:
    """Check that archives and their unpacked files fit on the disk.

    Returns:
        Approximate bytes to download.

    Raises:
        UserError: they don't fit.
    """
    downloads, contents, answers = [], 0.0, True
    for job in jobs:
        target = run.out / job.archive.name
        size = run.downloader.size(job.remote) if answers else None
        answers = size is not None  # don't ask an unresponsive server twelve times
        total = size or job.archive.bytes or 0
        downloaded = target.stat().st_size if target.is_file() else Part(target).size()
        downloads.append(max(0, total - downloaded))
        contents += total * job.archive.unpacked
    # An archive is removed once unpacked, so only those being worked on take space.
    at_once = downloads if run.config.keep_archives else sorted(downloads)[-run.config.parallel :]
    purpose = f"{run.source.name} ({size_in_words(sum(downloads))} to download, then unpacked)"
    need_space(run.out, sum(at_once) + contents, purpose)
    return sum(downloads)


def bring_archive(job: ArchiveJob, run: Run) -> None:
    """Download, unpack and record one archive; a damaged one is downloaded a second time.

    Raises:
        Refused: it is unavailable, damaged twice, or holds nothing wanted.
        Unreachable, UserError, OSError, Stopped: see :class:`Downloader` and :func:`unpack`.
    """
    target, url = run.out / job.archive.name, job.remote.url
    for again in (False, True):
        received = run.downloader.get(job.remote, target)
        say(f"{target}: received, unpacking")
        result, damage = Unpacked(), ""
        try:
            result = unpack(target, run.out, job.place, run.stop, run.count_unpacked)
            if result.damaged:
                damage = (
                    f"holds damaged files, the first of {len(result.skipped)} {result.skipped[0]['member']}"
                )
        except DamagedArchive as damaged:
            damage = str(damaged)
        if not damage or (again and result.files):
            break
        target.unlink()
        if again:
            raise Refused(f"{url}: {damage}, twice; see {job.remote.home}, or name a --mirror")
        say(f"{url}: {damage}; fetching it again")
    if not result.files:
        raise Refused(f"{url}: {_nothing(result)}; see {job.remote.home}")
    keep = run.config.keep_archives
    entry = {"file": job.archive.name, **received, "selection": job.selection, "kept": keep}
    run.receipts.add({**entry, "files": result.files, "skipped": result.skipped})
    if not keep:
        target.unlink()


def unpack_own(archive: Path, folder: Path, place: Place, receipts: Receipts) -> dict[str, Any]:
    """Unpack an archive the user already has, leaving it in place.

    Returns:
        Its entry in the receipt.

    Raises:
        UserError: it is damaged, or holds nothing wanted.
    """
    try:
        with archive.open("rb") as file:
            if file.read(2) == b"\x1f\x8b" and (fault := gzip_fault(archive)):
                raise DamagedArchive(f"is damaged ({fault})")
        result = unpack(archive, folder, place)
    except DamagedArchive as damage:
        raise UserError(f"{archive}: {damage}; download it again") from None
    if not result.files:
        raise UserError(f"{archive}: {_nothing(result)}; name the zip of the tumour set")
    entry = {"file": archive.name, **digests(archive), "files": result.files, "skipped": result.skipped}
    receipts.add(entry)
    return entry


def _nothing(result: Unpacked) -> str:
    if not result.skipped:
        return "nothing in it is wanted"
    first = result.skipped[0]
    return f"nothing in it can be unpacked; the first of {len(result.skipped)}, {first['member']}: {first['reason']}"
