"""Which two slices form a positive pair, and which batch a step sees.

Every batch is a pure function of (seed, step): resuming needs no saved state, and readers may work ahead.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.errors import UserError
from mri_transfer.options import did_you_mean, positive_float
from mri_transfer.pretrain.pairs.few_people import WHO_IS_WHO
from mri_transfer.pretrain.pairs.free_labels import FreeLabels
from mri_transfer.pretrain.pairs.sequences import partners

Batch = dict[str, np.ndarray]

# The order in which a mixture is drawn, however it is written.
KINDS = ("adjacent", "sequence", "same")


def mixture(text: str) -> dict[str, float]:
    """Shares by kind, summing to 1, of `adjacent`, or `adjacent:0.5,sequence:0.3,same:0.2`; a plain name weighs 1.

    Raises:
        ValueError: an unknown or repeated kind, or a weight that isn't a positive number.
    """
    weights: dict[str, float] = {}
    for entry in text.split(","):
        name, colon, weight = (word.strip() for word in entry.partition(":"))
        name = name.lower()
        if name not in KINDS:
            raise ValueError(f"no such kind; there are {', '.join(KINDS)}{did_you_mean(name, KINDS)}")
        if name in weights:
            raise ValueError(f"{name} is named twice")
        try:
            weights[name] = positive_float(weight) if colon else 1.0
        except ValueError:
            raise ValueError(f"the weight of {name} must be a number above 0") from None
    return {kind: weights[kind] / sum(weights.values()) for kind in KINDS if kind in weights}


def mixture_text(text: str) -> str:
    """A mixture as stored and shown: kinds in order, with shares summing to 1."""
    shares = mixture(text)
    return next(iter(shares)) if len(shares) == 1 else ",".join(f"{k}:{v:.6g}" for k, v in shares.items())


class PairSampler:
    """Draws pairs of slices that a method should map close together.

    Subjects are drawn with a probability proportional to the square root of their number of slices, then a slice of
    the subject uniformly. Drawn uniformly over slices, a few subjects with thin slices would fill each batch and, since
    slices of one subject are never mutual negatives, leave few negatives; drawn uniformly over subjects, those with ten
    slices would repeat ten times as often. Its partner is

    - "same": the slice itself;
    - "adjacent": any slice of the same volume and plane at most `max_mm` away, itself included;
    - "sequence": a slice of the same subject, session, plane and position in another sequence on the same grid, see
      `sequences.py`.

    In a mixture the kind is drawn per pair. A slice without a partner in another sequence is paired by the mixture's
    other kinds, in proportion to their shares, or, without any, by "adjacent".

    Args:
        store: the slices.
        positives: a kind or a mixture, see :func:`mixture`.
        max_mm: in mm, for "adjacent".
        batch: pairs in a batch.
        seed: for drawing.
        negatives: whether the method contrasts subjects and so needs two; batches then carry "subject".
        free_labels: whether batches carry :meth:`FreeLabels.of_pairs`.

    Raises:
        UserError: `negatives` are needed and the store has fewer than two subjects, or `positives` names "sequence" and
            no slice has such a partner.
        ValueError: `positives` can't be read.
    """

    def __init__(
        self,
        store: SliceStore,
        *,
        positives: str,
        max_mm: float,
        batch: int,
        seed: int,
        negatives: bool = True,
        free_labels: bool = False,
    ):
        self.store, self.batch, self.seed, self.max_mm = store, batch, seed, max_mm
        self.shares = mixture(positives)
        table = store.table
        _, self.subject = np.unique(table["subject"], return_inverse=True)
        self.negatives = negatives
        self.labels = FreeLabels(table) if free_labels else None
        counts = np.bincount(self.subject)
        if negatives and len(counts) < 2:
            raise UserError(
                f"{store.folder}: all slices are of one subject, and contrast needs others; if they are of more, "
                f"{WHO_IS_WHO}, or choose a --method without negatives, such as byol"
            )
        self.weights = np.sqrt(counts) / np.sqrt(counts).sum()
        # As NumPy's `choice` with probabilities, without summing them again for every batch.
        self._subject_until = np.cumsum(self.weights) / np.cumsum(self.weights)[-1]
        self.slices_of = np.argsort(self.subject, kind="stable")
        self.first_of = np.concatenate([[0], np.cumsum(counts)])
        kinds = [
            kind
            for kind in KINDS
            if kind in self.shares or ("sequence" in self.shares and kind == "adjacent")
        ]
        self._kinds = [_Candidates(kind, *self._candidates(kind)) for kind in kinds]

    def _candidates(self, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For every slice, the run [first, last) of its possible partners in an array of slices, and that array."""
        table, n = self.store.table, len(self.store)
        if kind == "same":
            return np.arange(n), np.arange(n) + 1, np.arange(n)
        if kind == "adjacent":
            # Sorted by (volume, plane, position), the slices near a slice are contiguous.
            plane = np.unique(table["plane"], return_inverse=True)[1]
            position = np.asarray(table["position_mm"], dtype=np.float64)
            order = np.lexsort((position, plane, table["volume"]))
            runs = _runs_within(
                np.asarray(table["volume"])[order], plane[order], position[order], self.max_mm
            )
            rank = np.empty(n, dtype=np.int64)
            rank[order] = np.arange(n)
            return runs[0][rank], runs[1][rank], order
        columns = ("subject", "session", "sequence", "volume", "plane", "position_mm", "position")
        first, others = partners(*(np.asarray(table[column]) for column in columns))
        if not len(others):
            raise UserError(
                f"{self.store.folder}: no slice has a partner in another sequence (same subject, session, plane, "
                "position and grid), which --positives sequence needs; add such volumes, or use --positives adjacent"
            )
        return first[:-1], first[1:], others

    def pairs(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Store indices, (batch,) each, of both slices of a step's pairs, and the names of their kinds."""
        rng = np.random.default_rng([self.seed, step])
        subjects = self._subject_until.searchsorted(rng.random(self.batch), side="right")
        start, stop = self.first_of[subjects], self.first_of[subjects + 1]
        anchors = self.slices_of[rng.integers(start, stop)]
        kind = np.zeros(self.batch, dtype=np.int64)
        if len(self._kinds) > 1:
            bounds = np.cumsum(self._shares_of(anchors), axis=0)
            kind = (rng.random(self.batch) >= bounds[:-1]).sum(axis=0)
        # One draw for all kinds: each pair from its own run.
        first = np.choose(kind, [candidates.first[anchors] for candidates in self._kinds])
        last = np.choose(kind, [candidates.last[anchors] for candidates in self._kinds])
        picks = rng.integers(first, last)
        partner = np.empty_like(anchors)
        for number, candidates in enumerate(self._kinds):
            mask = kind == number
            partner[mask] = candidates.slices[picks[mask]]
        return anchors, partner, np.array([candidates.kind for candidates in self._kinds])[kind]

    def _shares_of(self, slices: np.ndarray) -> np.ndarray:
        """The shares of the kinds for some slices, (kinds, slices): 0 for a kind without a partner."""
        weight = np.array([self.shares.get(candidates.kind, 0.0) for candidates in self._kinds])
        has = np.stack([candidates.last[slices] > candidates.first[slices] for candidates in self._kinds])
        weighted = weight[:, None] * has
        weighted[0, weighted.sum(axis=0) == 0] = 1.0  # "adjacent", see __init__
        return weighted / weighted.sum(axis=0)

    def indices(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Store indices, (batch,) each, of both slices of a step's pairs."""
        return self.pairs(step)[:2]

    def describe(self) -> dict[str, Any]:
        """The store's pairs, and the resulting mixture.

        Returns:
            "positives" as asked for, "slices", "subjects"; "with_adjacent" and "with_sequence", numbers of slices with
            a partner of that kind other than themselves, if drawn; "drawn", the resulting shares; "sequences", numbers
            of pairs of one sequence with another.
        """
        slices = np.arange(len(self.store))
        counts = np.diff(self.first_of)
        chance = (self.weights / counts)[self.subject]
        shares = self._shares_of(slices) @ chance
        summary: dict[str, Any] = {
            "positives": self.shares,
            "slices": len(slices),
            "subjects": len(counts),
            "drawn": {
                candidates.kind: round(float(share), 4)
                for candidates, share in zip(self._kinds, shares, strict=True)
            },
        }
        for candidates in self._kinds:
            if candidates.kind == "adjacent":
                summary["with_adjacent"] = int((candidates.last - candidates.first > 1).sum())
            if candidates.kind == "sequence":
                summary["with_sequence"] = int((candidates.last > candidates.first).sum())
                names, sequence = np.unique(self.store.table["sequence"], return_inverse=True)
                of = np.repeat(sequence, candidates.last - candidates.first)
                counts = np.bincount(of * len(names) + sequence[candidates.slices], minlength=len(names) ** 2)
                summary["sequences"] = {
                    f"{names[i]} with {names[j]}": int(counts[i * len(names) + j])
                    for i, j in itertools.product(range(len(names)), repeat=2)
                    if counts[i * len(names) + j]
                }
        return summary

    def sentence(self) -> str:
        """A run's pairs, in one line."""
        summary = self.describe()
        shares = ", ".join(f"{share:.0%} {kind}" for kind, share in summary["drawn"].items() if share)
        line = f"pairs: {shares}; {summary['slices']} slices of {summary['subjects']} subjects"
        for kind, words in (
            ("adjacent", f"another slice within {self.max_mm:g} mm"),
            ("sequence", "a partner in another sequence"),
        ):
            if f"with_{kind}" in summary:
                line += f", {summary[f'with_{kind}']} with {words}"
        return line

    def __call__(self, step: int) -> Batch:
        """A step's batch: "a" and "b" uint8 (batch, size, size), and, if needed, "subject" int32 (batch,) and free
        labels.
        """
        a, b = self.indices(step)
        images = self.store.images(np.concatenate([a, b]))
        batch = {"a": images[: len(a)], "b": images[len(a) :]}
        if self.negatives:
            batch["subject"] = self.subject[a].astype(np.int32)
        return batch | (self.labels.of_pairs(a, b) if self.labels else {})


@dataclasses.dataclass(frozen=True)
class _Candidates:
    """For one kind: the partners of slice i are `slices[first[i]:last[i]]`."""

    kind: str
    first: np.ndarray
    last: np.ndarray
    slices: np.ndarray


def _runs_within(volume: np.ndarray, plane: np.ndarray, position: np.ndarray, max_mm: float):
    """For sorted slices, the run [first, last) at most `max_mm` away in the same volume and plane."""
    first = np.empty(len(position), dtype=np.int64)
    last = np.empty_like(first)
    stack = np.flatnonzero(np.r_[True, (volume[1:] != volume[:-1]) | (plane[1:] != plane[:-1]), True])
    tolerance = max_mm * (1 + 1e-6)  # 6 mm means 6 mm even if positions are sums of rounded spacings
    for start, stop in itertools.pairwise(stack):
        mm = position[start:stop]
        first[start:stop] = start + np.searchsorted(mm, mm - tolerance, side="left")
        last[start:stop] = start + np.searchsorted(mm, mm + tolerance, side="right")
    return first, last


def read_ahead(sampler: PairSampler, first_step: int, depth: int = 3) -> Generator[Batch, None, None]:
    """Batches from `first_step` on, in order, read by a thread while the model trains.

    One thread is enough (a batch is one gather from page cache); close() or garbage collection ends it.
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
