"""The raw-pixel nearest neighbour: a classifier that can only memorise, as an alarm for leaks.

Pictures are converted to grey, padded to a square with black, resized to 48x48 with anti-aliasing, and normalised to
mean 0 and length 1; an image gets the class of the training image at the smallest Euclidean distance, i.e. the most
correlated one. The classifier knows nothing about disease. If it scores high on a test split, that split has
near-copies of training images, and any other score on it means as little.

Measured on the public four-class set: 78.2% of its published test split, 100% on the 251 test images that are copies
of training images, 39.9% on the other 143.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mri_transfer.datasets.tumors.copies.thumbnails import normalised
from mri_transfer.datasets.tumors.folds import grouped_folds
from mri_transfer.datasets.tumors.layout import published
from mri_transfer.errors import UserError
from mri_transfer.evaluation import metrics

MOST = 10_000
"""Most images to cross-validate, and most test images to score: the work grows quadratically."""

GAP = 0.05  # accuracy gap between folds that ignore groups and folds that keep them, worth a warning


def nearest_neighbour(
    images: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray, *, chunk: int = 1024
) -> np.ndarray:
    """The class of the most similar training image, for each test image.

    Args:
        images: uint8 (n, side, side).
        labels: int (n,).
        train, test: int indices of images; one in both finds itself.
        chunk: images compared at a time; memory grows quadratically.

    Returns:
        int (test,): predicted labels; ties go to the first image.
    """
    train, test = np.asarray(train), np.asarray(test)
    predicted = np.empty(len(test), dtype=int)
    for start in range(0, len(test), chunk):
        rows = test[start : start + chunk]
        vectors = normalised(images[rows])
        best = np.full(len(rows), -np.inf, np.float32)
        for begin in range(0, len(train), chunk):
            columns = train[begin : begin + chunk]
            similarity = vectors @ normalised(images[columns]).T
            place = similarity.argmax(axis=1)
            value = similarity[np.arange(len(rows)), place]
            better = value > best
            best[better] = value[better]
            predicted[start : start + chunk][better] = labels[columns[place[better]]]
    return predicted


def leak_alarm(
    images: np.ndarray,
    labels: np.ndarray,
    distinct: np.ndarray,
    groups: np.ndarray,
    splits: np.ndarray,
    classes: Sequence[str],
    *,
    folds: int = 5,
    seed: int = 0,
) -> dict:
    """Scores of the nearest neighbour: on the published test split, and in folds with and without groups.

    Args:
        images: uint8 (files, side, side), as `Measurements.small`.
        labels: int (files,).
        distinct: int (files,), the same number for files that show the same pixels; negative: left out (unreadable).
        groups: int (files,), the group of related images.
        splits: str (files,), as :func:`mri_transfer.datasets.tumors.layout.published` takes them.
        classes: names.
        folds: how many; fewer where a class has fewer groups.
        seed: of the folds, and of the draw if there are more than `MOST` images.

    Returns:
        JSON-able: "published" (None without splits) with "all", "copies" (pixels are in training), "rest" and
        "unrelated" (none of their group is in training), each {"images", "accuracy"}; "ungrouped" and "grouped":
        {"accuracy", "balanced_accuracy"} over distinct images, None if they can't be cross-validated; "alarm" (bool)
        and "sentences".
    """
    rng = np.random.default_rng(seed)
    usable = np.flatnonzero(np.asarray(distinct) >= 0)
    images, labels, distinct = images[usable], np.asarray(labels)[usable], np.asarray(distinct)[usable]
    groups, splits = np.asarray(groups)[usable], np.asarray(splits)[usable].astype(str)
    findings: dict = {"published": None, "ungrouped": None, "grouped": None, "folds": folds}

    train, test = published(splits)
    if train.any() and test.any():
        findings["published"] = _published(images, labels, distinct, groups, train, test, rng)

    _, first = np.unique(distinct, return_index=True)
    first = np.sort(first)
    if len(first) > MOST:
        order = rng.permutation(np.unique(groups[first]))
        size = np.cumsum([(groups[first] == group).sum() for group in order])
        first = first[np.isin(groups[first], order[size <= MOST])]
    targets, group = labels[first], groups[first]
    fewest = min((len(np.unique(group[targets == label])) for label in range(len(classes))), default=0)
    findings["folds"] = folds = min(folds, fewest)
    try:
        findings["grouped"] = _cross_validated(
            images[first], targets, grouped_folds(targets, group, folds, seed)
        )
        single = grouped_folds(targets, np.arange(len(targets)), folds, seed)
        findings["ungrouped"] = _cross_validated(images[first], targets, single)
    except UserError:
        pass
    findings["alarm"], findings["sentences"] = _in_words(findings)
    return findings


def _published(
    images: np.ndarray,
    labels: np.ndarray,
    distinct: np.ndarray,
    groups: np.ndarray,
    train: np.ndarray,
    tested: np.ndarray,
    rng: np.random.Generator,
) -> dict:
    test = np.flatnonzero(tested)
    if len(test) > MOST:
        test = np.sort(rng.choice(test, MOST, replace=False))
    right = nearest_neighbour(images, labels, np.flatnonzero(train), test) == labels[test]
    copies = np.isin(distinct[test], distinct[train])
    parts = {
        "all": np.ones(len(test), bool),
        "copies": copies,
        "rest": ~copies,
        "unrelated": ~np.isin(groups[test], groups[train]),
    }
    return {
        name: {"images": int(mask.sum()), "accuracy": float(right[mask].mean()) if mask.any() else None}
        for name, mask in parts.items()
    }


def _cross_validated(images: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> dict:
    predicted = np.empty_like(labels)
    for number in np.unique(fold):
        train, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        predicted[test] = nearest_neighbour(images, labels, train, test)
    counts = metrics.confusion(labels, predicted, int(labels.max()) + 1)
    return {
        "accuracy": float(metrics.accuracy(counts)),
        "balanced_accuracy": float(metrics.balanced_accuracy(counts)),
    }


def _in_words(findings: dict) -> tuple[bool, list[str]]:
    alarm, sentences = False, []
    published, grouped, ungrouped = findings["published"], findings["grouped"], findings["ungrouped"]
    if published:
        score = published["all"]["accuracy"]
        text = f"Comparing raw pixels, which knows nothing of disease, scores {score:.1%} on the test split"
        copies, rest = published["copies"], published["rest"]
        if copies["images"] and rest["images"]:
            alarm = copies["accuracy"] - rest["accuracy"] > GAP
            text += (
                f": {copies['accuracy']:.1%} on the {copies['images']} images that are copies of training images, "
                f"{rest['accuracy']:.1%} on the other {rest['images']}"
            )
        sentences.append(f"{text}. A model's score on it counts only as far as it exceeds this.")
    if grouped and ungrouped:
        loose, whole = ungrouped["accuracy"], grouped["accuracy"]
        alarm = alarm or loose - whole > GAP
        sentences.append(
            f"In cross-validation on distinct images it scores {loose:.1%} where images of one group may lie on both "
            f"sides, {whole:.1%} where groups stay whole: folds without groups would leak {100 * (loose - whole):.1f} "
            "points."
        )
    return alarm, sentences
