"""Folds: groups stay whole, classes are spread, and the impossible is said in one line."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mri_transfer.datasets.tumors.folds import grouped_folds
from mri_transfer.errors import UserError


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 12), st.integers(0, 2)), min_size=3, max_size=60),
    folds=st.integers(2, 6),
    seed=st.integers(0, 1000),
)
def test_no_group_is_ever_split(sizes, folds, seed):
    groups = np.repeat(np.arange(len(sizes)), [size for size, _ in sizes])
    labels = np.repeat([label for _, label in sizes], [size for size, _ in sizes])
    try:
        fold = grouped_folds(labels, groups, folds, seed)
    except UserError:
        return
    assert fold.min() == 0
    assert fold.max() == folds - 1
    for group in np.unique(groups):
        assert len(np.unique(fold[groups == group])) == 1
    for label in np.unique(labels):
        assert set(fold[labels == label]) == set(range(folds))
    assert np.array_equal(fold, grouped_folds(labels, groups, folds, seed))


def test_classes_are_shared_out_evenly_and_seeds_differ():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(200), rng.integers(1, 12, 200))
    labels = groups % 4
    fold = grouped_folds(labels, groups, 5, seed=0)
    for label in range(4):
        counts = np.bincount(fold[labels == label], minlength=5)
        assert counts.max() < 1.25 * counts.min()
    assert not np.array_equal(fold, grouped_folds(labels, groups, 5, seed=1))


@pytest.mark.parametrize(
    ("labels", "groups", "folds", "says"),
    [
        ([0, 0, 1, 1], [0, 0, 1, 1], 3, "2 group"),
        ([0, 0, 0, 1, 1, 1], [0, 1, 2, 3, 3, 3], 3, "class number 1 has 1 group"),
        ([0, 1], [0, 1], 1, "--folds 1"),
    ],
)
def test_too_few_groups(labels, groups, folds, says):
    with pytest.raises(UserError, match=says):
        grouped_folds(np.array(labels), np.array(groups), folds, 0)


def test_a_class_whose_images_lie_in_few_groups_is_named():
    """It is in two groups, as many as folds, and dealing whole groups evenly puts both into one fold."""
    labels, groups = np.array([1, 1, 0, 0, 1]), np.array([0, 0, 1, 2, 2])
    with pytest.raises(UserError, match=r"^class glioma is missing in 1 of 2 folds.*--folds"):
        grouped_folds(labels, groups, 2, 0, ("none", "glioma"))
    with pytest.raises(UserError, match=r"^class none has 2 group\(s\).* 3 folds"):
        grouped_folds(labels, groups, 3, 0, ("none", "glioma"))
    with pytest.raises(UserError, match=r"^class number 1 is missing"):
        grouped_folds(labels, groups, 2, 0)


def test_as_many_groups_as_folds_suffice():
    assert sorted(grouped_folds(np.zeros(3, int), np.array([7, 5, 6]), 3, 0)) == [0, 1, 2]
