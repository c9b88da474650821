"""Images to look at: confident mistakes of every start, disagreements of two starts, and images all get right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mri_transfer.finetune.comparison.results import Predictions


@dataclass(frozen=True)
class Section:
    """A group of the predictions' images, and its reason."""

    title: str
    text: str
    images: tuple[int, ...]


def sections(
    predictions: Predictions, mode: str, fraction: float, arm: str, baseline: str | None
) -> list[Section]:
    """Every non-empty section.

    Args:
        mode, fraction: the report's.
        arm, baseline: the verdict's; `baseline` is None for a single arm.
    """
    candidates = [
        Section(
            "Sure, and wrong",
            "The images whose wrong answer was given with the most confidence, averaged over all starts. "
            "What every start gets wrong may be hard, or carry a wrong label.",
            tuple(mistakes(predictions, mode, fraction)),
        )
    ]
    for better, worse in ((arm, baseline), (baseline, arm)):
        if better is not None and worse is not None:
            images = tuple(disagreements(predictions, mode, fraction, better, worse))
            text = "The clearest cases, at most one from a group."
            candidates.append(Section(f"{better} right, {worse} wrong", text, images))
    text = "For each class, the image that all starts classify correctly with the most confidence."
    candidates.append(Section("Right, by every start", text, tuple(agreed(predictions, mode, fraction))))
    return [section for section in candidates if section.images]


def mistakes(predictions: Predictions, mode: str, fraction: float, limit: int = 6) -> list[int]:
    """Images with the highest confidence in a wrong class, averaged over seeds and arms.

    Averaging over arms ranks first what all starts get wrong: hard cases, and labels worth a second look.
    """
    surest = np.zeros(predictions.labels.size)
    for mean in _means(predictions, mode, fraction):
        wrong = mean.argmax(-1) != predictions.labels
        surest += np.where(wrong, mean.max(-1), 0.0)
    return _first_of_groups(surest, predictions.groups, limit)


def agreed(predictions: Predictions, mode: str, fraction: float) -> list[int]:
    """One image per class, the surest that every arm classifies correctly."""
    sure = np.ones(predictions.labels.size)
    for mean in _means(predictions, mode, fraction):
        sure *= np.where(mean.argmax(-1) == predictions.labels, mean.max(-1), 0.0)
    images = []
    for label in range(len(predictions.classes)):
        images += _first_of_groups(np.where(predictions.labels == label, sure, 0.0), predictions.groups, 1)
    return images


def disagreements(
    predictions: Predictions, mode: str, fraction: float, better: str, worse: str, limit: int = 4
) -> list[int]:
    """Images that `better` classifies correctly and `worse` wrongly, the surest first."""
    first, second = (predictions.probabilities[arm, mode, fraction].mean(0) for arm in (better, worse))
    mask = (first.argmax(-1) == predictions.labels) & (second.argmax(-1) != predictions.labels)
    return _first_of_groups(np.where(mask, first.max(-1) * second.max(-1), 0.0), predictions.groups, limit)


def _means(predictions: Predictions, mode: str, fraction: float) -> list[np.ndarray]:
    """Probabilities (n, classes) of each arm, mean over seeds."""
    arms = predictions.arms_of(mode, fraction)
    return [predictions.probabilities[arm, mode, fraction].mean(0) for arm in arms]


def _first_of_groups(score: np.ndarray, groups: np.ndarray, limit: int) -> list[int]:
    """Indices of the highest positive scores, at most one image per group: neighbours look alike."""
    images: list[int] = []
    used_groups = set()
    for index in np.argsort(-score, kind="stable"):
        if score[index] <= 0 or len(images) == limit:
            break
        if groups[index] not in used_groups:
            used_groups.add(groups[index])
            images.append(int(index))
    return images


def answers(predictions: Predictions, mode: str, fraction: float, index: int) -> list[dict[str, Any]]:
    """Each arm's answer for one image: {"arm", "class", "label", "confidence", "right"}, mean over seeds."""
    entries = []
    for arm in predictions.arms_of(mode, fraction):
        mean = predictions.probabilities[arm, mode, fraction][:, index].mean(0)
        label = int(mean.argmax())
        entries.append(
            {
                "arm": arm,
                "class": label,
                "label": predictions.classes[label],
                "confidence": float(mean[label]),
                "right": label == int(predictions.labels[index]),
            }
        )
    return entries
