"""Which two slices are views of the same thing, and which batch a step sees.

Every batch is a pure function of (seed, step): no state has to be saved to resume, and readers may work ahead.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.errors import UserError

Batch = dict[str, np.ndarray]


class PairSampler:
    """Draws pairs of slices that a method should map close together.

    Subjects are drawn with a probability proportional to the square root of their number of slices, then a slice of
    the subject uniformly. Uniform over slices, a few subjects with thin slices would fill each batch and, since
    slices of one subject are never negatives of one another, leave few negatives; uniform over subjects, subjects
    with ten slices would be repeated ten times as often.

    Args:
        store: the slices.
        positives: "same" pairs a slice with itself, "adjacent" with any slice of the same volume and plane at most
            `max_mm` away, itself included.
        max_mm: in mm; ignored for "same".
        batch: pairs in a batch.
        seed: of the drawing.

    Raises:
        UserError: the store has fewer than two subjects, so there are no negatives.
    """

    def __init__(self, store: SliceStore, *, positives: str, max_mm: float, batch: int, seed: int):
        self.store, self.batch, self.seed = store, batch, seed
        table = store.table
        _, self.subject = np.unique(table["subject"], return_inverse=True)
        counts = np.bincount(self.subject)
        if len(counts) < 2:
            raise UserError(
                f"{store.folder}: all slices are of one subject, and contrast needs others; add more subjects"
            )
        self.weights = np.sqrt(counts) / np.sqrt(counts).sum()
        self.slices_of = np.argsort(self.subject, kind="stable")
        self.first_of = np.concatenate([[0], np.cumsum(counts)])
        # In the order of (volume, plane, position) the slices near a slice are a contiguous run [first, last).
        plane = np.unique(table["plane"], return_inverse=True)[1]
        position = np.asarray(table["position_mm"], dtype=np.float64)
        self.order = np.lexsort((position, plane, table["volume"]))
        if positives == "same":
            self.first = np.arange(len(store))
            self.last = self.first + 1
        else:
            self.first, self.last = _runs_within(
                np.asarray(table["volume"])[self.order], plane[self.order], position[self.order], max_mm
            )
        self.rank = np.empty(len(store), dtype=np.int64)
        self.rank[self.order] = np.arange(len(store))

    def indices(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Store indices, (batch,) each, of the two slices of every pair of a step."""
        rng = np.random.default_rng([self.seed, step])
        subjects = rng.choice(len(self.weights), size=self.batch, p=self.weights)
        start, stop = self.first_of[subjects], self.first_of[subjects + 1]
        anchors = self.slices_of[rng.integers(start, stop)]
        rank = self.rank[anchors]
        partners = self.order[rng.integers(self.first[rank], self.last[rank])]
        return anchors, partners

    def __call__(self, step: int) -> Batch:
        """The batch of a step: "a" and "b" uint8 (batch, size, size), "subject" int32 (batch,)."""
        a, b = self.indices(step)
        images = self.store.images(np.concatenate([a, b]))
        return {"a": images[: len(a)], "b": images[len(a) :], "subject": self.subject[a].astype(np.int32)}


def _runs_within(volume: np.ndarray, plane: np.ndarray, position: np.ndarray, max_mm: float):
    """For sorted slices, the run [first, last) at most `max_mm` away in the same volume and plane."""
    first = np.empty(len(position), dtype=np.int64)
    last = np.empty_like(first)
    stack = np.flatnonzero(np.r_[True, (volume[1:] != volume[:-1]) | (plane[1:] != plane[:-1]), True])
    tolerance = max_mm * (1 + 1e-6)  # 6 mm means 6 mm also where positions are sums of rounded spacings
    for start, stop in itertools.pairwise(stack):
        mm = position[start:stop]
        first[start:stop] = start + np.searchsorted(mm, mm - tolerance, side="left")
        last[start:stop] = start + np.searchsorted(mm, mm + tolerance, side="right")
    return first, last


def read_ahead(sampler: PairSampler, first_step: int, depth: int = 3) -> Generator[Batch, None, None]:
    """Batches from `first_step` on, in order, read by a thread while the model trains.

    One thread is enough (a batch is one gather from page cache), and close() or garbage collection ends it.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as pool:
        waiting: deque[Future[Any]] = deque(pool.submit(sampler, first_step + i) for i in range(depth))
        step = first_step + depth
        try:
            while True:
                batch = waiting.popleft().result()
                waiting.append(pool.submit(sampler, step))
                step += 1
                yield batch
        finally:
            for future in waiting:
                future.cancel()
