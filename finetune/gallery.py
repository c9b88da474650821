"""Which images to look at: what every start gets wrong with confidence, and where two starts part."""

from __future__ import annotations

from typing import Any

import numpy as np

from mri_transfer.finetune.results import Predictions


def mistakes(predictions: Predictions, mode: str, fraction: float, most: int = 8) -> list[int]:
    """Images with the highest confidence in a wrong class, averaged over seeds and arms.

    Averaging over arms puts first what all starts get wrong: hard cases, and labels worth a second look.
    """
    surest = np.zeros(predictions.labels.size)
    for arm in predictions.arms_of(mode, fraction):
        mean = predictions.probabilities[arm, mode, fraction].mean(0)
        wrong = mean.argmax(-1) != predictions.labels
        surest += np.where(wrong, mean.max(-1), 0.0)
    return _first_of_groups(surest, predictions.groups, most)


def disagreements(
    predictions: Predictions, mode: str, fraction: float, better: str, worse: str, most: int = 4
) -> list[int]:
    """Images that `better` classifies rightly and `worse` wrongly, the surest first."""
    first, second = (predictions.probabilities[arm, mode, fraction].mean(0) for arm in (better, worse))
    chosen = (first.argmax(-1) == predictions.labels) & (second.argmax(-1) != predictions.labels)
    return _first_of_groups(np.where(chosen, first.max(-1) * second.max(-1), 0.0), predictions.groups, most)


def _first_of_groups(score: np.ndarray, groups: np.ndarray, most: int) -> list[int]:
    """Indices of the highest positive scores, at most one image of a group: neighbours look alike."""
    chosen: list[int] = []
    taken = set()
    for index in np.argsort(-score, kind="stable"):
        if score[index] <= 0 or len(chosen) == most:
            break
        if groups[index] not in taken:
            taken.add(groups[index])
            chosen.append(int(index))
    return chosen


def answers(predictions: Predictions, mode: str, fraction: float, index: int) -> list[dict[str, Any]]:
    """What each arm said of one image: {"arm", "label", "confidence", "right"}, mean over seeds."""
    said = []
    for arm in predictions.arms_of(mode, fraction):
        mean = predictions.probabilities[arm, mode, fraction][:, index].mean(0)
        label = int(mean.argmax())
        said.append(
            {
                "arm": arm,
                "label": predictions.classes[label],
                "confidence": float(mean[label]),
                "right": label == int(predictions.labels[index]),
            }
        )
    return said
