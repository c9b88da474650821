import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mri_transfer.errors import UserError
from mri_transfer.finetune.data.protocol import PUBLISHED, grouped_splits, inner_splits, label_subset

FRACTIONS = (0.05, 0.1, 0.25, 0.5, 1.0)


@st.composite
def grouped_labels(draw):
    """Labels and groups of 40 to 200 images; a tenth of the groups may hold two classes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = rng.integers(1, 6, rng.integers(24, 60))
    groups = np.repeat(rng.permutation(len(sizes)), sizes)
    of_group = np.arange(len(sizes)) % 4
    labels = of_group[groups]
    mixed = rng.random(len(labels)) < 0.05
    return np.where(mixed, rng.integers(0, 4, len(labels)), labels), groups


@given(grouped_labels(), st.integers(0, 5), st.integers(0, 4))
def test_label_subsets_are_nested_whole_groups_with_every_class(data, seed, fold):
    labels, groups = data
    train = np.flatnonzero(np.random.default_rng(seed).permutation(groups.max() + 1)[groups] % 5 != 0)
    subsets = [label_subset(labels, groups, train, fraction, seed, fold) for fraction in FRACTIONS]
    for small, large in itertools.pairwise(subsets):
        assert set(small) <= set(large)
    assert np.array_equal(subsets[-1], np.sort(train))
    for subset in subsets:
        assert set(subset) <= set(train)
        assert set(labels[subset]) == set(labels[train])
        whole = train[np.isin(groups[train], groups[subset])]
        assert np.array_equal(np.sort(whole), subset)


def test_a_fraction_is_that_share_of_the_groups_of_each_class():
    groups = np.repeat(np.arange(400), 2)
    labels = groups % 4
    subset = label_subset(labels, groups, np.arange(800), 0.25, 0, 0)
    assert [len(np.unique(groups[subset][labels[subset] == k])) for k in range(4)] == [25] * 4


def test_subsets_differ_between_seeds_and_folds_and_are_repeatable():
    groups, train = np.arange(200), np.arange(200)
    labels = groups % 4

    def subset(seed, fold):
        return label_subset(labels, groups, train, 0.1, seed, fold).tolist()

    assert subset(0, 0) == subset(0, 0)
    assert subset(0, 0) != subset(1, 0)
    assert subset(0, 0) != subset(0, 1)


def test_splits_share_no_group_and_test_every_image_once(blobs):
    _, labels, groups = blobs
    splits = list(grouped_splits(labels, groups, folds=4, seeds=(0, 5), fractions=(0.25, 1.0)))
    assert len(splits) == 2 * 4 * 2
    assert [(s.seed, s.fold, s.fraction) for s in splits] == list(
        itertools.product((0, 5), range(4), (0.25, 1.0))
    )
    assert PUBLISHED not in range(100)  # no fold's number
    for split in splits:
        assert not set(groups[split.train]) & set(groups[split.test])
    for seed in (0, 5):
        tested = np.concatenate([s.test for s in splits if s.seed == seed and s.fraction == 1])
        assert np.array_equal(np.sort(tested), np.arange(len(labels)))


def test_without_a_fraction_all_labels_are_trained_on(blobs):
    _, labels, groups = blobs
    for split in grouped_splits(labels, groups, folds=4, seeds=(0,)):
        assert split.fraction == 1
        assert np.array_equal(np.sort(np.concatenate([split.train, split.test])), np.arange(len(labels)))


def test_too_few_groups_is_the_users_to_mend(blobs):
    _, labels, groups = blobs
    with pytest.raises(UserError, match="folds"):
        list(grouped_splits(labels, groups // 40, folds=5, seeds=(0,)))


def test_inner_splits_hold_every_class_on_both_sides_and_share_no_group(blobs):
    _, labels, groups = blobs
    splits = inner_splits(labels, groups, seed=1)
    assert len(splits) == 3
    for fit, validate in splits:
        assert not set(groups[fit]) & set(groups[validate])
        assert set(labels[fit]) == set(labels[validate]) == {0, 1, 2, 3}


def test_one_group_in_a_class_leaves_nothing_to_choose_by():
    labels = np.array([0, 0, 0, 0, 1, 1])
    assert inner_splits(labels, np.array([0, 1, 2, 3, 4, 4]), seed=0) == []


def test_two_groups_in_a_class_leave_two_parts():
    labels = np.array([0, 0, 0, 0, 1, 1])
    splits = inner_splits(labels, np.array([0, 1, 2, 3, 4, 5]), seed=0)
    assert len(splits) == 2
    assert sorted(np.concatenate([validate for _, validate in splits])) == list(range(6))
    for fit, validate in splits:
        assert sorted([*fit, *validate]) == list(range(6))


def test_a_single_group_of_a_class_is_kept_at_any_fraction():
    subset = label_subset(np.array([0, 1, 1]), np.array([5, 6, 7]), np.array([2, 0, 1]), 0.01, 0, 0)
    assert 0 in subset
    assert len(subset) == 2
