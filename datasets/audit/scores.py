"""Scores of classifiers from counts, with intervals from resampling whole groups."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mri_transfer.evaluation.metrics import balanced_accuracy, confusion_by_group, macro_f1, recall
from mri_transfer.evaluation.resampling import draw_groups

DRAWS = 2000  # of the bootstrap
_CHUNK = 200  # draws made at a time


def scores(
    labels: np.ndarray,
    predictions: np.ndarray,
    groups: np.ndarray,
    classes: int,
    confidence: float,
    seed: int,
) -> list[dict]:
    """Scores of several classifiers on the same images, with bootstrap intervals over whole groups.

    Args:
        labels: int (n,).
        predictions: int (classifiers, n).
        groups: int (n,).
        classes: their number.
        confidence: of each interval.
        seed: of the draws, which are the same for every classifier.

    Returns:
        For each classifier "balanced_accuracy" and "macro_f1", each {"estimate", "low", "high"}, and "recall" by class
        (None for a class without images).
    """
    _, group = np.unique(groups, return_inverse=True)
    group = group.reshape(-1)
    count = int(group.max()) + 1
    # Counts per group of each pair of true and predicted class, for all classifiers side by side.
    counts = (
        confusion_by_group(labels, predictions, group, count, classes).reshape(count, -1).astype(np.float32)
    )
    rng = np.random.default_rng(seed)
    resamples = np.concatenate(
        [
            draw_groups(count, min(_CHUNK, DRAWS - start), rng).astype(np.float32) @ counts
            for start in range(0, DRAWS, _CHUNK)
        ]
    ).reshape(DRAWS, len(predictions), classes, classes)
    confusion = counts.sum(axis=0).reshape(len(predictions), classes, classes)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]

    def interval(statistic: Callable[[np.ndarray], np.ndarray], row: int) -> dict[str, float]:
        low, high = np.quantile(statistic(resamples[:, row]), tails)
        return {"estimate": float(statistic(confusion[row])), "low": float(low), "high": float(high)}

    return [
        {
            "balanced_accuracy": interval(balanced_accuracy, row),
            "macro_f1": interval(macro_f1, row),
            "recall": recalls(confusion[row]),
        }
        for row in range(len(predictions))
    ]


def recalls(counts: np.ndarray) -> list[float | None]:
    """The recall of each class in a confusion matrix; None for a class without images."""
    return [None if np.isnan(value) else float(value) for value in recall(counts)]
