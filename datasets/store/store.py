"""A slice store on disk, opened for reading.

STORE/folder.json       what the folder is
STORE/manifest.json     settings, versions, counts, hashes of all the rest, skipped files; written last
STORE/slices.csv        one row a slice: whose, which plane, where, from which file
STORE/shards/00000.npy  uint8 (n, size, size); slice i of the table is row i % k of shard i // k
STORE/volumes.jsonl     the journal of the extraction, one line a file
STORE/verified.json     which shards were read and found whole, see pixels.py
STORE/contact_sheet.png, STORE/summary.html, STORE/summary.json

Slices are read with one system call each, not from a memory map. A map is up to 50% faster for pages already mapped,
but less than half as fast for new ones; and a truncated file or failing disk ends the process with a bus error instead
of a message.
"""

from __future__ import annotations

import csv
import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer.datasets.store.pixels import check_shards
from mri_transfer.errors import UserError
from mri_transfer.storage.files import Kind, read_object, require_folder, sha256, to_json, wrong_fields
from mri_transfer.storage.tables import restored

KIND = "slice store"
FORMAT = 1
MANIFEST = "manifest.json"
TABLE = "slices.csv"
JOURNAL = "volumes.jsonl"
SHARDS = "shards"
MANIFEST_KINDS: dict[str, Kind] = {
    **{"format": int, "settings": {"size": int}, "table": {"sha256": str}, "fingerprint": str},
    "shards": [{"file": str, "slices": int}],
}
_WHERE_GIVEN: dict[str, Kind] = {"counts": dict, "versions": dict, "asked_for": [str]}
COLUMNS = (
    *("subject", "session", "sequence", "plane", "position_mm", "position"),
    *("volume", "source", "source_sha256"),
)
SHARD_HEADER_BYTES = 128
_SHARD_BYTES = 1 << 27
_MOST_PIXELS = 100_000  # of a slice's side
REMEDY = "remove the store and extract it again"


def shard_rows(size: int) -> int:
    """Slices in a full shard: as many as fit into 128 MiB."""
    return max(1, _SHARD_BYTES // (size * size))


def shard_path(folder: Path, number: int) -> Path:
    """The path of shard `number`."""
    return Path(folder) / SHARDS / f"{number:05d}.npy"


def shard_header(rows: int, size: int) -> bytes:
    """The header of an `.npy` file (format 1.0), with a length independent of the number of rows.

    So a shard can grow without being rewritten.
    """
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({rows}, {size}, {size}), }}"
    length = SHARD_HEADER_BYTES - 10
    return b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + f"{text:<{length - 1}}\n".encode("latin1")


def fingerprint_of(manifest: dict[str, Any]) -> str:
    """Identity of a store's content: the same for the same settings, table and pixels, on any machine."""
    content = {key: manifest[key] for key in ("format", "settings", "table", "shards")}
    return hashlib.sha256(to_json(content, indent=None).encode()).hexdigest()


def read_manifest(path: Path) -> dict[str, Any]:
    """A store's manifest, and whether its shards can be those of a store.

    Raises:
        UserError: it is damaged, or of another format.
    """
    manifest = read_object(path, MANIFEST_KINDS, remedy=REMEDY)
    if manifest["format"] != FORMAT:
        raise UserError(f"{path}: store format {manifest['format']}, and this version reads {FORMAT}")
    if fingerprint_of(manifest) != manifest["fingerprint"]:
        raise UserError(f"{path}: was changed after it was written; {REMEDY}")
    if wrong := wrong_fields(manifest, {}, _WHERE_GIVEN):
        raise UserError(f"{path}: is damaged ({', '.join(wrong)}); {REMEDY}")
    if not 0 < manifest["settings"]["size"] <= _MOST_PIXELS:
        raise UserError(f"{path}: is damaged (settings: size); {REMEDY}")
    full = shard_rows(manifest["settings"]["size"])
    for number, shard in enumerate(manifest["shards"], 1):
        slices, last = shard["slices"], number == len(manifest["shards"])
        name = shard_path(Path(), number - 1).as_posix()
        if shard["file"] != name or not (0 < slices <= full if last else slices == full):
            raise UserError(f"{path}: is damaged (shards: number {number}); {REMEDY}")
    return manifest


