"""The command `slices`: volumes on disk to a slice store, in parallel and resumable."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, ClassVar

from threadpoolctl import threadpool_limits

from mri_transfer.datasets.contact_sheet import write_contact_sheet
from mri_transfer.datasets.find import Found, Source, find_volumes, printable
from mri_transfer.datasets.slices import PLANES, Slices, cut
from mri_transfer.datasets.store import MANIFEST, SliceStore
from mri_transfer.datasets.store_writer import StoreWriter
from mri_transfer.datasets.volumes import BadVolume, read_volume
from mri_transfer.device import cores
from mri_transfer.errors import UserError
from mri_transfer.files import write_json
from mri_transfer.options import argument, fraction, option, positive_float, positive_int
from mri_transfer.progress import bar, say

CONTACT_SHEET = "contact_sheet.png"
SUMMARY = "summary.json"

_AHEAD = 3  # volumes a worker may be ahead of the writer; each waits as its slices, a few megabytes


def planes(text: str) -> tuple[str, ...]:
    """Comma-separated names of planes, in their usual order."""
    wanted = {part.strip().lower() for part in text.split(",")}
    if not wanted or not wanted <= set(PLANES):
        raise ValueError(f"name some of {','.join(PLANES)}")
    return tuple(plane for plane in PLANES if plane in wanted)


def _size(text: str) -> int:
    value = positive_int(text)
    if not 16 <= value <= 1024:
        raise ValueError("must be between 16 and 1024 pixels")
    return value


@dataclasses.dataclass(frozen=True)
class SlicesConfig:
    """Everything that decides what a slice store holds."""

    EXAMPLE: ClassVar[str] = "example: mri-transfer slices ~/IXI ds000001 --out store"

    paths: tuple[Path, ...] = argument(
        help="volumes (.nii, .nii.gz, .hdr/.img), folders of them, BIDS datasets", metavar="PATH", many=True
    )
    out: Path = option(
        help="folder of the slice store; run again with more PATHs to add to it", metavar="STORE"
    )
    size: int = option(160, help="side of a slice, pixels", parse=_size, metavar="PIXELS")
    spacing: float = option(
        4.0, help="least distance between kept slices of a plane, mm", parse=positive_float, metavar="MM"
    )
    planes: tuple[str, ...] = option(PLANES, help="planes to cut", parse=planes, metavar="NAMES")
    min_foreground: float = option(
        0.15, help="least share of a slice that must be head and not air", parse=fraction, metavar="SHARE"
    )
    table: Path | None = option(
        None,
        help="CSV or TSV with columns file, subject, session, sequence that overrides what file names say",
        metavar="FILE",
    )
    max_mb: int = option(
        1024, help="refuse a volume whose voxels take more than this, MB", parse=positive_int, metavar="MB"
    )
    workers: int | None = option(
        None,
        help="processes that read volumes; default: one for each processor core",
        parse=positive_int,
        metavar="N",
    )
    strict: bool = option(False, help="stop at the first file that can't be used")
    banner: str = ""  # not an option: what the demo writes across its contact sheet


@dataclasses.dataclass(frozen=True)
class _Result:
    """What a worker makes of one volume: slices, or why there are none."""

    slices: Slices | None = None
    sha256: str = ""
    content: str = ""
    notes: tuple[str, ...] = ()
    reason: str = ""


def extract(config: SlicesConfig) -> dict[str, Any]:
    """Read volumes and write their slices into a store; an existing one with the same settings is continued.

    Returns:
        The summary, also written to `summary.json`: counts by plane and sequence, subjects, skipped files.

    Raises:
        UserError: nothing can be used, the store has other settings or is damaged, a worker process died, or
            (with `strict`) a file can't be used.
    """
    started = time.monotonic()
    found = find_volumes(config.paths, config.table)
    settings = {
        "size": config.size,
        "spacing": config.spacing,
        "planes": list(config.planes),
        "min_foreground": config.min_foreground,
    }
    with StoreWriter(config.out, settings) as writer:
        before = writer.slices
        todo = _new_sources(found, writer)
        if config.strict and (broken := next((skip for skip in found.skipped if skip.broken), None)):
            raise UserError(f"{broken.path}: {broken.reason}")
        known = {(entry["source"], entry["reason"]) for entry in writer.skipped}
        for skip in found.skipped:
            if (skip.name, skip.reason) not in known:
                writer.skip({"source": skip.name, "reason": skip.reason})
        _extract_all(config, todo, writer)
        if not writer.slices:
            first = writer.skipped[0]
            raise UserError(
                f"{config.out}: none of {len(found.sources)} volumes can be used; "
                f"the first, {first['source']}: {first['reason']}"
            )
        stale = not (config.out / MANIFEST).is_file() or not (config.out / CONTACT_SHEET).is_file()
        added = writer.slices - before
        manifest = writer.finish()
        if stale or added:
            write_contact_sheet(SliceStore.open(config.out), config.out / CONTACT_SHEET, config.banner)
        seconds = time.monotonic() - started
        summary = {
            "out": str(config.out),
            **{key: value for key, value in manifest["counts"].items() if key != "skipped"},
            "added_slices": added,
            "skipped": manifest["skipped"],
            "notes": manifest["notes"],
            "settings": settings,
            "fingerprint": manifest["fingerprint"],
            "extraction_seconds": round(seconds, 2),
        }
        write_json(config.out / SUMMARY, summary)
    _tell(config.out, summary, seconds)
    return summary


def _key(source: Source) -> dict[str, Any]:
    """By what a file is recognised without reading it."""
    return {"path": printable(str(source.path)), "bytes": source.bytes, "mtime_ns": source.mtime_ns}


def _new_sources(found: Found, writer: StoreWriter) -> list[Source]:
    """The volumes that the store does not know, or that could not be used and have changed since."""
    seen = {
        (entry["path"], entry["bytes"], entry["mtime_ns"]): entry
        for entry in writer.skipped
        if "path" in entry
    }
    seen |= {(entry["path"], entry["bytes"], entry["mtime_ns"]): entry for entry in writer.used}
    todo = []
    for source in found.sources:
        entry = seen.get(tuple(_key(source).values()))
        if entry is None:
            todo.append(source)
        elif "planes" in entry:
            before = (entry["subject"], entry["session"], entry["sequence"])
            now = dataclasses.astuple(source.identity)
            if before != now:
                raise UserError(
                    f"{source.path}: is in the store as {' '.join(filter(None, before))} and would now be "
                    f"{' '.join(filter(None, now))}; use the same --table, or another --out"
                )
    return todo


def _extract_all(config: SlicesConfig, todo: list[Source], writer: StoreWriter) -> None:
    contents = {entry["content"]: entry for entry in writer.used}
    paths = {entry["path"]: entry for entry in writer.used}
    began = time.monotonic()
    first = writer.slices
    with (
        contextlib.closing(_results(config, todo)) as results,
        bar(total=len(todo), desc="volumes", unit="volume") as progress,
    ):
        for source, result in results:
            key = _key(source)
            reason = result.reason
            if reason and config.strict:
                raise UserError(f"{source.path}: {reason}")
            if twin := contents.get(result.content):
                same = twin["path"] == key["path"]
                reason = "unchanged, though written again" if same else f"the same scan as {twin['source']}"
            elif key["path"] in paths and not reason:
                reason = "changed since its slices were stored; another --out would take it as it is now"
            if reason:
                writer.skip({"source": source.name, "reason": reason, **key})
            else:
                assert result.slices is not None
                entry = {
                    **dataclasses.asdict(source.identity),
                    "source": source.name,
                    "sha256": result.sha256,
                    "content": result.content,
                    **key,
                    "notes": list(result.notes),
                    "planes": list(result.slices.plane),
                    "position_mm": list(result.slices.position_mm),
                    "position": list(result.slices.position),
                }
                writer.add(entry, result.slices.images)
                contents[result.content] = paths[key["path"]] = entry
            progress.update()
            rate = (writer.slices - first) / max(time.monotonic() - began, 1e-9)
            progress.set_postfix_str(f"{writer.slices} slices, {rate:.0f}/s", refresh=False)


def _results(config: SlicesConfig, todo: list[Source]) -> Generator[tuple[Source, _Result], None, None]:
    """Every source with what became of it, in the given order, with few results waiting in memory."""
    workers = min(config.workers or cores(), len(todo))
    if workers <= 1:
        with threadpool_limits(1):  # the same sums in the same order, whatever the number of workers
            for source in todo:
                yield source, _extract_one(source, config)
        return
    # "spawn" copies no state of this process, which may hold TensorFlow and its threads.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    waiting: collections.deque[tuple[Source, Future[_Result]]] = collections.deque()
    rest: Iterable[Source] = iter(todo)
    try:
        while True:
            for source in rest:
                waiting.append((source, pool.submit(_extract_one, source, config)))
                if len(waiting) >= workers * _AHEAD:
                    break
            if not waiting:
                break
            source, future = waiting[0]
            result = future.result()
            waiting.popleft()
            yield source, result
    except BrokenProcessPool:
        names = ", ".join(source.name for source, future in waiting if not _succeeded(future))
        raise UserError(
            f"a worker process died, probably for lack of memory, while reading one of {names}; "
            "run the same command again, it continues (with --workers 1 it needs less memory)"
        ) from None
    finally:
        processes = list((getattr(pool, "_processes", None) or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        if waiting:  # stopped in the middle: don't wait for volumes that nobody wants
            for process in processes:
                with contextlib.suppress(OSError):
                    process.terminate()


def _succeeded(future: Future[_Result]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _start_worker() -> None:
    """Set up a worker: one thread for sums, no traceback at Ctrl-C, no life after its parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threadpool_limits(1)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _extract_one(source: Source, config: SlicesConfig) -> _Result:
    try:
        volume = read_volume(source.files, max_bytes=config.max_mb * 1_000_000)
        slices = cut(volume, config.size, config.spacing, config.planes, config.min_foreground)
    except BadVolume as error:
        return _Result(reason=str(error))
    except MemoryError:
        return _Result(reason="needs more memory than there is")
    return _Result(slices, volume.sha256, volume.content, volume.notes)


def _tell(out: Path, summary: dict[str, Any], seconds: float) -> None:
    def listed(counts: dict[str, int]) -> str:
        return ", ".join(f"{count} {name}" for name, count in counts.items())

    rate = f", {summary['added_slices'] / seconds:.0f} slices/s" if summary["added_slices"] else ""
    say(
        f"{out}: {summary['slices']} slices ({listed(summary['by_plane'])}) of {summary['volumes']} volumes "
        f"and {summary['subjects']} subjects ({listed(summary['by_sequence'])}); "
        f"{summary['added_slices']} new{rate}"
    )
    skipped = summary["skipped"]
    if skipped:
        say(f"{len(skipped)} files skipped, listed in {out / SUMMARY}:")
        reasons = collections.Counter(skip["reason"] for skip in skipped)
        for reason, count in reasons.most_common(8):
            example = next(skip["file"] for skip in skipped if skip["reason"] == reason)
            say(f"  {count} x {reason} (such as {example})" if count > 1 else f"  {example}: {reason}")
        if len(reasons) > 8:
            say(f"  and {math.fsum(count for _, count in reasons.most_common()[8:]):.0f} more")
    say(f"look at {out / CONTACT_SHEET}")
