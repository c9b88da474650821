"""Slices on a board: reads the slice store and draws each step's pairs.

The store is a folder made by `mri-transfer slices`, and the pairs are those that `mri-transfer pretrain` would draw
from it with the same seed. Python 3.6 and NumPy are enough.
"""

import csv
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from states import Problem, read_json, sha256

FORMAT = 1
HEADER_BYTES = 128
SHARD_BYTES = 1 << 27
COLUMNS = [
    "subject",
    "session",
    "sequence",
    "plane",
    "position_mm",
    "position",
    "volume",
    "source",
    "source_sha256",
]
AHEAD = 3


class Slices:
    """A slice store.

    Attributes:
        size: side of a slice, pixels.
        subject, plane: names, (n,) each.
        millimetres: float (n,).
        volume: int (n,).
        fingerprint: identity of the content.

    Args:
        folder: its path.

    Raises:
        Problem: it is no store, unfinished, or damaged.
    """

    def __init__(self, folder):
        self.folder = folder
        if not folder.is_dir():
            raise Problem(f"{folder}: no such folder; name a slice store, made by `mri-transfer slices`")
        path = folder / "manifest.json"
        if not path.is_file():
            raise Problem(f"{folder}: is not a finished slice store; copy the whole of it again")
        manifest = read_json(path)
        try:
            if manifest["format"] != FORMAT:
                raise Problem(f"{path}: store format {manifest['format']}, and this runner reads {FORMAT}")
            self.size = int(manifest["settings"]["size"])
            self.fingerprint = str(manifest["fingerprint"])
            self._shards = [folder / shard["file"] for shard in manifest["shards"]]
            counts = [int(shard["slices"]) for shard in manifest["shards"]]
            digest = manifest["table"]["sha256"]
            if self.size < 1:
                raise ValueError(f"slices of {self.size} px")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise Problem(
                f"{path}: damaged ({type(error).__name__}: {error}); copy the store again"
            ) from None
        for shard, count in zip(self._shards, counts):
            self._check_shard(shard, count)
        self._read_table(folder / "slices.csv", digest, sum(counts))
        self._rows = max(1, SHARD_BYTES // self.size**2)
        self._open = {}

    def __len__(self):
        return len(self.volume)

    def _check_shard(self, path, count):
        expected = HEADER_BYTES + count * self.size**2
        if not path.is_file():
            raise Problem(f"{path}: missing; copy the store again")
        if path.stat().st_size != expected:
            raise Problem(f"{path}: {path.stat().st_size} bytes instead of {expected}; copy the store again")
        try:
            shape = np.load(str(path), mmap_mode="r", allow_pickle=False).shape
        except Exception as error:  # numpy raises different exceptions for damaged headers
            raise Problem(f"{path}: damaged ({type(error).__name__}); copy the store again") from None
        if shape != (count, self.size, self.size):
            raise Problem(f"{path}: holds {shape} instead of {count} slices; copy the store again")

    def _read_table(self, path, digest, count):
        if not path.is_file() or sha256(path) != digest:
            raise Problem(f"{path}: missing or not as it was written; copy the store again")
        with open(str(path), encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            if next(reader, None) != COLUMNS:
                raise Problem(f"{path}: its columns are not {', '.join(COLUMNS)}; copy the store again")
            try:
                rows = [(row[0], row[3], float(row[4]), int(row[6])) for row in reader]
            except (ValueError, IndexError, csv.Error) as error:
                raise Problem(f"{path}: damaged ({error}); copy the store again") from None
        if len(rows) != count or not rows:
            raise Problem(f"{path}: {len(rows)} rows for {count} slices; copy the store again")
        subject, plane, millimetres, volume = zip(*rows)
        self.subject, self.plane = np.array(subject), np.array(plane)
        self.millimetres = np.array(millimetres, dtype=np.float64)
        self.volume = np.array(volume, dtype=np.int64)

    def images(self, indices):
        """Slices by their row in the table: uint8 (n, size, size)."""
        images = np.empty((len(indices), self.size, self.size), dtype=np.uint8)
        area = self.size**2
        for place, index in zip(images, indices):
            number, row = divmod(int(index), self._rows)
            if number not in self._open:
                if len(self._open) >= 200:
                    os.close(self._open.popitem()[1])
                self._open[number] = os.open(str(self._shards[number]), os.O_RDONLY)
            data = os.pread(self._open[number], area, HEADER_BYTES + row * area)
            if len(data) != area:
                raise OSError(f"{self._shards[number]}: shorter than when it was opened")
            place[:] = np.frombuffer(data, dtype=np.uint8).reshape(self.size, self.size)
        return images


class Pairs:
    """Draws a step's pairs of slices: a pure function of (seed, step), as in `pretrain/pairs/positives.py`.

    Subjects are drawn with a probability proportional to the square root of their number of slices, then a slice of
    the subject, then its partner: "same" is the slice itself, "adjacent" any slice of the same volume and plane at
    most `max_mm` away.

    Args:
        slices: a :class:`Slices`.
        positives: shares by kind, summing to 1; in a mixture the kind is drawn per pair.
        max_mm: in mm.
        batch: pairs in a step.
        seed: for drawing.
        negatives: whether the method contrasts subjects and so needs two.

    Raises:
        Problem: `negatives` are needed but all slices are of one subject.
    """

    def __init__(self, slices, positives, max_mm, batch, seed, negatives):
        self.slices, self.batch, self.seed = slices, batch, seed
        _, self.subject = np.unique(slices.subject, return_inverse=True)
        counts = np.bincount(self.subject)
        if negatives and len(counts) < 2:
            raise Problem(
                f"{slices.folder}: all slices are of one subject, and the method contrasts subjects; add others, "
                "or correct who is who with `slices --subject PATTERN` where the store is made"
            )
        weights = np.sqrt(counts) / np.sqrt(counts).sum()
        self._subject_until = np.cumsum(weights) / np.cumsum(weights)[-1]
        self._slices_of = np.argsort(self.subject, kind="stable")
        self._first_of = np.concatenate([[0], np.cumsum(counts)])
        self._kinds = [kind for kind in ("adjacent", "same") if kind in positives]
        self._until = np.cumsum([positives[kind] for kind in self._kinds])
        plane = np.unique(slices.plane, return_inverse=True)[1]
        order = np.lexsort((slices.millimetres, plane, slices.volume))
        runs = _runs_within(slices.volume[order], plane[order], slices.millimetres[order], max_mm)
        rank = np.empty(len(slices), dtype=np.int64)
        rank[order] = np.arange(len(slices))
        rows = np.arange(len(slices))
        self._candidates = {
            "adjacent": (runs[0][rank], runs[1][rank], order),
            "same": (rows, rows + 1, rows),
        }

    def indices(self, step):
        """Rows of the two slices of every pair of a step, (batch,) each."""
        rng = np.random.default_rng([self.seed, step])
        subjects = self._subject_until.searchsorted(rng.random(self.batch), side="right")
        anchors = self._slices_of[rng.integers(self._first_of[subjects], self._first_of[subjects + 1])]
        kind = np.zeros(self.batch, dtype=np.int64)
        if len(self._kinds) > 1:
            kind = (rng.random(self.batch) >= self._until[:-1, None]).sum(axis=0)
        candidates = [self._candidates[name] for name in self._kinds]
        first = np.choose(kind, [candidate[0][anchors] for candidate in candidates])
        last = np.choose(kind, [candidate[1][anchors] for candidate in candidates])
        picks = rng.integers(first, last)
        partner = np.empty_like(anchors)
        for number, candidate in enumerate(candidates):
            mask = kind == number
            partner[mask] = candidate[2][picks[mask]]
        return anchors, partner

    def __call__(self, step):
        """The batch of a step: a, b uint8 (batch, size, size), subject int32 (batch,)."""
        a, b = self.indices(step)
        images = self.slices.images(np.concatenate([a, b]))
        return images[: len(a)], images[len(a) :], self.subject[a].astype(np.int32)

    def read_ahead(self, step):
        """Batches from `step` on, read by a thread while the model trains."""
        with ThreadPoolExecutor(max_workers=1) as pool:
            waiting = [pool.submit(self, step + i) for i in range(AHEAD)]
            step += AHEAD
            try:
                while True:
                    batch = waiting.pop(0).result()
                    waiting.append(pool.submit(self, step))
                    step += 1
                    yield batch
            finally:
                for future in waiting:
                    future.cancel()


def _runs_within(volume, plane, position, max_mm):
    """For sorted slices, the run [first, last) at most `max_mm` away in the same volume and plane."""
    first = np.empty(len(position), dtype=np.int64)
    last = np.empty_like(first)
    stack = np.flatnonzero(np.r_[True, (volume[1:] != volume[:-1]) | (plane[1:] != plane[:-1]), True])
    tolerance = max_mm * (1 + 1e-6)
    for start, stop in zip(stack[:-1], stack[1:]):
        mm = position[start:stop]
        first[start:stop] = start + np.searchsorted(mm, mm - tolerance, side="left")
        last[start:stop] = start + np.searchsorted(mm, mm + tolerance, side="right")
    return first, last
