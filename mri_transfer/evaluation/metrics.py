"""Scores of a classifier, computed from sums over groups so that a bootstrap over groups costs a matrix
product.

Every score here is a function of sums over images: confusion counts, summed losses, calibration bins, counts of
correctly ordered pairs. These are summed once per group; a resample of groups is then a weighted sum, and thousands of
resamples take milliseconds. On the whole set each score equals scikit-learn's (see the tests).

Arrays are named by their axes: `n` images, `seeds`, `groups`, `classes`; `...` is any number of leading axes.
"""

from __future__ import annotations

import numpy as np

CALIBRATION_BINS = 15


def sum_by_group(values: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """Sum `values` (n, ...) over the images of each group 0..count-1: (count, ...), float64."""
    sums = np.zeros((count, *values.shape[1:]))
    np.add.at(sums, groups, values)
    return sums


def confusion_by_group(
    labels: np.ndarray, predicted: np.ndarray, groups: np.ndarray, count: int, classes: int
) -> np.ndarray:
    """Confusion counts of each group.

    Args:
        labels: int (n,), the true class.
        predicted: int (seeds, n).
        groups: int (n,), values 0..count-1.

    Returns:
        float64 (groups, seeds, classes, classes); rows are the true class, columns the predicted one.
    """
    seeds = predicted.shape[0]
    cell = ((groups * seeds + np.arange(seeds)[:, None]) * classes + labels) * classes + predicted
    counts = np.bincount(cell.ravel(), minlength=count * seeds * classes * classes)
    return counts.reshape(count, seeds, classes, classes).astype(np.float64)


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Confusion counts of one classifier: float64 (classes, classes) of int (n,) and (n,)."""
    return confusion_by_group(labels, predicted[None], np.zeros(len(labels), int), 1, classes)[0, 0]


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, NaN where below is zero (a class that a resample does not contain)."""
    return np.divide(above, below, out=np.full(np.broadcast(above, below).shape, np.nan), where=below > 0)


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis, leaving NaN out; NaN where nothing is left."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(-1), defined.sum(-1).astype(np.float64))


def accuracy(confusion: np.ndarray) -> np.ndarray:
    """Share of images classified correctly: (..., classes, classes) -> (...)."""
    return _ratio(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum((-2, -1)))


def recall(confusion: np.ndarray) -> np.ndarray:
    """Recall (sensitivity) of each class: (..., classes, classes) -> (..., classes)."""
    return _ratio(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(-1))


def balanced_accuracy(confusion: np.ndarray) -> np.ndarray:
    """Mean recall over the classes that occur (Brodersen et al. 2010, doi:10.1109/ICPR.2010.764)."""
    return mean_of_defined(recall(confusion))


def class_f1(confusion: np.ndarray) -> np.ndarray:
    """F1 = 2TP / (2TP + FP + FN) of each class: (..., classes, classes) -> (..., classes); NaN where it is neither
    present nor predicted."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _ratio(2 * hits, confusion.sum(-1) + confusion.sum(-2))


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Unweighted mean over classes of F1: (..., classes, classes) -> (...).

    The mean of the classes' F1, not the F1 of mean precision and recall (Opitz & Burst 2019,
    arXiv:1911.03347). A class that is neither present nor predicted is left out, as
    `sklearn.metrics.f1_score` does.
    """
    return mean_of_defined(class_f1(confusion))


def macro_f1_of_present(confusion: np.ndarray) -> np.ndarray:
    """As :func:`macro_f1`, over classes that have images; a class that is only predicted isn't counted."""
    present = confusion.sum(-1) > 0
    return mean_of_defined(np.where(present, class_f1(confusion), np.nan))


def loss_by_group(
    labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray, count: int
) -> np.ndarray:
    """Summed log loss and Brier score of each group.

    Log loss is -ln p(true class), with p clipped to float32 precision as in scikit-learn. The Brier score is the
    original, summed over classes (Brier 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2): 0 is perfect, 2 is
    certain and wrong.

    Args:
        probabilities: (seeds, n, classes), rows sum to one.

    Returns:
        (groups, seeds, 3): summed log loss, summed Brier score, number of images.
    """
    seeds, n, classes = probabilities.shape
    p = probabilities.astype(np.float64)
    tiny = float(np.finfo(np.float32).eps)
    log_loss = -np.log(np.clip(p[:, np.arange(n), labels], tiny, 1 - tiny))
    brier = ((p - np.eye(classes)[labels]) ** 2).sum(-1)
    return sum_by_group(np.stack([log_loss.T, brier.T, np.ones((n, seeds))], axis=-1), groups, count)


def calibration_by_group(
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    count: int,
    bins: int = CALIBRATION_BINS,
) -> np.ndarray:
    """Data for a reliability diagram, for each group.

    Returns:
        (groups, seeds, bins, 3): images, summed confidence, images classified correctly, where confidence is the
        probability of the predicted class and bins have equal width.
    """
    seeds = probabilities.shape[0]
    confidence = probabilities.max(-1).astype(np.float64)
    right = probabilities.argmax(-1) == labels
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    cell = ((groups * seeds + np.arange(seeds)[:, None]) * bins + bin_of).ravel()
    sums = [
        np.bincount(cell, weights=weights, minlength=count * seeds * bins)
        for weights in (np.ones(cell.size), confidence.ravel(), right.ravel().astype(np.float64))
    ]
    return np.stack(sums, axis=-1).reshape(count, seeds, bins, 3)


def expected_calibration_error(sums: np.ndarray) -> np.ndarray:
    """Mean gap between confidence and accuracy, bins weighted by images: (..., bins, 3) -> (...).

    Naeini et al. 2015 (AAAI 29, 2901-2907); Guo et al. 2017 (arXiv:1706.04599), equation 3.
    """
    images, confidence, right = np.moveaxis(sums, -1, 0)
    return _ratio(np.abs(right - confidence).sum(-1), images.sum(-1))


class MacroAuroc:
    """One-vs-rest area under the ROC curve, mean over classes (Fawcett 2006, doi:10.1016/j.patrec.2005.10.010).

    For one class the area is the share of pairs of an image of the class and one of the rest in which the former scores
    higher, ties counting one half (Hanley & McNeil 1982, doi:10.1148/radiology.143.1.7063747). Counted once for each
    pair of groups, P, it is wᵀPw / (wᵀa)(wᵀb) under weights w of the groups, with a and b the images inside and outside
    the class. Everything that depends only on labels and weights is computed once for all arms.
    """

    def __init__(self, labels: np.ndarray, groups: np.ndarray, weights: np.ndarray, classes: int) -> None:
        """`labels` and `groups` int (n,); `weights` (draws, groups): how often to count each group."""
        self.draws = len(weights)
        self.classes = [
            self._prepare(labels == k, groups, weights.astype(np.float32)) for k in range(classes)
        ]

    @staticmethod
    def _prepare(inside: np.ndarray, groups: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Images of a class sorted by group, the start of each group, and the weights of both sides."""
        images = np.flatnonzero(inside)
        images = images[np.argsort(groups[images], kind="stable")]
        rows, starts, row_images = np.unique(groups[images], return_index=True, return_counts=True)
        others = np.flatnonzero(~inside)
        columns, column_of, column_images = np.unique(groups[others], return_inverse=True, return_counts=True)
        of_rows, of_columns = weights[:, rows], weights[:, columns]
        possible = (of_rows @ row_images).astype(np.float64) * (of_columns @ column_images)
        return {
            "images": images,
            "starts": starts,
            "others": others,
            "column_of": column_of,
            "rows": of_rows,
            "columns": of_columns,
            "possible": possible,
        }

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """`probabilities` (seeds, n, classes) -> areas (draws, seeds); NaN where no class has both sides."""
        areas = [
            [self._area(p[:, k], prepared) for k, prepared in enumerate(self.classes)] for p in probabilities
        ]
        return mean_of_defined(np.moveaxis(np.array(areas), -1, 0))

    def _area(self, scores: np.ndarray, of: dict[str, np.ndarray]) -> np.ndarray:
        if not of["images"].size or not of["others"].size:
            return np.full(self.draws, np.nan)
        # One pass over the rest, sorted by score: the number of images of each group below each rank.
        order = np.argsort(scores[of["others"]], kind="stable")
        sorted_scores = scores[of["others"]][order]
        below = np.zeros((order.size + 1, of["columns"].shape[1]), dtype=np.float32)
        below[np.arange(order.size) + 1, of["column_of"][order]] = 1
        np.cumsum(below, axis=0, out=below)
        inside = scores[of["images"]]
        wins = below[np.searchsorted(sorted_scores, inside, side="left")]
        wins += below[np.searchsorted(sorted_scores, inside, side="right")]
        pairs = np.add.reduceat(wins, of["starts"], axis=0) / 2
        ordered = np.einsum("dr,dr->d", of["rows"], of["columns"] @ pairs.T)
        return _ratio(ordered.astype(np.float64), of["possible"])
