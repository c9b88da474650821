"""The command `slices`: volumes on disk to a slice store, in parallel and resumable."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from threadpoolctl import threadpool_limits

from mri_transfer.datasets.extraction.collection import Collection, key_of, reader_versions
from mri_transfer.datasets.extraction.dry_run import plan
from mri_transfer.datasets.extraction.mend import ledger_of_whole_lines, mend
from mri_transfer.datasets.slices.content import scan_digest
from mri_transfer.datasets.slices.cut import Slices, cut
from mri_transfer.datasets.slices.redundancy import Repeats, without_redundant
from mri_transfer.datasets.store.journal import DamagedJournal
from mri_transfer.datasets.store.ledger import Ledger
from mri_transfer.datasets.store.store import KIND, SliceStore
from mri_transfer.datasets.store.subjects import keep_people, to_record
from mri_transfer.datasets.store.summary.contact_sheet import write_contact_sheet
from mri_transfer.datasets.store.summary.people_table import overview, scans_in
from mri_transfer.datasets.store.summary.store_summary import CONTACT_SHEET, PAGE, SUMMARY, nothing_used, tell
from mri_transfer.datasets.store.unwanted import REMEDY, is_unwanted, unwanted
from mri_transfer.datasets.store.writer import StoreWriter, read_slices
from mri_transfer.datasets.volumes.find import Inventory, Source, find_volumes, printable
from mri_transfer.datasets.volumes.formats.pictures import read_picture
from mri_transfer.datasets.volumes.left_out import KINDS
from mri_transfer.datasets.volumes.people.pattern import Pattern, subject_pattern
from mri_transfer.datasets.volumes.planes import PLANES
from mri_transfer.datasets.volumes.volume import BadVolume, NotAScan, read_volume
from mri_transfer.errors import UserError
from mri_transfer.options import argument, fraction, option, positive_float, positive_int, side
from mri_transfer.processes.workers import WorkerDied, Workers, run_calls, workers_for
from mri_transfer.progress import bar, say
from mri_transfer.storage.files import write_json
from mri_transfer.storage.sums import signed


def planes(text: str) -> tuple[str, ...]:
    """Comma-separated names of planes, in their usual order."""
    names = {name.strip().lower() for name in text.split(",")}
    if not names or not names <= set(PLANES):
        raise ValueError(f"name some of {','.join(PLANES)}")
    return tuple(plane for plane in PLANES if plane in names)


def kinds(text: str) -> tuple[str, ...]:
    """Comma-separated kinds of images left out unless requested."""
    names = {name.strip().lower() for name in text.split(",")}
    if not names <= set(KINDS):
        raise ValueError(f"name some of {','.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in names)


ENDS_PROCESSES = (
    "ended the process that read it, twice: too little memory, or a defect that its reader doesn't survive"
)


@dataclasses.dataclass(frozen=True)
class SlicesConfig:
    """Everything that decides what a slice store holds."""

    EXAMPLE: ClassVar[str] = "example: mri-transfer slices ~/IXI ds000001 hospital/dicom --out store"

    HEADINGS: ClassVar[dict[str, str]] = {
        "which files": "images include max_mb strict",
        "who is who": "subject table",
        "slices": "size spacing planes min_foreground max_correlation",
        "where it is computed": "workers cluster",
    }

    paths: tuple[Path, ...] = argument(
        help="volumes (NIfTI, Analyze, MGH, MINC, NRRD, MetaImage, DICOM series), folders of them, BIDS datasets",
        metavar="PATH",
        many=True,
    )
    out: Path = option(
        help="folder of the slice store; run again with more PATHs to add to it", metavar="STORE"
    )
    size: int = option(160, help="side of a slice, pixels", parse=side, metavar="PIXELS")
    spacing: float = option(
        4.0,
        help="minimum distance between kept slices of the same orientation, mm",
        parse=positive_float,
        metavar="MM",
    )
    planes: tuple[str, ...] = option(PLANES, help="planes to cut", parse=planes, metavar="NAMES")
    min_foreground: float = option(
        0.15,
        help="minimum share of a slice that must be head rather than air",
        parse=fraction,
        metavar="SHARE",
    )
    max_correlation: float = option(
        0.97,
        help="leave out a slice that correlates more than this with a kept one of the same subject, sequence and "
        "plane, as it adds little; 1 keeps all",
        parse=fraction,
        metavar="R",
    )
    images: bool = option(
        False,
        help="the PATHs hold pictures (PNG, JPEG, ...): each is one slice; the person is looked for in "
        "its name and its folders, and numbers in its name count as slice numbers",
    )
    include: tuple[str, ...] = option(
        (),
        help=f"also use these kinds, which are left out by default: any of {','.join(KINDS)}",
        parse=kinds,
        metavar="NAMES",
    )
    subject: Pattern | None = option(
        None,
        help="which part of a path names the person, such as '{subject}/*/T1': a pattern for paths below each PATH, "
        "without suffix; * is anything within a level, ** any number of levels; {subject}, {session}, {sequence} and "
        "{dataset} are what they say (default: worked out over all files)",
        parse=subject_pattern,
        metavar="PATTERN",
    )
    table: Path | None = option(
        None,
        help="CSV or TSV with columns file, subject, session, sequence (for pictures also plane) that overrides what "
        "file names and DICOM tags say",
        metavar="FILE",
    )
    max_mb: int = option(
        1024, help="refuse volumes whose voxels take more than this, MB", parse=positive_int, metavar="MB"
    )
    workers: int | None = option(
        None,
        help="processes that read volumes (default: one per core)",
        parse=positive_int,
        metavar="N",
    )
    cluster: str | None = option(
        None,
        help="read volumes on a Dask cluster instead: address of its scheduler, such as tcp://host:8786 (extra "
        "[cluster]); its workers must see the PATHs",
        metavar="ADDRESS",
    )
    dry_run: bool = option(
        False,
        help="say what would be used, what would be skipped and why, from names and headers; write nothing",
    )
    strict: bool = option(False, help="stop at the first file that can't be used")
    banner: str = ""  # not an option: the banner on the demo's pictures and page

    def settings(self) -> dict[str, Any]:
        """What must stay the same as long as a store grows."""
        return {
            "size": self.size,
            "spacing": self.spacing,
            "planes": list(self.planes),
            "min_foreground": self.min_foreground,
            "max_correlation": self.max_correlation,
        }


@dataclasses.dataclass(frozen=True)
class _Result:
    """A worker's result for one volume: slices, or why there are none.

    `passing` marks a transient reason, such as too little memory; `by_rule` a valid file that is not a scan.
    """

    slices: Slices | None = None
    sha256: str = ""
    content: str = ""
    notes: tuple[str, ...] = ()
    reason: str = ""
    passing: bool = False
    by_rule: bool = False


def extract(config: SlicesConfig, executor: Executor | None = None) -> dict[str, Any]:
    """Read volumes and write their slices into a store, continuing an existing one with the same settings.

    Args:
        config: the settings.
        executor: a `concurrent.futures` executor for reading volumes, instead of own processes.

    Returns:
        The summary, also written to `summary.json`: counts by plane, sequence and source, subjects, redundant slices,
        skipped files, and files of the store that have moved or are gone.

    Raises:
        UserError: nothing can be used, the store has other settings or is damaged, a worker process died, or
            (with `strict`) a file can't be used.
    """
    if config.dry_run:
        return plan(config)
    started = time.monotonic()
    inventory = find_volumes(config.paths, config.table, config.include, config.images, config.subject)
    for remark in inventory.remarks:
        say(remark)
    with (
        workers_for(
            config.workers, executor=executor, cluster=config.cluster, folders=config.paths
        ) as workers,
        signed(config.out, KIND) as sums,
        _open(config, inventory) as writer,
    ):
        before = writer.slices
        collection = Collection(writer.ledger, inventory, reader_versions(config.max_mb, config.include))
        todo = collection.new()
        sources = [entry["source"] for entry in writer.ledger.used]
        if notice := unwanted(sources, writer.ledger.about().get("asked_for", ())):
            say(f"{config.out}: {notice}; {REMEDY}")
        if config.strict and (broken := next((skip for skip in inventory.skipped if skip.broken), None)):
            raise UserError(f"{broken.path}: {broken.reason}")
        for path in collection.gone():
            writer.forget(path)
        for skip in inventory.skipped:
            _skip(writer, {"source": skip.name, "reason": skip.reason, "path": printable(str(skip.path))})
        _extract_all(config, workers, todo, writer, collection)
        if not writer.slices:
            skipped = writer.ledger.about()["skipped"]
            names = {source.name for source in inventory.sources}
            failed = [entry for entry in skipped if entry["file"] in names]
            raise nothing_used(config.out, len(inventory.sources), failed, skipped)
        added = writer.slices - before
        sheet, page = config.out / CONTACT_SHEET, config.out / PAGE
        if writer.changed:  # if the run ends here, the next one notices that they are missing
            sheet.unlink(missing_ok=True)
            page.unlink(missing_ok=True)
        manifest = writer.finish()
        from mri_transfer.datasets.extraction.licences import find_licences

        summary = {
            "out": str(config.out),
            **{key: value for key, value in manifest["counts"].items() if key != "skipped"},
            "added_slices": added,
            "people": overview(scans_in(writer.ledger)),
            "skipped": manifest["skipped"],
            "notes": manifest["notes"],
            "moved": collection.moved(),
            "missing": collection.missing(),
            "settings": manifest["settings"],
            "fingerprint": manifest["fingerprint"],
            "licences": find_licences(config.paths),
            "banner": config.banner,
        }
        if not sheet.is_file():
            write_contact_sheet(SliceStore.open(config.out), sheet, config.banner)
        if not page.is_file():
            # Its imports are not needed by workers or by a run with nothing new.
            from mri_transfer.datasets.store.summary.store_page import write_page

            write_page(SliceStore.open(config.out), summary, summary["licences"], page, config.banner)
        seconds = time.monotonic() - started
        summary["extraction_seconds"] = round(seconds, 2)
        write_json(config.out / SUMMARY, summary)
        sums |= {shard["file"]: shard["sha256"] for shard in manifest["shards"] if shard.get("sha256")}
    tell(config.out, summary, seconds)
    return summary


def _open(config: SlicesConfig, inventory: Inventory) -> StoreWriter:
    """The store's writer; first rereads any volume whose journal line is damaged."""
    try:
        return StoreWriter(config.out, config.settings())
    except DamagedJournal:
        keep_people(ledger_of_whole_lines(config.out), inventory)
        mend(config.out, inventory.sources, functools.partial(_read_again, config))
        return StoreWriter(config.out, config.settings())


