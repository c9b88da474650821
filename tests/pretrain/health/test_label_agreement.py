"""Neighbours of other subjects against a plain reference, and cases whose answer is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from mri_transfer.evaluation.neighbours import nearest
from mri_transfer.pretrain.health.label_agreement import label_agreement


def test_nearest_are_those_of_scikit_learn():
    x = np.random.default_rng(0).normal(size=(60, 5))
    reference = NearestNeighbors(n_neighbors=4, metric="cosine", algorithm="brute").fit(x).kneighbors(x)[1]
    np.testing.assert_array_equal(nearest(x, np.ones((60, 60), dtype=bool), 4), reference)


def test_only_allowed_rows_are_neighbours():
    x = np.eye(4)
    allowed = np.zeros((4, 4), dtype=bool)
    allowed[0, 2] = allowed[1, [0, 3]] = True
    np.testing.assert_array_equal(nearest(x, allowed, 2), [[2, -1], [0, 3], [-1, -1], [-1, -1]])


def plain_agreement(x, labels, subject, k, within):
    """The definition, row by row."""
    z = x / np.linalg.norm(x, axis=1, keepdims=True)
    usable = [
        label not in ("", "unknown")
        and len({s for m, s in zip(labels, subject, strict=True) if m == label}) > 1
        for label in labels
    ]
    share, chance = {}, {}
    for i in range(len(x)):
        others = [
            j
            for j in range(len(x))
            if usable[i] and usable[j] and subject[j] != subject[i] and within[j] == within[i]
        ]
        if others:
            others.sort(key=lambda j: -round(float(z[i] @ z[j]), 9))
            share.setdefault(labels[i], []).append(np.mean([labels[j] == labels[i] for j in others[:k]]))
            chance.setdefault(labels[i], []).append(np.mean([labels[j] == labels[i] for j in others]))
    if len(share) < 2:
        return None
    return np.mean([np.mean(v) for v in share.values()]), np.mean([np.mean(v) for v in chance.values()])


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.booleans())
def test_agreement_is_the_definition(seed, n, split):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    labels = rng.choice(["T1", "T2", "FLAIR", "unknown", ""], n)
    subject = rng.choice(["a", "b", "c", "d"], n)
    within = rng.integers(0, 2, n) if split else np.zeros(n)
    result = label_agreement(x, labels, subject, within=within if split else None, k=3)
    expected = plain_agreement(x, labels, subject, 3, within)
    if expected is None:
        assert result is None
    else:
        assert (result.accuracy, result.chance) == pytest.approx(expected)
        assert result.error >= 0


def heads(rng, subjects=40, count=6):
    subject = np.repeat(np.arange(subjects), count)
    labels = np.array(["axial", "coronal", "sagittal"])[rng.integers(0, 3, len(subject))]
    return subject, labels


def test_features_that_tell_the_label_and_features_that_tell_the_subject():
    rng = np.random.default_rng(0)
    subject, labels = heads(rng)
    planes = np.eye(3)[np.unique(labels, return_inverse=True)[1]]
    noise = 0.05 * rng.normal(size=(len(subject), 3))
    assert label_agreement(planes + noise, labels, subject).accuracy == 1
    # Slices of the same head are nearest, and do not count: what remains knows nothing of the plane.
    own = np.eye(40)[subject] + 0.05 * rng.normal(size=(len(subject), 40))
    result = label_agreement(own, labels, subject)
    assert abs(result.accuracy - result.chance) < 4 * result.error
    assert result.chance == pytest.approx(1 / 3, abs=0.01)


def test_the_standard_error_is_that_of_other_subjects():
    """Over 300 draws of subjects, whose slices all share their luck, the estimates vary as the errors say."""
    estimates, errors = [], []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        subject, labels = heads(rng, subjects=30, count=5)
        clear = rng.random(30) < 0.5  # of half of the subjects the features tell the label
        planes = np.eye(3)[np.unique(labels, return_inverse=True)[1]]
        x = np.where(clear[subject][:, None], planes, rng.normal(size=planes.shape)) + 0.01
        result = label_agreement(x, labels, subject, k=1)
        estimates.append(result.accuracy)
        errors.append(result.error)
    assert np.mean(errors) == pytest.approx(np.std(estimates), rel=0.2)


def test_order_scale_and_rotation_do_not_matter():
    rng = np.random.default_rng(1)
    subject, labels = heads(rng)
    x = rng.normal(size=(len(subject), 8))
    expected = label_agreement(x, labels, subject)
    order = rng.permutation(len(x))
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    for other in (
        label_agreement(x[order], labels[order], subject[order]),
        label_agreement(1e5 * x @ turn, labels, subject),
    ):
        assert other == pytest.approx(expected)


def test_nothing_to_tell():
    x = np.random.default_rng(0).normal(size=(6, 4))
    subject = np.array([0, 0, 1, 1, 2, 2])
    assert label_agreement(x, np.array(["T1"] * 6), subject) is None
    assert label_agreement(x, np.array(["unknown"] * 6), subject) is None
    # T2 is of one subject only, so no neighbour could ever share it.
    assert label_agreement(x, np.array(["T1", "T2", "T1", "T1", "T1", "T1"]), subject) is None
    assert label_agreement(x[:2], np.array(["T1", "T2"]), subject[:2]) is None
