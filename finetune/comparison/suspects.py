"""Suspicious labels: images ranked by how little models that did not see them believe their labels.

Confident learning (Northcutt et al. 2021, doi:10.1613/jair.1.12125): an image counts as confidently of a class if it
reaches that class's mean probability over images so labelled. An image that does so for another class, more than for
any other, is a label issue. Issues come first; within issues and the rest, images are ordered by their label's
probability relative to that mean, so that a hard class does not fill the list. Hard images and wrong labels look alike
here: a person has to look.

Measured on the public four-class set, where the originals show seven distinct images to be misfiled, with ImageNet's
features (EfficientNet-Lite0, 160 pixels, folds of whole persons, three seeds): of 2,870 images 175 are issues, and the
seven are at ranks 1, 3, 8, 20, 37, 262 and 281.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer.finetune.comparison.results import Predictions
from mri_transfer.finetune.comparison.verdict import CONTROLS, kind_of
from mri_transfer.storage.files import atomic_write
from mri_transfer.storage.tables import Table

SHOWN = 12  # pictures on the page, at most one per group
LISTED = 100  # in `report.json`; the table has all
COLUMNS = ("rank", "file", "label", "suggested", "p_label", "p_suggested", "issue")


@dataclass(frozen=True, eq=False)
class Ranking:
    """Images, the most suspicious label first.

    Attributes:
        order: int (n,), rows of the images.
        suggested: int (n,), for an issue its confident class, else the likeliest other one; by row.
        issue: bool (n,), whether it is a label issue; by row.
    """

    order: np.ndarray
    suggested: np.ndarray
    issue: np.ndarray


def rank(probabilities: np.ndarray, labels: np.ndarray) -> Ranking:
    """Rank labels by how little models believe them.

    Args:
        probabilities: (n, classes), out of fold; the mean over seeds.
        labels: int (n,).
    """
    everyone = np.arange(len(labels))
    of_label = probabilities[everyone, labels]
    others = probabilities.copy()
    others[everyone, labels] = -1
    usual = np.array(
        [
            of_label[labels == label].mean() if (labels == label).any() else np.inf
            for label in range(probabilities.shape[1])
        ]
    )
    confident = np.where(probabilities >= usual, probabilities, -1)
    issue = (confident.max(axis=1) >= 0) & (confident.argmax(axis=1) != labels)
    unusual = of_label - usual[labels]
    suggested = np.where(issue, confident.argmax(axis=1), others.argmax(axis=1))
    return Ranking(np.lexsort((unusual, ~issue)), suggested, issue)


def chosen_arm(predictions: Predictions) -> tuple[str, str, float]:
    """The predictions to use, by a rule independent of scores: the first available mode of probe, nearest and finetune,
    on the most labels, and its first listed arm that is no control."""
    mode = predictions.cells()[0][0]
    fraction = max(share for other, share in predictions.cells() if other == mode)
    arms = predictions.arms_of(mode, fraction)
    kinds = {"kinds": predictions.kinds}
    return next((arm for arm in arms if kind_of(kinds, arm) not in CONTROLS), arms[0]), mode, fraction


def find(predictions: Predictions, paths: Sequence[str], table: Path) -> dict[str, Any]:
    """Rank the scored images of a comparison and write all of them to a table.

    Args:
        predictions: the comparison's.
        paths: file of each image.
        table: CSV to write, one row per image, the most suspicious label first.

    Returns:
        For `report.json`: "arm", "mode", "fraction", "images" (number ranked), "issues" (number of label issues), and
        "first": the first `LISTED`, each {"rank", "file", "label", "suggested", "p_label", "p_suggested", "issue",
        "index"}.
    """
    arm, mode, fraction = chosen_arm(predictions)
    mean = predictions.probabilities[arm, mode, fraction].mean(axis=0)
    ranking = rank(mean, predictions.labels)
    rows: list[dict[str, Any]] = [
        {
            "rank": place,
            "file": paths[row],
            "label": predictions.classes[predictions.labels[row]],
            "suggested": predictions.classes[ranking.suggested[row]],
            "p_label": round(float(mean[row, predictions.labels[row]]), 4),
            "p_suggested": round(float(mean[row, ranking.suggested[row]]), 4),
            "issue": bool(ranking.issue[row]),
            "index": int(row),
        }
        for place, row in enumerate(ranking.order, start=1)
    ]
    with atomic_write(table) as file:
        writer = Table(file, COLUMNS)
        for row in rows:
            writer.write_named({**row, "issue": int(row["issue"])})
    return {
        "arm": arm,
        "mode": mode,
        "fraction": fraction,
        "images": len(rows),
        "issues": int(ranking.issue.sum()),
        "first": rows[:LISTED],
        "shown": _one_of_a_group(ranking, predictions.groups),
    }


def _one_of_a_group(ranking: Ranking, groups: np.ndarray) -> list[int]:
    """Ranks, from 1, of the issues to show: neighbouring slices would fill the page."""
    shown_groups: set[int] = set()
    places: list[int] = []
    for place, row in enumerate(ranking.order[:LISTED], start=1):
        if ranking.issue[row] and groups[row] not in shown_groups and len(places) < SHOWN:
            shown_groups.add(int(groups[row]))
            places.append(place)
    return places