class SliceStore:
    """Slices in shards on disk, with a table that says where each comes from.

    Attributes:
        folder: the store's.
        manifest: settings, versions, counts, hashes and skipped files.
        fingerprint: identity of the content, for provenance.
        table: one array per column, one entry per slice: subject, session, sequence, plane, position_mm (float),
            position (float, 0..1 of the volume), volume (int, index into `volumes`), source, source_sha256.
        volumes: one dictionary per volume: subject, session, sequence, source, source_sha256.
    """

    def __init__(
        self, folder: Path, manifest: dict[str, Any], table: dict[str, np.ndarray], volumes: list[dict]
    ):
        self.folder = Path(folder)
        self.manifest = manifest
        self.fingerprint: str = manifest["fingerprint"]
        self.table = table
        self.volumes = volumes
        self._size = int(manifest["settings"]["size"])
        self._rows = shard_rows(self._size)
        self._open: dict[int, _Shard] = {}
        self._most_open = _open_shards()

    @classmethod
    def open(cls, folder: Path) -> SliceStore:
        """Open a finished store, checking that its table, shards and manifest belong together.

        The table is hashed; only sizes and headers of the shards are checked: :meth:`check_pixels` reads changed ones,
        :meth:`verify` all of them.

        Raises:
            UserError: it is not a store, unfinished or damaged; the message names the file.
        """
        folder = require_folder(folder, KIND, "slices")
        path = folder / MANIFEST
        if not path.is_file():
            raise UserError(
                f"{folder}: this slice store is not finished; run the same `mri-transfer slices` again"
            )
        manifest = read_manifest(path)
        for shard in manifest["shards"]:
            _check_shard(folder / shard["file"], shard["slices"], manifest["settings"]["size"])
        rows = sum(shard["slices"] for shard in manifest["shards"])
        table, volumes = _read_table(folder / TABLE, manifest["table"], rows)
        return cls(folder, manifest, table, volumes)

    @property
    def size(self) -> int:
        """Side of a slice, pixels."""
        return self._size

    def __len__(self) -> int:
        return len(self.table["volume"])

    def images(self, indices: np.ndarray | list[int] | slice) -> np.ndarray:
        """Slices by their row in the table, in the order requested.

        Returns:
            uint8 (n, size, size), a copy.

        Raises:
            IndexError: there is no such slice.
        """
        if isinstance(indices, slice):
            indices = np.arange(*indices.indices(len(self)))
        positions = np.asarray(indices, dtype=np.intp).reshape(-1)
        if positions.size and not (positions.min() >= 0 and positions.max() < len(self)):
            raise IndexError(f"slices are numbered 0 to {len(self) - 1}")
        result = np.empty((len(positions), self._size, self._size), dtype=np.uint8)
        order = np.argsort(
            positions, kind="stable"
        )  # in file order, which suits disks and doesn't matter in memory
        numbers, rows = np.divmod(positions[order], self._rows)
        offsets = SHARD_HEADER_BYTES + rows * self._size**2
        places = list(result)
        for place, number, offset in zip(order.tolist(), numbers.tolist(), offsets.tolist(), strict=True):
            self._shard(number).read_into(places[place], offset)
        return result

    def _shard(self, number: int) -> _Shard:
        shard = self._open.get(number)
        if shard is None:
            # A file another thread is reading stays open until it is done: its own reference keeps it.
            while len(self._open) >= self._most_open:
                self._open.pop(next(iter(self._open)), None)
            shard = self._open[number] = _Shard(self.folder / self.manifest["shards"][number]["file"])
        return shard

    def check_pixels(self) -> None:
        """Reread shards changed since they were last read, before anything relies on them.

        Raises:
            UserError: one is damaged; the message names it.
        """
        check_shards(self.folder, self.manifest["shards"], REMEDY)

    def verify(self) -> None:
        """Reread everything and compare it with the hashes in the manifest.

        Raises:
            UserError: a file is damaged; the message names it.
        """
        check_shards(self.folder, self.manifest["shards"], REMEDY, again=True)
        path = self.folder / TABLE
        if sha256(path) != self.manifest["table"]["sha256"]:
            raise UserError(f"{path}: damaged, its SHA-256 differs from the manifest's; {REMEDY}")


