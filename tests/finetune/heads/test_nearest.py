"""Nearest neighbours against scikit-learn's, and by invariance."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from mri_transfer.finetune.comparison.feature_trials import feature_trial
from mri_transfer.finetune.heads.nearest import NEIGHBOURS, SMOOTHING, TEMPERATURE, Nearest, fit_nearest, unit


def fitted(features, labels, count) -> Nearest:
    mean = features.mean(0, dtype=np.float64)
    return Nearest(mean, unit(features, mean), labels, count, {})


@pytest.mark.parametrize("count", [1, 5, 20])
def test_probabilities_are_scikit_learns_votes(blobs, count):
    features, labels, groups = blobs
    train, test = groups < 60, groups >= 60
    mean = features[train].mean(0)
    reference = KNeighborsClassifier(
        count,
        metric="cosine",
        algorithm="brute",
        weights=lambda distance: np.exp((distance[:, :1] - distance) / TEMPERATURE),
    ).fit(features[train] - mean, labels[train])
    distance, index = reference.kneighbors(features[test] - mean)
    weights = np.exp((distance[:, :1] - distance) / TEMPERATURE)
    votes = np.stack([(weights * (labels[train][index] == k)).sum(1) for k in range(4)], axis=1)
    expected = (votes + SMOOTHING / 4) / (votes.sum(1, keepdims=True) + SMOOTHING)
    probabilities = fitted(features[train], labels[train], count).probabilities(features[test])
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert (probabilities.argmax(1) == reference.predict(features[test] - mean)).all()


@given(scale=st.floats(1e-6, 1e6), seed=st.integers(0, 99))
def test_scale_and_rotation_of_features_change_nothing(scale, seed):
    rng = np.random.default_rng(seed)
    features, labels = rng.normal(size=(40, 6)), np.arange(40) % 3
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    probabilities = fitted(features, labels, 5).probabilities(features)
    turned = fitted(scale * features @ turn + 3 * scale, labels, 5).probabilities(
        scale * features @ turn + 3 * scale
    )
    np.testing.assert_allclose(probabilities, turned, atol=1e-3)


def test_the_number_of_neighbours_is_chosen_on_the_training_groups(blobs):
    features, labels, groups = blobs
    nearest = fit_nearest(features, labels, groups, 0)
    assert nearest.neighbours in NEIGHBOURS
    assert set(nearest.tried) == set(NEIGHBOURS)
    assert nearest.tried[nearest.neighbours] == max(nearest.tried.values())
    # Images of a group are alike here, but groups are not parted, so one neighbour is not what does best.
    assert nearest.neighbours > 1


def test_labels_of_test_images_are_never_used(blobs, tmp_path):
    features, labels, groups = blobs
    np.savez(tmp_path / "f.npz", features=features)
    np.savez(tmp_path / "g.npz", features=features[:7])
    train, test = np.flatnonzero(groups < 60), np.flatnonzero(groups >= 60)
    shuffled = labels.copy()
    shuffled[test] = np.random.default_rng(0).permutation(labels[test])
    answers = [
        feature_trial("nearest", tmp_path / "f.npz", targets, groups, train, test, 0, [tmp_path / "g.npz"])[0]
        for targets in (labels, shuffled)
    ]
    assert np.array_equal(answers[0][0], answers[1][0])
    assert answers[0][1].shape == (7, 4)


def test_one_group_in_a_class_leaves_nothing_to_choose_by():
    features = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    nearest = fit_nearest(features, np.array([0, 0, 0, 0, 1, 1]), np.array([0, 1, 2, 3, 4, 4]), 0)
    assert nearest.tried == {}
    assert nearest.probabilities(features).shape == (6, 2)


def test_features_that_are_all_the_same_say_nothing():
    nearest = fit_nearest(np.ones((8, 3), np.float32), np.arange(8) % 2, np.arange(8), 0)
    assert np.isfinite(nearest.probabilities(np.ones((2, 3), np.float32))).all()
