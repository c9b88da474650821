"""How often nearest neighbours from other subjects share a slice's free labels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mri_transfer.evaluation.neighbours import nearest

NEIGHBOURS = 5
# A store's value for unknown labels.
UNKNOWN = ("", "unknown")


class Agreement(NamedTuple):
    """How well nearest neighbours predict a label.

    Attributes:
        accuracy: balanced accuracy, 0..1.
        chance: accuracy of random neighbours from other subjects.
        error: the accuracy's standard error over subjects.
        classes: number of labels.
    """

    accuracy: float
    chance: float
    error: float
    classes: int


def label_agreement(
    features: np.ndarray,
    labels: np.ndarray,
    subject: np.ndarray,
    *,
    within: np.ndarray | None = None,
    k: int = NEIGHBOURS,
) -> Agreement | None:
    """Balanced accuracy of predicting each row's label from a near neighbour of another subject.

    The prediction is the label of one of the k nearest, so a row scores the fraction of neighbours with its label: the
    mean over the k classifiers "take the label of the i-th nearest", which is steadier than the nearest one alone.
    Judging features by nearest neighbours follows Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance
    Discrimination", CVPR 2018. Classes count equally, however many rows they have.

    The standard error is that of a ratio over clusters (subjects), by linearisation (Cochran, "Sampling Techniques",
    3rd ed. 1977, section 9A.6): slices of a subject are not independent.

    Args:
        features: (n, d).
        labels: (n,) strings; unknown ones, and those of a single subject, are excluded.
        subject: (n,); rows of the same subject are never neighbours.
        within: (n,), if given: only rows with the same entry are neighbours.
        k: neighbours of a row.

    Returns:
        None if fewer than two labels are left, so there is nothing to predict.
    """
    labels, subject = np.asarray(labels), np.unique(subject, return_inverse=True)[1].reshape(-1)
    usable = ~np.isin(labels, UNKNOWN)
    for label in np.unique(labels[usable]):
        members = labels == label
        usable &= ~members | (len(np.unique(subject[members])) > 1)
    labels, subject, features = labels[usable], subject[usable], np.asarray(features)[usable]
    if len(np.unique(labels)) < 2:
        return None
    allowed = subject[:, None] != subject[None, :]
    if within is not None:
        inside = np.asarray(within)[usable]
        allowed &= inside[:, None] == inside[None, :]
    shared = allowed & (labels[:, None] == labels[None, :])
    indices = nearest(features, allowed, k)
    real = indices >= 0
    mask = real.any(axis=1)
    names = np.unique(labels[mask])
    if len(names) < 2:
        return None
    hits = (np.take_along_axis(shared, np.maximum(indices, 0), axis=1) & real).sum(axis=1)
    share = hits[mask] / real.sum(axis=1)[mask]
    blind = shared.sum(axis=1)[mask] / allowed.sum(axis=1)[mask]
    labels, subject = labels[mask], subject[mask]
    recalls, chances, influence = [], [], np.zeros(subject.max() + 1)
    for name in names:
        members = labels == name
        recalls.append(share[members].mean())
        chances.append(blind[members].mean())
        influence += (
            np.bincount(subject[members], share[members] - recalls[-1], len(influence)) / members.sum()
        )
    influence = influence[np.unique(subject)] / len(names)
    clusters = len(influence)
    error = np.sqrt(clusters / (clusters - 1) * (influence**2).sum())
    return Agreement(float(np.mean(recalls)), float(np.mean(chances)), float(error), len(names))
