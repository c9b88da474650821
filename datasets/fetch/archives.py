"""A source that comes in archives: each downloaded, checked, unpacked, noted and removed."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mri_transfer.datasets.fetch.layout import Place
from mri_transfer.datasets.fetch.members import DamagedArchive
from mri_transfer.datasets.fetch.part import Part, Remote, digests, gzip_fault
from mri_transfer.datasets.fetch.receipts import Receipts
from mri_transfer.datasets.fetch.sources import Archive
from mri_transfer.datasets.fetch.transport import Downloader, Refused
from mri_transfer.datasets.fetch.unpack import unpack
from mri_transfer.errors import UserError
from mri_transfer.files import sha256
from mri_transfer.progress import say


@dataclass(frozen=True)
class ArchiveJob:
    """One archive to be had; `selection` names what is taken from it."""

    archive: Archive
    remote: Remote
    place: Place
    selection: str


def is_whole(folder: Path, files: dict[str, Any], verify: bool) -> bool:
    """Whether all files of a receipt are there, by size, and with `verify` by checksum too."""
    for name, (size, digest) in files.items():
        path = folder / name
        try:
            if path.stat().st_size != size or (verify and sha256(path) != digest):
                return False
        except OSError:
            return False
    return True


def is_finished(job: ArchiveJob, folder: Path, receipts: Receipts, verify: bool) -> bool:
    """Whether an archive has been unpacked to what is still there."""
    entry = receipts.get(job.archive.name)
    if entry is None or not is_whole(folder, entry["files"], verify):
        return False
    if not entry.get("kept", True):  # killed just before it was removed
        (folder / job.archive.name).unlink(missing_ok=True)
    return True


def check_selection(jobs: Sequence[ArchiveJob], folder: Path, receipts: Receipts) -> None:
    """See that the folder holds nothing else of these archives: `slices` would take the same scan twice.

    Raises:
        UserError: it does.
    """
    for job in jobs:
        before = (receipts.get(job.archive.name) or {}).get("selection", job.selection)
        if before != job.selection:
            raise UserError(
                f"{folder}: holds {before} of {job.archive.name}; choose another --out for {job.selection}"
            )


def still_needed(job: ArchiveJob, folder: Path, size: int | None) -> tuple[int, int]:
    """Bytes to download and bytes to unpack, about.

    Args:
        size: of the archive, as the server announces it.
    """
    target = folder / job.archive.name
    total = size or job.archive.bytes or 0
    here = target.stat().st_size if target.is_file() else Part(target).size()
    return max(0, total - here), int(total * job.archive.unpacked)


def bring_archive(
    job: ArchiveJob,
    folder: Path,
    downloader: Downloader,
    receipts: Receipts,
    keep: bool,
    stop: threading.Event,
) -> dict[str, Any]:
    """Download and unpack one archive; a damaged one is downloaded a second time.

    Returns:
        Its entry in the receipt.

    Raises:
        Refused: it can't be had, or is damaged twice.
        Unreachable, UserError, OSError, Stopped: see :class:`Downloader` and :func:`unpack`.
    """
    target = folder / job.archive.name
    for again in (False, True):
        received = downloader.get(job.remote, target)
        say(f"{target}: received, unpacking")
        try:
            result = unpack(target, folder, job.place, stop)
        except DamagedArchive as damage:
            target.unlink()
            if again:
                raise Refused(
                    f"{job.remote.url}: {damage}, twice; see {job.remote.home}, or name a --mirror"
                ) from None
            say(f"{job.remote.url}: {damage}; fetching it again")
            continue
        if result.damaged and not again:
            target.unlink()
            say(f"{job.remote.url}: holds {len(result.skipped)} damaged files; fetching it again")
            continue
        break
    if not result.files:
        raise Refused(f"{job.remote.url}: {_nothing(result.skipped)}; see {job.remote.home}")
    entry = {
        "file": job.archive.name,
        **received,
        "selection": job.selection,
        "kept": keep,
        "files": result.files,
        "skipped": result.skipped,
    }
    receipts.add(entry)
    if not keep:
        target.unlink()
    return entry


def unpack_own(archive: Path, folder: Path, place: Place, receipts: Receipts) -> dict[str, Any]:
    """Unpack an archive that the user already has, and leave it where it is.

    Raises:
        UserError: it is damaged, or holds nothing that is wanted.
    """
    try:
        with archive.open("rb") as file:
            if file.read(2) == b"\x1f\x8b" and (fault := gzip_fault(archive)):
                raise DamagedArchive(f"is damaged ({fault})")
        result = unpack(archive, folder, place)
    except DamagedArchive as damage:
        raise UserError(f"{archive}: {damage}; download it again") from None
    if not result.files:
        raise UserError(f"{archive}: {_nothing(result.skipped)}; name the zip of the tumour set")
    found = digests(archive)
    entry = {"file": archive.name, **found, "files": result.files, "skipped": result.skipped}
    receipts.add(entry)
    return entry


def _nothing(skipped: list[dict[str, Any]]) -> str:
    if skipped:
        return (
            f"nothing in it can be unpacked; the first of {len(skipped)}, {skipped[0]['member']}: "
            f"{skipped[0]['reason']}"
        )
    return "nothing in it is wanted"
