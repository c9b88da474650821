"""Training and test images: the same for every arm.

Headline splits are stratified K-folds over groups (near-duplicates and neighbouring slices stay together), repeated
over seeds. A label fraction keeps that share of the training *groups*, class by class, and smaller fractions are
subsets of larger ones, so random draws don't blur a learning curve.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mri_transfer.datasets.tumors.folds import grouped_folds
from mri_transfer.errors import UserError

if TYPE_CHECKING:
    from mri_transfer.finetune.data.one_source import OneSource

PUBLISHED = -1  # the "fold" of the data set's published split


@dataclasses.dataclass(frozen=True)
class Split:
    """Training and test images of one trial; indices into the distinct images.

    `train` and `test` of the published split may repeat an index and overlap: that is its leak. `source` is set if all
    are from one source, see :mod:`mri_transfer.finetune.data.one_source`.
    """

    seed: int
    fold: int
    fraction: float
    train: np.ndarray
    test: np.ndarray
    source: OneSource | None = None


def label_subset(
    labels: np.ndarray, groups: np.ndarray, train: np.ndarray, fraction: float, seed: int, fold: int
) -> np.ndarray:
    """Keep a fraction of the training groups, class by class.

    For each class, its groups are shuffled by (seed, fold, class) and the first `ceil(fraction × count)` kept. The
    result is the union over classes, so every class present in `train` is present in the result, and a smaller
    fraction's images are a subset of a larger one's.

    Args:
        labels: (n,) class of each image.
        groups: (n,) group of each image.
        train: indices of the training images.
        fraction: above 0, at most 1.

    Returns:
        Sorted indices, a subset of `train`.
    """
    if fraction >= 1:
        return np.sort(train)
    kept_groups: set[int] = set()
    for label in np.unique(labels[train]):
        members = np.unique(groups[train[labels[train] == label]])
        order = np.random.default_rng([seed, fold, int(label)]).permutation(members)
        kept_groups.update(order[: int(np.ceil(fraction * len(order) - 1e-9))].tolist())
    return np.sort(train[np.isin(groups[train], list(kept_groups))])


def grouped_splits(
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    folds: int,
    seeds: Sequence[int],
    fractions: Sequence[float] = (1.0,),
    classes: Sequence[str] = (),
) -> Iterator[Split]:
    """Every split of the leak-free protocol, seed by seed, fold by fold, fraction by fraction.

    Raises:
        UserError: there are too few groups, in all or in one class, for this many folds.
    """
    for seed in seeds:
        fold_of = grouped_folds(labels, groups, folds, seed, classes)
        for fold in range(folds):
            test = np.flatnonzero(fold_of == fold)
            train = np.flatnonzero(fold_of != fold)
            for fraction in fractions:
                yield Split(
                    seed, fold, fraction, label_subset(labels, groups, train, fraction, seed, fold), test
                )


def inner_splits(
    labels: np.ndarray, groups: np.ndarray, seed: int, parts: int = 3
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Split training images again, by groups, to choose settings without touching the test fold.

    Args:
        labels: (n,) classes of the training images only.
        groups: (n,) their groups.
        seed: for the split.
        parts: number of parts, each validating once; fewer if the groups don't suffice.

    Returns:
        Pairs of positions (in the given arrays) to fit and to validate, both with every class; none if the groups allow
        no such split, as when a class has a single one.
    """
    for count in range(parts, 1, -1):
        try:
            part_of = grouped_folds(labels, groups, count, seed)
        except UserError:
            continue
        return [(np.flatnonzero(part_of != fold), np.flatnonzero(part_of == fold)) for fold in range(count)]
    return []
