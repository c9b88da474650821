"""The nearest-neighbour classifier: cosine similarity of fixed features.

It has nothing to train, so it shows what an encoder puts close together, and little else. The number of neighbours is
chosen from a fixed grid on inner splits of the training groups, alike for every arm. Votes are weighted by
exp(similarity / 0.07) (Wu et al. 2018, arXiv:1805.01978, section 3.4; the same in DINO, arXiv:2104.14294). This module
imports no Keras.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from mri_transfer.evaluation.metrics import balanced_accuracy, confusion_by_group
from mri_transfer.evaluation.neighbours import unit_rows
from mri_transfer.finetune.data.protocol import inner_splits

NEIGHBOURS = (1, 3, 5, 10, 20, 50)
FALLBACK = 5  # if a class has a single training group, so nothing can be held out
TEMPERATURE = 0.07
SMOOTHING = 1.0  # votes spread over all classes, so that no class is impossible
SETTINGS = {
    "neighbours": NEIGHBOURS,
    "fallback": FALLBACK,
    "temperature": TEMPERATURE,
    "smoothing": SMOOTHING,
}
CHUNK = 1024  # images classified at a time


@dataclasses.dataclass(frozen=True)
class Nearest:
    """A fitted classifier.

    Attributes:
        mean: (d,) float64, of the training images.
        vectors: (n, d) float32, training features minus the mean, of unit length.
        labels: (n,) int, classes 0..k-1.
        neighbours: number that vote.
        tried: balanced accuracy by number of neighbours on the inner splits; empty if the groups allowed none.
    """

    mean: np.ndarray
    vectors: np.ndarray
    labels: np.ndarray
    neighbours: int
    tried: dict[int, float]

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Class probabilities, float32 (n, classes), of features (n, d)."""
        return self.by_neighbours(features, [self.neighbours])[0]

    def by_neighbours(self, features: np.ndarray, counts: list[int]) -> np.ndarray:
        """The same for several numbers of neighbours, float32 (counts, n, classes)."""
        one_hot = np.eye(int(self.labels.max()) + 1)
        probabilities = np.empty((len(counts), len(features), one_hot.shape[1]), np.float32)
        for start in range(0, len(features), CHUNK):
            rows = slice(start, start + CHUNK)
            similarity = unit(features[rows], self.mean) @ self.vectors.T
            order = np.argsort(-similarity, axis=1, kind="stable")[:, : max(counts)]
            closest = np.take_along_axis(similarity, order, axis=1).astype(np.float64)
            weights = np.exp((closest - closest[:, :1]) / TEMPERATURE)
            votes = np.cumsum(weights[..., None] * one_hot[self.labels[order]], axis=1)
            for row, count in enumerate(counts):
                smoothed = votes[:, min(count, votes.shape[1]) - 1] + SMOOTHING / one_hot.shape[1]
                probabilities[row, rows] = smoothed / smoothed.sum(axis=1, keepdims=True)
        return probabilities

    def details(self) -> dict[str, Any]:
        """Details of the fit, for the trial's file."""
        return {"neighbours": self.neighbours, "tried": {str(k): round(v, 5) for k, v in self.tried.items()}}


def unit(features: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Features minus a mean, scaled to length one, float32; a zero vector stays zero.

    The mean is subtracted because rectified features all point roughly the same way.
    """
    return unit_rows(features.astype(np.float64) - mean).astype(np.float32)


def _neighbours(features: np.ndarray, labels: np.ndarray, count: int = FALLBACK) -> Nearest:
    mean = features.mean(axis=0, dtype=np.float64)
    return Nearest(mean, unit(features, mean), labels, count, {})


def fit_nearest(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int) -> Nearest:
    """Keep the training images, and choose the number of neighbours.

    Args:
        features: (n, d) float32 of the training images only.
        labels: (n,) classes 0..k-1, each present.
        groups: (n,) group of each image.
        seed: for inner splits.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):  # as for the probe: the same digits in every process
        grid = [count for count in NEIGHBOURS if count <= len(labels)]
        scores = []
        for fit, validate in inner_splits(labels, groups, seed):
            probabilities = _neighbours(features[fit], labels[fit]).by_neighbours(features[validate], grid)
            one_group, classes = np.zeros(len(validate), int), probabilities.shape[-1]
            counts = confusion_by_group(labels[validate], probabilities.argmax(-1), one_group, 1, classes)[0]
            scores.append(balanced_accuracy(counts))
        if not scores:
            return _neighbours(features, labels)
        tried = dict(zip(grid, np.mean(scores, axis=0).tolist(), strict=True))
        # The largest of equally good numbers: its votes are steadiest.
        best = max(tried, key=lambda count: (tried[count], count))
        return dataclasses.replace(_neighbours(features, labels, best), tried=tried)
