"""Verify a store's pixels: read once per change, before anything relies on them.

STORE/verified.json lists the shards found intact, with their size, times and inode at that time: while these stay the
same, a shard isn't read again. Without the file, or if it can't be written, all shards are.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mri_transfer import progress
from mri_transfer.errors import UserError
from mri_transfer.storage.files import object_or_none, sha256, write_card

VERIFIED = "verified.json"
CHECKSUM = "pixels"  # of a volume's slices, in its journal line


def checksum_of(images: Any) -> int:
    """CRC-32 of contiguous uint8 slices."""
    return zlib.crc32(images)


def _stamp(path: Path) -> list[int]:
    """Changes when a file's bytes do, unless someone hides it or the disk decays."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def check_shards(folder: Path, shards: Iterable[Mapping[str, Any]], remedy: str, again: bool = False) -> None:
    """Check that shards match a manifest; those unchanged since last read are not read again.

    Args:
        folder: the store's.
        shards: the manifest's entries: "file" and "sha256".
        remedy: ends an error message.
        again: whether to reread all of them.

    Raises:
        UserError: one does not; the message names it.
    """
    folder = Path(folder)
    stamps = _read_stamps(folder)
    digests = {shard["file"]: shard.get("sha256") for shard in shards}
    if unknown := [name for name, digest in digests.items() if digest is None]:
        progress.say(
            f"{folder}: has no checksums of {len(unknown)} shards, so their pixels can't be verified"
        )
    todo = [
        (name, digest)
        for name, digest in digests.items()
        if digest is not None and (again or stamps.get(name) != [*_stamp(folder / name), digest])
    ]
    for name, digest in progress.bar(todo, desc="verifying slices", unit="shard"):
        stamp = _stamp(folder / name)
        if sha256(folder / name) != digest:
            raise UserError(f"{folder / name}: damaged, its SHA-256 differs from the manifest's; {remedy}")
        stamps[name] = [*stamp, digest]
    if todo:
        _remember(folder, {name: stamps[name] for name in digests if name in stamps})


def remember_shards(folder: Path, shards: Iterable[Mapping[str, Any]]) -> None:
    """Record that shards were just found intact."""
    _remember(folder, {shard["file"]: [*_stamp(folder / shard["file"]), shard["sha256"]] for shard in shards})


def _read_stamps(folder: Path) -> dict[str, Any]:
    shards = (object_or_none(folder / VERIFIED) or {}).get("shards")
    return shards if isinstance(shards, dict) else {}


def _remember(folder: Path, shards: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError):  # a read-only or full disk: they will be reread next time
        write_card(folder / VERIFIED, {"shards": shards})
