"""Speed of reading random batches from a slice store of a thousand to a million slices, beside other readers.

    python benchmarks/store.py [--slices 1000,10000,100000,1000000] [--size 160] [--batch 256] [--warm 1000]

The stores are sparse: a million slices of 160 px claim 25.6 GB but only use what is read. A batch is drawn at random
from 1,000 slices (`--warm`) of ten volumes anywhere in the store, read once beforehand so that all come from the page
cache, as in a training's second epoch on a machine with enough memory. Their number is the same at every size, to
compare sizes rather than whether a store fits into the CPU cache. All sizes and readers take turns, a few batches each,
comparing medians of CPU time (all threads; nothing waits for a disk), so that other load affects them alike. Others: a
memory map of each shard with NumPy's indexing, and one HDF5 file (if h5py is installed), slice by slice and with h5py's
list of indices.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from mri_transfer.datasets.store.store import (
    COLUMNS,
    FORMAT,
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
from mri_transfer.storage.files import claim_folder, sha256, write_json

ROUNDS, IN_A_ROW = 25, 12
OF_A_VOLUME = 100  # slices

Reader = Callable[[np.ndarray], np.ndarray]


def make_store(folder: Path, slices: int, size: int) -> SliceStore:
    """A store with sparse pixels and the table of a collection with two scans per subject."""
    claim_folder(folder, KIND)
    (folder / SHARDS).mkdir()
    rows = shard_rows(size)
    shards = []
    for number in range(-(-slices // rows)):
        count = min(rows, slices - number * rows)
        path = shard_path(folder, number)
        with path.open("wb") as file:
            file.write(shard_header(count, size))
            file.truncate(SHARD_HEADER_BYTES + count * size * size)
        shards.append({"file": path.relative_to(folder).as_posix(), "slices": count, "sha256": "0" * 64})
    with (folder / TABLE).open("w", newline="") as text:
        table = csv.writer(text, lineterminator="\n")
        table.writerow(COLUMNS)
        for index in range(slices):
            volume, place = divmod(index, OF_A_VOLUME)
            plane = ("axial", "coronal", "sagittal")[place * 3 // OF_A_VOLUME]
            subject, sequence = f"sub-{volume // 2:05d}", ("T1", "T2")[volume % 2]
            name = f"collection/{subject}/anat/{subject}_{sequence}w.nii.gz"
            position = (-60.0 + 4 * (place % 34), round((place % 34 + 0.5) / 34, 5))
            table.writerow([subject, "", sequence, plane, *position, volume, name, f"{volume:064x}"])
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "settings": {"size": size},
        "table": {"file": TABLE, "sha256": sha256(folder / TABLE)},
        "shards": shards,
    }
    write_json(folder / MANIFEST, {**manifest, "fingerprint": fingerprint_of(manifest)})
    return SliceStore.open(folder)


def memory_maps(store: SliceStore) -> Reader:
    rows, size = shard_rows(store.size), store.size
    maps = [
        np.load(store.folder / shard["file"], mmap_mode="r", allow_pickle=False)
        for shard in store.manifest["shards"]
    ]

    def read(indices: np.ndarray) -> np.ndarray:
        result = np.empty((len(indices), size, size), dtype=np.uint8)
        numbers, places = np.divmod(indices, rows)
        for number in np.unique(numbers):
            mask = numbers == number
            result[mask] = maps[number][places[mask]]
        return result

    return read


def hdf5(path: Path, slices: int, size: int) -> dict[str, Reader]:
    """Readers of one contiguous HDF5 data set, equally sparse."""
    try:
        import h5py
    except ImportError:
        return {}
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple((slices, size, size))
        h5py.h5d.create(file.id, b"slices", h5py.h5t.NATIVE_UINT8, space, creation)
    data = h5py.File(path, "r")["slices"]

    def one_by_one(indices: np.ndarray) -> np.ndarray:
        return np.stack([data[index] for index in indices.tolist()])

    def by_list(indices: np.ndarray) -> np.ndarray:
        sorted_once, places = np.unique(indices, return_inverse=True)
        return data[sorted_once][places]

    return {"h5py, slice by slice": one_by_one, "h5py, list of indices": by_list}


class Size:
    """A store of one size, its readers, and their timings."""

    def __init__(self, folder: Path, slices: int, size: int, warm: int):
        self.slices = slices
        make_store(folder / "store", slices, size)
        started = time.perf_counter()
        store = SliceStore.open(folder / "store")
        self.opening = time.perf_counter() - started
        self.readers = {"store": store.images, "memory maps": memory_maps(store)}
        self.readers |= hdf5(folder / "slices.h5", slices, size)
        self.rates: dict[str, list[float]] = {name: [] for name in self.readers}
        self.rng = np.random.default_rng(0)
        volumes = self.rng.choice(slices // OF_A_VOLUME, min(slices, warm) // OF_A_VOLUME, replace=False)
        self.warm = (np.sort(volumes)[:, None] * OF_A_VOLUME + np.arange(OF_A_VOLUME)).reshape(-1)
        for read in self.readers.values():
            for start in range(0, len(self.warm), 256):
                read(self.warm[start : start + 256])

    def round(self, batch: int) -> None:
        """A few consecutive batches per reader; the first ones warm up the CPU caches."""
        for name, read in self.readers.items():
            for number in range(IN_A_ROW):
                indices = self.rng.choice(self.warm, batch)
                started = time.process_time()
                read(indices)
                if number >= IN_A_ROW // 3:
                    self.rates[name].append(batch / (time.process_time() - started))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", default="1000,10000,100000,1000000", help="sizes of the stores")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--warm", type=int, default=1000, help="slices that batches are drawn from")
    parser.add_argument("--folder", type=Path, help="where to make the stores (on a file system with holes)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        sizes = []
        for slices in map(int, arguments.slices.split(",")):
            (Path(folder) / str(slices)).mkdir()
            sizes.append(Size(Path(folder) / str(slices), slices, arguments.size, arguments.warm))
        for _ in range(ROUNDS):
            for size in sizes:
                size.round(arguments.batch)
    ours = []
    for size in sizes:
        typical = {name: float(np.median(values)) for name, values in size.rates.items()}
        ours.append(typical["store"])
        print(
            f"{size.slices:>9,} slices: opened in {size.opening:.2f} s; {ours[-1]:,.0f} slices/s in batches of "
            f"{arguments.batch} (a tenth of them below {np.quantile(size.rates['store'], 0.1):,.0f})"
        )
        for name in list(typical)[1:]:
            print(f"{'':>18} {ours[-1] / typical[name]:.2f} times {name} ({typical[name]:,.0f}/s)")
    print(
        f"slowest store: {min(ours):,.0f} slices/s, {min(ours) / 20_000:.1f} times the 20,000/s asked for; "
        f"slowest/fastest size {min(ours) / max(ours):.2f} (flat within 20%: at least 0.80)"
    )


if __name__ == "__main__":
    main()