def _read_again(
    config: SlicesConfig, source: Source, ledger: Ledger
) -> tuple[dict[str, Any], np.ndarray] | None:
    """Journal entry and slices of a volume, as they would follow a ledger's content."""
    result = _extract_one(source, config)
    if result.slices is None:
        return None

    def of_subject(*key: str) -> list[dict[str, Any]]:
        return [entry for entry in ledger.used if (entry["subject"], entry["sequence"]) == key]

    def read(first: int, count: int) -> np.ndarray:
        return read_slices(config.out, first, count, config.size)

    repeats = Repeats(config.max_correlation, _earlier(of_subject, read))
    slices = repeats.filter(result.slices, source.identity.subject, source.identity.sequence)
    return _entry(source, result, slices), slices.images


def _earlier(
    of_subject: Callable[[str, str], Iterable[dict[str, Any]]], read: Callable[[int, int], np.ndarray]
) -> Callable[[str, str], Iterator[tuple[list[str], np.ndarray]]]:
    """Planes and images of a store's scans of a subject and sequence."""

    def earlier(subject: str, sequence: str) -> Iterator[tuple[list[str], np.ndarray]]:
        for entry in of_subject(subject, sequence):
            planes = [plane for plane, count in entry["runs"] for _ in range(count)]
            yield planes, read(entry["first"], len(planes))

    return earlier