def _open_shards() -> int:
    """Number of files a store keeps open: a quarter of the process's limit, often 256 of 1,024."""
    try:
        import resource
    except ImportError:  # Windows
        return 128
    return max(8, min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4))


class _Shard:
    """A file read at given offsets, by any number of threads."""

    def __init__(self, path: Path):
        self.path = path
        self._file = path.open("rb", buffering=0)
        self._lock = threading.Lock()

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    def read_into(self, place: np.ndarray, offset: int) -> None:
        """Fill a contiguous array with the bytes from `offset`."""
        if hasattr(os, "preadv"):
            count = os.preadv(self._file.fileno(), [place.data], offset)
        else:  # Windows
            with self._lock:
                self._file.seek(offset)
                count = self._file.readinto(place.data) or 0
        if count != place.nbytes:
            raise UserError(f"{self.path}: shorter than when it was opened; {REMEDY}")


def _check_shard(path: Path, rows: int, size: int) -> None:
    """Check that a shard has the size and header stated by the manifest."""
    if not path.is_file():
        raise UserError(f"{path}: missing; {REMEDY}")
    expected = SHARD_HEADER_BYTES + rows * size * size
    if path.stat().st_size != expected:
        raise UserError(f"{path}: {path.stat().st_size} bytes instead of {expected}; {REMEDY}")
    with path.open("rb") as file:
        if file.read(SHARD_HEADER_BYTES) != shard_header(rows, size):
            raise UserError(f"{path}: header does not say {rows} slices of {size} x {size} pixels; {REMEDY}")


def _read_table(
    path: Path, entry: dict[str, Any], rows: int
) -> tuple[dict[str, np.ndarray], list[dict[str, str]]]:
    if not path.is_file():
        raise UserError(f"{path}: missing; {REMEDY}")
    if sha256(path) != entry["sha256"]:
        raise UserError(f"{path}: was changed after it was written; {REMEDY}")
    volume = np.empty(rows, dtype=np.int64)
    millimetres, fraction = np.empty(rows), np.empty(rows)
    planes: list[str] = []
    volumes: list[dict[str, str]] = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            if tuple(next(reader, ())) != COLUMNS:
                raise UserError(f"{path}: its columns are not {', '.join(COLUMNS)}; {REMEDY}")
            for index, row in enumerate(reader):
                if index >= rows:
                    raise UserError(f"{path}: more rows than the {rows} slices in the shards; {REMEDY}")
                subject, session, sequence, plane, mm, position, number, source, digest = row
                volume[index], millimetres[index], fraction[index] = int(number), float(mm), float(position)
                planes.append(plane)
                if volume[index] == len(volumes):
                    keys = ("subject", "session", "sequence", "source", "source_sha256")
                    texts = map(restored, (subject, session, sequence, source, digest))
                    volumes.append(dict(zip(keys, texts, strict=True)))
                if not 0 <= volume[index] < len(volumes):
                    raise ValueError(f"volume {number} behind volume {len(volumes) - 1}")
    except (ValueError, IndexError, OverflowError, csv.Error) as error:
        raise UserError(f"{path}: damaged ({' '.join(str(error).split())[:100]}); {REMEDY}") from None
    if len(planes) != rows:
        raise UserError(f"{path}: {len(planes)} rows for the {rows} slices in the shards; {REMEDY}")
    table: dict[str, np.ndarray] = {"plane": np.array(planes, dtype=str)}
    for key in ("subject", "session", "sequence"):
        table[key] = np.array([entry[key] for entry in volumes], dtype=str)[volume]
    for key in (
        "source",
        "source_sha256",
    ):  # long and shared by many rows: references, not copies of the text
        table[key] = np.array([entry[key] for entry in volumes], dtype=object)[volume]
    table |= {"position_mm": millimetres, "position": fraction, "volume": volume}
    return {key: table[key] for key in COLUMNS}, volumes
