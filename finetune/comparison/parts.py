"""Scores on parts of the images: of the published split, or of each source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mri_transfer.evaluation import metrics
from mri_transfer.finetune.comparison import statistics

NOTHING = {"estimate": None, "low": None, "high": None}
SCORES = {"accuracy": metrics.accuracy, "macro_f1": metrics.macro_f1_of_present}


class Parts:
    """Accuracy and macro-F1 on each part of a set of images, with intervals over its groups.

    Args:
        chosen: bool (n,) mask of each part's images.
        labels, groups: int (n,).
        classes: their number. Macro-F1 covers the classes present in a part.
        draws, seed: the bootstrap's.
    """

    def __init__(
        self,
        masks: Mapping[str, np.ndarray],
        labels: np.ndarray,
        groups: np.ndarray,
        classes: int,
        draws: int,
        seed: int,
    ):
        self.masks, self.labels, self.classes = masks, labels, classes
        self.resamplings = {
            name: statistics.Resampling.of(groups[mask], draws, seed)
            for name, mask in masks.items()
            if mask.any()
        }

    def __call__(self, predicted: np.ndarray) -> dict[str, dict[str, Any]]:
        """Scores of predicted classes, int (seeds, n), on each part, averaged over seeds.

        Returns:
            For each part {"images", "groups", "accuracy", "macro_f1", "intervals": {"accuracy", "macro_f1"}}; None if
            it has no images.
        """
        return {name: self._scores_of(name, mask, predicted) for name, mask in self.masks.items()}

    def _scores_of(self, name: str, mask: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
        resampling = self.resamplings.get(name)
        if resampling is None:
            return {
                **{"images": 0, "groups": 0, "accuracy": None, "macro_f1": None},
                "intervals": {"accuracy": NOTHING, "macro_f1": NOTHING},
            }
        confusion = resampling.sums(
            metrics.confusion_by_group(
                self.labels[mask], predicted[:, mask], resampling.groups, resampling.count, self.classes
            )
        )
        intervals = {
            key: statistics.estimate(score(confusion), resampling).interval(0.0, 1.0)
            for key, score in SCORES.items()
        }
        return {
            "images": int(mask.sum()),
            "groups": resampling.count,
            **{key: interval["estimate"] for key, interval in intervals.items()},
            "intervals": intervals,
        }
