"""Cross-validation folds that never split a group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mri_transfer.errors import UserError


def grouped_folds(
    labels: np.ndarray, groups: np.ndarray, folds: int, seed: int, classes: Sequence[str] = ()
) -> np.ndarray:
    """Deal images into folds, whole groups at a time, with class shares as equal as the groups allow.

    Args:
        labels: int (n,), the class of each image.
        groups: int (n,), the group of each image; see :mod:`mri_transfer.datasets.tumors.persons.groups`.
        folds: their number, at least 2.
        seed: the same seed gives the same folds.
        classes: names of the classes, for error messages.

    Returns:
        int (n,): the fold of each image, 0 to `folds` - 1; every fold holds images of every class.

    Raises:
        UserError: too few groups, in total or in one class, for this many folds.
    """
    # scikit-learn takes a second to import, and `--help` must not wait for it.
    from sklearn.model_selection import StratifiedGroupKFold

    labels, groups = np.asarray(labels), np.asarray(groups)
    if folds < 2:
        raise UserError(f"--folds {folds}: at least 2 are needed, one to score on and one to train on")
    count = len(np.unique(groups))
    if count < folds:
        raise UserError(
            f"{count} group(s) of images cannot fill {folds} folds; use fewer --folds or add patients"
        )
    for label in np.unique(labels):
        count = len(np.unique(groups[labels == label]))
        if count < folds:
            raise UserError(
                f"{_name(label, classes)} has {count} group(s) of images, which cannot fill {folds} folds; "
                f"use fewer --folds or add patients of that class"
            )
    fold = np.full(len(labels), -1)
    # Shuffled here: `shuffle=True` breaks stratification in older releases and would make folds vary by release.
    names, members = np.unique(groups, return_inverse=True)
    shuffled = np.random.default_rng(seed).permutation(len(names))[members.reshape(-1)]
    splitter = StratifiedGroupKFold(n_splits=folds)
    for number, (_, held_out) in enumerate(splitter.split(labels[:, None], labels, shuffled)):
        fold[held_out] = number
    for label in np.unique(labels):
        missing = set(range(folds)) - set(fold[labels == label].tolist())
        if missing:
            raise UserError(
                f"{_name(label, classes)} is missing in {len(missing)} of {folds} folds, as few groups "
                "hold most of its images; use fewer --folds"
            )
    return fold


def _name(label: int, classes: Sequence[str]) -> str:
    return f"class {classes[label]}" if classes else f"class number {label}"