def _extract_all(
    config: SlicesConfig,
    workers: Workers,
    todo: list[Source],
    writer: StoreWriter,
    collection: Collection,
) -> None:
    began = time.monotonic()
    first = writer.slices

    repeats = Repeats(config.max_correlation, _earlier(collection.of_subject, writer.read))
    with (
        threadpool_limits(1),  # leave the CPU to the workers
        contextlib.closing(_results(config, workers, todo)) as results,
        bar(total=len(todo), desc="volumes", unit="volume") as progress,
    ):
        for source, result in results:
            _take(config, source, result, writer, collection, repeats)
            progress.update()
            rate = (writer.slices - first) / max(time.monotonic() - began, 1e-9)
            progress.set_postfix_str(f"{writer.slices} slices, {rate:.0f}/s", refresh=False)


def _results(
    config: SlicesConfig, workers: Workers, todo: list[Source]
) -> Generator[tuple[Source, _Result], None, None]:
    """Every volume with its result, in order; one that kills the process reading it gets a reason, too."""
    if workers.local and min(workers.count, len(todo)) <= 1:  # starting a process would take longer
        for source in todo:
            yield source, _extract_one(source, config)
        return
    begin = 0
    while begin < len(todo):
        calls = [(source, config) for source in todo[begin:]]
        try:
            with contextlib.closing(run_calls(workers, _extract_one, calls, ordered=True)) as results:
                for number, result in results:
                    yield todo[begin + number], result
            return
        except WorkerDied as died:
            # All earlier ones were consumed: results come in order.
            begin += died.call
            yield todo[begin], _Result(reason=ENDS_PROCESSES, passing=True)
            begin += 1


