"""Write a slice store, interruptible at any instant.

Pixels are appended to the last shard and fsynced before the journal line that counts them. Anything in a shard beyond
the journal is cut off at the next start, and a half-written last line is dropped. The manifest, without which a store
is unreadable, is removed before the shards change and written last. Nothing depends on time or on the number of
interruptions, so table and shards are byte-identical.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import IO, Any

import numpy as np

from mri_transfer.datasets.store.journal import Journal
from mri_transfer.datasets.store.ledger import OF_SLICES, Ledger
from mri_transfer.datasets.store.pixels import CHECKSUM, check_shards, checksum_of, remember_shards
from mri_transfer.datasets.store.store import (
    COLUMNS,
    FORMAT,
    JOURNAL,
    KIND,
    MANIFEST,
    REMEDY,
    SHARD_HEADER_BYTES,
    SHARDS,
    TABLE,
    SliceStore,
    fingerprint_of,
    read_manifest,
    shard_header,
    shard_path,
    shard_rows,
)
from mri_transfer.errors import UserError
from mri_transfer.machine.device import versions
from mri_transfer.progress import say
from mri_transfer.storage.files import (
    atomic_write,
    claim_folder,
    fsync_folder,
    names_errors,
    sha256,
    write_card,
)
from mri_transfer.storage.locks import clear_parts, require_here
from mri_transfer.storage.tables import Table

COMMIT_SECONDS = 1.0  # an fsync can take half a second on an SD card; at most this much work is lost


def read_slices(folder: Path, first: int, count: int, size: int) -> np.ndarray:
    """Slices in the shards of a possibly unfinished store: uint8 (count, size, size), or fewer if it has fewer."""
    result = np.empty((count, size, size), dtype=np.uint8)
    position = 0
    while position < count:
        number, row = divmod(first + position, shard_rows(size))
        block = result[position : position + shard_rows(size) - row]
        path = shard_path(folder, number)
        if not path.is_file():
            break
        with path.open("rb") as file:
            file.seek(SHARD_HEADER_BYTES + row * size**2)
            read = file.readinto(block.data) // size**2
        position += read
        if read < len(block):
            break
    return result[:position]


class StoreWriter:
    """Adds volumes to a slice store, one process at a time.

    Attributes:
        ledger: the store's content, and unused files.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]):
        """Claim the folder, or resume an earlier extraction with the same settings.

        Raises:
            UserError: the folder holds something else, other settings, is damaged, or is being written to.
        """
        self.folder = Path(folder)
        claim_folder(self.folder, KIND)
        self.ledger = Ledger(self.folder)
        self._size = int(settings["size"])
        self._rows = shard_rows(self._size)
        self._shard: IO[bytes] | None = None
        self._shard_number = -1
        self._full_shards: dict[str, str] = {}  # name: SHA-256; full shards never change again
        self._verified = 0  # volumes whose pixels were verified
        self._committed = time.monotonic()
        self._changed = False
        self._journal = Journal(self.folder / JOURNAL)
        clear_parts(self.folder)
        try:
            self._replay(settings)
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
            if kind is not None and issubclass(kind, Exception):
                require_here(self.folder)

    @property
    def slices(self) -> int:
        """Number of slices in the store."""
        return self.ledger.slices

    @property
    def changed(self) -> bool:
        """Whether there is anything for :meth:`finish` to write."""
        return self._changed or not (self.folder / MANIFEST).is_file()

    def add(self, entry: dict[str, Any], images: np.ndarray) -> None:
        """Append one volume.

        Args:
            entry: a journal entry with subject, session, sequence, source, sha256, and for each slice its plane
                ("planes"), "position_mm" and "position".
            images: uint8 (n, size, size).
        """
        if self._shard is None:
            self._cut_leftovers()
        first = self.slices
        images = np.ascontiguousarray(images)
        position = 0
        while position < len(images):
            number, row = divmod(first + position, self._rows)
            block = images[position : position + self._rows - row]
            file = self._open_shard(number)
            with names_errors(file.name):
                file.seek(SHARD_HEADER_BYTES + row * self._size**2)
                file.write(block.data)
            position += len(block)
        self._log("volume", {**entry, "first": first, CHECKSUM: checksum_of(images)})

    def skip(self, entry: dict[str, Any]) -> None:
        """Note an unused file; `entry` has "source" and "reason"."""
        self._log("skipped", entry)

    def recognise(self, entry: dict[str, Any]) -> None:
        """Note a file with a volume of the store under another name or date; `entry` has "path"."""
        self._log("known", entry)

    def forget(self, path: str) -> None:
        """Take a file off the list of skipped ones: it is gone."""
        self._log("gone", {"path": path})

    def read(self, first: int, count: int) -> np.ndarray:
        """Slices that are already in the store: uint8 (count, size, size)."""
        if self._shard is not None:
            self._shard.flush()
        return read_slices(self.folder, first, count, self._size)

    def commit(self) -> None:
        """Make everything so far survive a power cut: first pixels, then the lines that count them."""
        if self._shard is not None:
            with names_errors(self._shard.name):
                self._shard.flush()
                os.fsync(self._shard.fileno())
        self._journal.commit()
        self._committed = time.monotonic()

    def finish(self) -> dict[str, Any]:
        """Write table and manifest.

        Returns:
            The manifest.
        """
        self.commit()
        manifest_path = self.folder / MANIFEST
        if not self.changed:
            # The journal's own account: nothing vouches for a manifest's entries beyond the store's content.
            return {**SliceStore.open(self.folder).manifest, **self.ledger.about()}
        if self._shard is not None:
            self._shard.close()
            self._shard, self._shard_number = None, -1
        self._cut_leftovers()
        self._verify_volumes()
        shards = [self._finish_shard(number) for number in range(-(-self.slices // self._rows))]
        table = self.folder / TABLE
        with names_errors(table), atomic_write(table) as text:
            self._write_table(text)
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "settings": self._settings(),
            "table": {"file": TABLE, "sha256": sha256(table)},
            "shards": shards,
        }
        manifest["fingerprint"] = fingerprint_of(manifest)
        manifest |= {"versions": versions(), **self.ledger.about()}
        with names_errors(manifest_path):
            write_card(manifest_path, manifest)
        remember_shards(self.folder, shards)
        self._changed = False
        return manifest

    def _settings(self) -> dict[str, Any]:
        return {key: value for key, value in self.ledger.settings.items() if key != "format"}

    def _verify_volumes(self) -> None:
        """Check that only pixels as they were cut are signed, whichever process wrote them.

        Raises:
            UserError: a volume's pixels have changed since.
        """
        unknown = 0
        for entry in self.ledger.used[self._verified :]:
            count = sum(number for _, number in entry["runs"])
            if CHECKSUM not in entry:
                unknown += 1
            elif checksum_of(read_slices(self.folder, entry["first"], count, self._size)) != entry[CHECKSUM]:
                path = shard_path(self.folder, entry["first"] // self._rows)
                raise UserError(f"{path}: damaged, the slices of {entry['source']} have changed; {REMEDY}")
        if unknown:
            say(
                f"{self.folder}: {unknown} volumes were cut by an older version, which kept no checksums: their pixels "
                "can't be verified"
            )
        self._verified = len(self.ledger.used)

    def _finish_shard(self, number: int) -> dict[str, Any]:
        """Update a shard's header to its number of slices; returns its manifest entry."""
        rows = min(self._rows, self.slices - number * self._rows)
        path = shard_path(self.folder, number)
        name = path.relative_to(self.folder).as_posix()
        if name not in self._full_shards:
            with names_errors(path), path.open("r+b") as file:
                if file.read(SHARD_HEADER_BYTES) != shard_header(rows, self._size):
                    file.seek(0)
                    file.write(shard_header(rows, self._size))
                    file.flush()
                    os.fsync(file.fileno())
        return {"file": name, "slices": rows, "sha256": self._full_shards.get(name) or sha256(path)}

    def _replay(self, settings: dict[str, Any]) -> None:
        """Load the journal, and check that the shards hold what it counts."""
        self.ledger.replay(self._journal.replay())
        if not self.ledger.settings:
            self._log("settings", {"format": FORMAT, **settings})
            self.commit()
            return
        self.ledger.check_settings(settings)
        self._check_shards()
        manifest = self.folder / MANIFEST
        if not manifest.is_file():
            self._changed = True
            return
        content = read_manifest(manifest)
        check_shards(self.folder, content["shards"], REMEDY)
        self._verified = len(self.ledger.used)
        expected = {"settings": self._settings(), **self.ledger.about()}
        self._changed = any(content.get(key) != value for key, value in expected.items())
        full = self.slices // self._rows
        names = {
            shard_path(self.folder, number).relative_to(self.folder).as_posix() for number in range(full)
        }
        self._full_shards = {
            shard["file"]: shard["sha256"]
            for shard in content["shards"]
            if shard["file"] in names and shard.get("sha256")
        }

    def _check_shards(self) -> None:
        """Check that no shard holds less than the journal counts."""
        last, rows = divmod(self.slices, self._rows)
        for number in range(last + bool(rows)):
            path = shard_path(self.folder, number)
            needed = SHARD_HEADER_BYTES + (self._rows if number < last else rows) * self._size**2
            if not path.is_file() or path.stat().st_size < needed:
                state = "shorter than the journal says" if path.is_file() else "missing"
                raise UserError(f"{path}: {state}; remove the store and extract it again")

    def _cut_leftovers(self) -> None:
        """Remove the manifest, marking the store unfinished, and pixels that no journal line counts."""
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
            with names_errors(path):
                self._shard = path.open("w+b" if new else "r+b")
                if new:
                    self._shard.write(shard_header(self._rows, self._size))
                    fsync_folder(path.parent)
            self._shard_number = number
        return self._shard

    def _log(self, kind: str, entry: dict[str, Any]) -> None:
        self._changed = True
        self.ledger.note(kind, entry)
        self._journal.log(kind, entry)
        if time.monotonic() - self._committed >= COMMIT_SECONDS:
            self.commit()

    def _write_table(self, file: IO[str]) -> None:
        """From the journal, as a table of millions of slices would fill memory."""
        table = Table(file, COLUMNS)
        number = 0
        for entry in self._journal.replay():
            if entry["kind"] == "volume":
                identity = [entry["subject"], entry["session"], entry["sequence"]]
                for slice_fields in zip(*(entry[key] for key in OF_SLICES), strict=True):
                    table.write([*identity, *slice_fields, number, entry["source"], entry["sha256"]])
                number += 1
