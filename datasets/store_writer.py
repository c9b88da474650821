"""Writing a slice store so that it can be interrupted at any instant.

Pixels go to the end of the last shard and are fsynced before the journal's line that counts them. What a
shard holds beyond the journal is cut off at the next start, and a half-written last line is dropped. The
manifest, which alone makes a store readable, is taken away before the shards change and written last. Nothing
depends on time or on how often the work was interrupted, so table and shards come out identical to the last
byte.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from mri_transfer.datasets.store import (
    COLUMNS,
    FORMAT,
    JOURNAL,
    KIND,
    MANIFEST,
    SHARD_HEADER_BYTES,
    SHARDS,
    TABLE,
    SliceStore,
    fingerprint_of,
    shard_header,
    shard_path,
    shard_rows,
)
from mri_transfer.device import versions
from mri_transfer.errors import UserError
from mri_transfer.files import (
    atomic_write,
    claim_folder,
    fsync_folder,
    read_json,
    sha256,
    to_json,
    write_json,
)

COMMIT_SECONDS = 1.0  # an fsync can take half a second on an SD card; at most this much work is lost


class StoreWriter:
    """Adds volumes to a slice store, one process at a time.

    Attributes:
        used: journal entries of the volumes in the store, in order.
        slices: how many slices the used volumes have.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]):
        """Claim the folder, or go on where a former extraction with the same settings ended.

        Raises:
            UserError: the folder holds something else, other settings, is damaged, or is being written to.
        """
        self.folder = Path(folder)
        claim_folder(self.folder, KIND)
        self.settings = settings
        self.used: list[dict[str, Any]] = []
        self._skips: dict[str, dict[str, Any]] = {}
        self._size = int(settings["size"])
        self._rows = shard_rows(self._size)
        self.slices = 0
        self._pending = b""
        self._shard: IO[bytes] | None = None
        self._shard_number = -1
        self._committed = time.monotonic()
        self._changed = False
        self._journal = (self.folder / JOURNAL).open("a+b")
        try:
            _lock(self._journal, self.folder)
            self._replay()
        except BaseException:
            self._journal.close()
            raise

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None or not issubclass(kind, OSError):  # a full disk won't take more
                self.commit()
        finally:
            if self._shard is not None:
                with contextlib.suppress(OSError):
                    self._shard.close()
            with contextlib.suppress(OSError):
                self._journal.close()

    @property
    def skipped(self) -> list[dict[str, Any]]:
        """Journal entries of files that are not used, in order."""
        return list(self._skips.values())

    def add(self, entry: dict[str, Any], images: np.ndarray) -> None:
        """Append one volume.

        Args:
            entry: a journal entry with subject, session, sequence, source, sha256, and of each slice its
                plane ("planes"), "position_mm" and "position".
            images: uint8 (n, size, size).
        """
        if self._shard is None:
            self._cut_leftovers()
        first = self.slices
        images = np.ascontiguousarray(images)
        done = 0
        while done < len(images):
            number, row = divmod(first + done, self._rows)
            part = images[done : done + self._rows - row]
            file = self._open_shard(number)
            with _named(file.name):
                file.seek(SHARD_HEADER_BYTES + row * self._size**2)
                file.write(part.data)
            done += len(part)
        self.used.append(entry)
        self.slices += len(images)
        self._skips.pop(entry.get("path", ""), None)
        self._log({"kind": "volume", **entry})

    def skip(self, entry: dict[str, Any]) -> None:
        """Note a file that is not used; `entry` has "source" and "reason"."""
        self._keep_skip(entry)
        self._log({"kind": "skipped", **entry})

    def _keep_skip(self, entry: dict[str, Any]) -> None:
        key = entry.get("path") or f"{entry['source']}: {entry['reason']}"
        self._skips.pop(key, None)  # the latest word on a file counts
        self._skips[key] = entry

    def commit(self) -> None:
        """Make everything so far survive a power cut: first the pixels, then the lines that count them."""
        if self._shard is not None:
            with _named(self._shard.name):
                self._shard.flush()
                os.fsync(self._shard.fileno())
        if self._pending:
            with _named(self._journal.name):
                self._journal.write(self._pending)
                self._journal.flush()
                os.fsync(self._journal.fileno())
            self._pending = b""
        self._committed = time.monotonic()

    def finish(self) -> dict[str, Any]:
        """Write table and manifest.

        Returns:
            The manifest.
        """
        self.commit()
        manifest_path = self.folder / MANIFEST
        if not self._changed and manifest_path.is_file():
            return SliceStore.open(self.folder).manifest
        if self._shard is not None:
            self._shard.close()
            self._shard, self._shard_number = None, -1
        self._cut_leftovers()
        shards = []
        for number in range(-(-self.slices // self._rows)):
            rows = min(self._rows, self.slices - number * self._rows)
            path = shard_path(self.folder, number)
            with _named(path), path.open("r+b") as file:
                if file.read(SHARD_HEADER_BYTES) != shard_header(rows, self._size):
                    file.seek(0)
                    file.write(shard_header(rows, self._size))
                    file.flush()
                    os.fsync(file.fileno())
            name = path.relative_to(self.folder).as_posix()
            shards.append({"file": name, "slices": rows, "sha256": sha256(path)})
        table = self.folder / TABLE
        with _named(table), atomic_write(table) as text:
            self._write_table(text)
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "settings": self.settings,
            "table": {"file": TABLE, "sha256": sha256(table)},
            "shards": shards,
        }
        manifest["fingerprint"] = fingerprint_of(manifest)
        manifest["counts"] = self.counts()
        manifest["versions"] = versions()
        manifest["notes"] = [
            {"file": entry["source"], "note": note} for entry in self.used for note in entry.get("notes", ())
        ]
        manifest["skipped"] = [{"file": entry["source"], "reason": entry["reason"]} for entry in self.skipped]
        with _named(manifest_path):
            write_json(manifest_path, manifest)
        self._changed = False
        return manifest

    def counts(self) -> dict[str, Any]:
        """Slices, volumes and subjects, in all and by plane and sequence."""
        planes: dict[str, int] = {}
        sequences: dict[str, int] = {}
        for entry in self.used:
            for plane in entry["planes"]:
                planes[plane] = planes.get(plane, 0) + 1
            sequences[entry["sequence"]] = sequences.get(entry["sequence"], 0) + len(entry["planes"])
        return {
            "slices": self.slices,
            "volumes": len(self.used),
            "subjects": len({entry["subject"] for entry in self.used}),
            "by_plane": dict(sorted(planes.items())),
            "by_sequence": dict(sorted(sequences.items())),
            "skipped": len(self.skipped),
        }

    def _replay(self) -> None:
        """Read the journal, drop a torn last line, and see that the shards hold what it counts."""
        self._journal.seek(0)
        content = self._journal.read()
        whole = content[: content.rfind(b"\n") + 1]
        try:
            entries = [json.loads(line) for line in whole.splitlines()]
            kinds = [entry.pop("kind") for entry in entries]
        except (ValueError, KeyError, AttributeError):
            raise UserError(
                f"{self.folder / JOURNAL}: damaged; choose another --out, or remove the store"
            ) from None
        if len(whole) < len(content):
            os.ftruncate(self._journal.fileno(), len(whole))
        if not entries:
            self._changed = True
            self._log({"kind": "settings", "format": FORMAT, **self.settings})
            self.commit()
            return
        self._check_settings(entries[0])
        for kind, entry in zip(kinds[1:], entries[1:], strict=True):
            if kind == "volume":
                self.used.append(entry)
                self.slices += len(entry["planes"])
                self._skips.pop(entry.get("path", ""), None)
            else:
                self._keep_skip(entry)
        self._check_shards()
        manifest = self.folder / MANIFEST
        told = read_json(manifest).get("counts", {}) if manifest.is_file() else {}
        self._changed = (told.get("slices"), told.get("skipped")) != (self.slices, len(self.skipped))

    def _check_settings(self, before: dict[str, Any]) -> None:
        now = {"format": FORMAT, **self.settings}
        differing = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
        if differing:
            what = ", ".join(
                f"{key} {_text(before.get(key))} and not {_text(now.get(key))}" for key in differing
            )
            raise UserError(f"{self.folder}: was made with {what}; use the same settings or another --out")

    def _check_shards(self) -> None:
        """See that no shard holds less than the journal counts."""
        last, rows = divmod(self.slices, self._rows)
        for number in range(last + bool(rows)):
            path = shard_path(self.folder, number)
            needed = SHARD_HEADER_BYTES + (self._rows if number < last else rows) * self._size**2
            if not path.is_file() or path.stat().st_size < needed:
                state = "shorter than the journal says" if path.is_file() else "missing"
                raise UserError(f"{path}: {state}; remove the store and extract it again")

    def _cut_leftovers(self) -> None:
        """Take away the manifest, so that the store is unfinished, and pixels that no journal line counts."""
        (self.folder / MANIFEST).unlink(missing_ok=True)
        folder = self.folder / SHARDS
        folder.mkdir(exist_ok=True)
        fsync_folder(self.folder)
        last, rows = divmod(self.slices, self._rows)
        for path in sorted(folder.glob("*.npy")):
            if int(path.stem) > last or (int(path.stem) == last and rows == 0):
                path.unlink()
        if rows:
            os.truncate(shard_path(self.folder, last), SHARD_HEADER_BYTES + rows * self._size**2)

    def _open_shard(self, number: int) -> IO[bytes]:
        if self._shard is None or number != self._shard_number:
            if self._shard is not None:
                self.commit()
                self._shard.close()
            path = shard_path(self.folder, number)
            new = not path.is_file()
            with _named(path):
                self._shard = path.open("w+b" if new else "r+b")
                if new:
                    self._shard.write(shard_header(self._rows, self._size))
                    fsync_folder(path.parent)
            self._shard_number = number
        return self._shard

    def _log(self, entry: dict[str, Any]) -> None:
        self._changed = True
        self._pending += to_json(entry, indent=None).encode() + b"\n"
        if time.monotonic() - self._committed >= COMMIT_SECONDS:
            self.commit()

    def _write_table(self, file: IO[str]) -> None:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for number, entry in enumerate(self.used):
            whose = [entry["subject"], entry["session"], entry["sequence"]]
            for where in zip(entry["planes"], entry["position_mm"], entry["position"], strict=True):
                writer.writerow([*whose, *where, number, entry["source"], entry["sha256"]])


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


@contextlib.contextmanager
def _named(path: str | Path) -> Iterator[None]:
    """Give an error of a write the file's name, which the operating system leaves out."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from None
        raise


def _lock(journal: IO[bytes], folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UserError(f"{folder}: another process is writing to this store; wait for it to end") from None
