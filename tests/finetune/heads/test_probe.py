import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss as reference_log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mri_transfer.finetune.comparison.feature_trials import feature_trial
from mri_transfer.finetune.data.protocol import inner_splits
from mri_transfer.finetune.heads.probe import (
    FALLBACK,
    GRID,
    choose_strength,
    fit_probe,
    log_loss,
    softmax,
    standardisation,
    standardise,
)


def reference(strength: float):
    """scikit-learn end to end, in float64 and to a far tighter tolerance."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, tol=1e-9, max_iter=10_000))


def test_equals_a_pipeline_of_scikit_learn(blobs):
    features, labels, groups = blobs
    probe = fit_probe(features[:180], labels[:180], groups[:180], seed=0)
    expected = (
        reference(probe.strength)
        .fit(features[:180].astype(float), labels[:180])
        .predict_proba(features[180:])
    )
    assert np.abs(probe.probabilities(features[180:]) - expected).max() < 5e-3
    assert probe.converged


def test_the_strength_is_the_grids_best_by_an_independent_cross_validation(blobs):
    features, labels, groups = blobs
    chosen, tried = choose_strength(features, labels, groups, seed=0)
    losses = {}
    for strength in GRID:
        parts = [
            (reference(strength).fit(features[fit], labels[fit]).predict_proba(features[out]), labels[out])
            for fit, out in inner_splits(labels, groups, 0)
        ]
        answers, truth = np.concatenate([p for p, _ in parts]), np.concatenate([t for _, t in parts])
        losses[strength] = reference_log_loss(truth, answers)
    assert chosen == min(losses, key=losses.get)
    for strength in tried:
        # Weaker penalties than the best are looked at only to know that they are worse, and converge slowly.
        assert tried[strength] == pytest.approx(losses[strength], abs=2e-3 if strength <= chosen else 2e-2)


def test_scale_and_shift_of_features_change_nothing(blobs):
    features, labels, groups = blobs
    scales = np.float32(2.0) ** np.arange(-40, 8, 4)
    plain, moved = (fit_probe(x, labels, groups, 0) for x in (features, features * scales))
    assert plain.strength == moved.strength
    assert np.abs(plain.probabilities(features) - moved.probabilities(features * scales)).max() < 1e-4


def test_constant_and_minute_features():
    rng = np.random.default_rng(0)
    informative = rng.normal(size=300).astype(np.float32)
    labels = (informative > 0).astype(int)
    features = np.stack(
        [
            informative * 1e-12,
            np.zeros(300),
            np.full(300, 3.3),
            np.full(300, 7e-41),
            5 + 1e-7 * rng.normal(size=300),
        ],
        1,
    ).astype(np.float32)
    mean, scale = standardisation(features)
    standard = standardise(features, mean, scale)
    assert np.isfinite(standard).all()
    assert standard[:, 0].std() == pytest.approx(1, abs=1e-3)
    assert np.abs(standard[:, 1:]).max() < 1e-5  # rounding is not blown up
    probe = fit_probe(features, labels, np.arange(300), 0)
    assert (probe.probabilities(features).argmax(1) == labels).mean() > 0.97


def test_two_classes_give_two_columns(blobs):
    features, labels, groups = blobs
    pair = labels < 2
    probe = fit_probe(features[pair], labels[pair], groups[pair], 0)
    expected = reference(probe.strength).fit(features[pair], labels[pair]).predict_proba(features)
    assert probe.probabilities(features).shape == (240, 2)
    assert np.abs(probe.probabilities(features) - expected).max() < 5e-3


def test_labels_of_test_images_are_never_used(blobs, tmp_path):
    features, labels, groups = blobs
    np.savez(tmp_path / "f.npz", features=features)
    train, test = np.flatnonzero(groups < 60), np.flatnonzero(groups >= 60)
    shuffled = labels.copy()
    shuffled[test] = np.random.default_rng(0).permutation(labels[test])
    (first,), _ = feature_trial("probe", tmp_path / "f.npz", labels, groups, train, test, 0)
    (second,), _ = feature_trial("probe", tmp_path / "f.npz", shuffled, groups, train, test, 0)
    assert np.array_equal(first, second)


def test_test_features_do_not_reach_training(blobs):
    features, labels, groups = blobs
    train = groups < 60
    probe = fit_probe(features[train], labels[train], groups[train], 0)
    assert np.array_equal(probe.mean, features[train].mean(0, dtype=np.float64).astype(np.float32))


def test_a_single_group_in_a_class_takes_the_fallback(blobs):
    features, labels, _ = blobs
    few = np.array([np.flatnonzero(labels == k)[0] for k in range(4)] + [4, 5])
    probe = fit_probe(features[few], labels[few], few, 0)
    assert probe.strength == FALLBACK
    assert probe.tried == {}


def test_a_missing_class_is_an_error(blobs):
    features, labels, groups = blobs
    keep = labels != 1
    with pytest.raises(ValueError, match="class"):
        fit_probe(features[keep], labels[keep], groups[keep], 0)


def test_softmax_and_log_loss_against_references():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 300, (50, 4))
    probabilities = softmax(logits)
    assert np.isfinite(probabilities).all()
    assert probabilities.sum(1) == pytest.approx(np.ones(50), abs=1e-6)
    mild = softmax(logits / 300)
    labels = rng.integers(0, 4, 50)
    assert log_loss(mild, labels) == pytest.approx(
        reference_log_loss(labels, mild.astype(float), labels=range(4)), rel=1e-5
    )