def _take(
    config: SlicesConfig,
    source: Source,
    result: _Result,
    writer: StoreWriter,
    collection: Collection,
    repeats: Repeats,
) -> None:
    """Add a volume's slices to the store, or note why not."""
    reason = result.reason
    if reason and config.strict and not result.by_rule:
        raise UserError(f"{source.path}: {reason}")
    entry = {"source": source.name, **key_of(source)}
    slices = result.slices
    if slices is not None:
        if recognition := collection.recognise(source, result.sha256, result.content):
            if recognition.note:
                writer.recognise(recognition.note)
                return
            reason = recognition.reason
        else:
            slices = repeats.filter(slices, source.identity.subject, source.identity.sequence)
            if not slices.plane:
                entry["redundant"] = slices.redundant
                reason = "shows nothing that another scan of the subject does not; see --max-correlation"
    if reason:
        readers = "" if result.passing else collection.readers
        _skip(writer, {**entry, "reason": reason, "readers": readers})
        return
    assert slices is not None
    writer.add(_entry(source, result, slices), slices.images)
    collection.add(writer.ledger.used[-1])


def _entry(source: Source, result: _Result, slices: Slices) -> dict[str, Any]:
    """The journal entry of a volume."""
    return {
        **dataclasses.asdict(source.identity),
        "evidence": to_record(source.evidence),
        "source": source.name,
        **key_of(source),
        **({"asked_for": True} if is_unwanted(source.name) else {}),  # by its own name, or with --include
        "sha256": result.sha256,
        "content": result.content,
        "notes": list(result.notes),
        "redundant": slices.redundant,
        "planes": list(slices.plane),
        "position_mm": list(slices.position_mm),
        "position": list(slices.position),
    }


def _skip(writer: StoreWriter, entry: dict[str, Any]) -> None:
    """Note a skipped file, unless the store already has that note."""
    if writer.ledger.skip_of(entry["path"]) != entry:
        writer.skip(entry)


def _extract_one(source: Source, config: SlicesConfig) -> _Result:
    try:
        if source.plane:
            return _picture(source, config)
        volume = read_volume(source.files, max_bytes=config.max_mb * 1_000_000, include=config.include)
        slices = cut(volume, config.size, config.spacing, config.planes, config.min_foreground)
        slices = without_redundant(slices, config.max_correlation)
    except NotAScan as error:
        return _Result(reason=str(error), by_rule=True)
    except BadVolume as error:
        return _Result(reason=str(error), passing=_may_pass(error.__context__))
    except MemoryError:
        return _Result(reason="needs more memory than there is", passing=True)
    return _Result(slices, volume.sha256, scan_digest(volume.voxels), volume.notes)


def _may_pass(cause: BaseException | None) -> bool:
    """Whether an unreadable file may be readable next time even if its size and date stay the same."""
    # System errors have an errno; format errors, such as for bad gzip data, are OSErrors without one.
    return isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno is not None)


def _picture(source: Source, config: SlicesConfig) -> _Result:
    """One slice, or several sequences of it, without a known position."""
    if source.plane in PLANES and source.plane not in config.planes:
        raise BadVolume(f"{source.plane}, a plane that --planes leaves out")
    images, sha256, content = read_picture(source.path, config.size, config.max_mb * 1_000_000)
    count = len(images)
    slices = Slices(images, (source.plane,) * count, position_mm=(0.0,) * count, position=(0.5,) * count)
    return _Result(slices, sha256, content)
