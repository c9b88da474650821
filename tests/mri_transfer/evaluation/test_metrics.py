"""Scores from sums over groups, against scikit-learn on images that are really repeated."""

import numpy as np
import pytest
from sklearn import metrics as reference

from mri_transfer.evaluation import metrics

CLASSES = 4


@pytest.fixture(params=range(4))
def case(request):
    """Labels (n,), probabilities (2, n, 4) with ties, groups (n,) and a resample of the groups."""
    generator = np.random.default_rng(request.param)
    n, count = 240, 30
    labels = generator.integers(CLASSES, size=n)
    groups = generator.integers(count, size=n)
    groups[:count] = np.arange(count)
    probabilities = generator.dirichlet(np.ones(CLASSES), size=(2, n)) + 0.4 * np.eye(CLASSES)[labels]
    probabilities = np.round(probabilities / probabilities.sum(-1, keepdims=True), 2)
    probabilities = (probabilities / probabilities.sum(-1, keepdims=True)).astype(np.float32)
    weights = np.bincount(generator.integers(count, size=count), minlength=count)
    repeated = np.repeat(np.arange(n), weights[groups])
    return labels, probabilities, groups, count, weights, repeated


def test_confusion_scores_equal_sklearn_on_repeated_images(case):
    labels, probabilities, groups, count, weights, repeated = case
    predicted = probabilities.argmax(-1)
    by_group = metrics.confusion_by_group(labels, predicted, groups, count, CLASSES)
    confusion = np.tensordot(weights.astype(float), by_group, axes=1)
    for seed in range(2):
        y, guess = labels[repeated], predicted[seed][repeated]
        classes = range(CLASSES)
        np.testing.assert_array_equal(confusion[seed], reference.confusion_matrix(y, guess, labels=classes))
        value = metrics.macro_f1(confusion)[seed]
        assert value == pytest.approx(reference.f1_score(y, guess, average="macro"))
        value = metrics.balanced_accuracy(confusion)[seed]
        assert value == pytest.approx(reference.balanced_accuracy_score(y, guess))
        assert metrics.accuracy(confusion)[seed] == pytest.approx(reference.accuracy_score(y, guess))
        value = metrics.recall(confusion)[seed]
        np.testing.assert_allclose(value, reference.recall_score(y, guess, average=None, labels=classes))


@pytest.mark.parametrize("classes", [2, 3, 5, 7])
def test_each_image_counts_once_whatever_the_number_of_classes(classes):
    generator = np.random.default_rng(classes)
    labels, predicted = generator.integers(classes, size=60), generator.integers(classes, size=(3, 60))
    groups = generator.integers(4, size=60)  # the fifth is empty
    expected = np.zeros((5, 3, classes, classes))
    for seed, image in np.ndindex(3, 60):
        expected[groups[image], seed, labels[image], predicted[seed, image]] += 1
    np.testing.assert_array_equal(metrics.confusion_by_group(labels, predicted, groups, 5, classes), expected)


def test_losses_equal_sklearn(case):
    labels, probabilities, groups, count, weights, repeated = case
    sums = np.tensordot(weights.astype(float), metrics.loss_by_group(labels, probabilities, groups, count), 1)
    for seed in range(2):
        y, p = labels[repeated], probabilities[seed][repeated].astype(np.float64)
        p = p / p.sum(-1, keepdims=True)
        log_loss = reference.log_loss(y, p.astype(np.float32), labels=range(CLASSES))
        assert sums[seed, 0] / sums[seed, 2] == pytest.approx(log_loss, rel=1e-4)
        one_against_rest = [reference.brier_score_loss(y == k, p[:, k]) for k in range(CLASSES)]
        assert sums[seed, 1] / sums[seed, 2] == pytest.approx(sum(one_against_rest), rel=1e-5)
        assert sums[seed, 2] == len(repeated)


def test_auroc_equals_sklearn_with_ties(case):
    labels, probabilities, groups, count, weights, repeated = case
    stack = np.stack([np.ones(count), weights])
    scores = metrics.MacroAuroc(labels, groups, stack, CLASSES)(probabilities)
    for seed in range(2):
        for row, images in enumerate((np.arange(labels.size), repeated)):
            p = probabilities[seed][images]
            areas = [reference.roc_auc_score(labels[images] == k, p[:, k]) for k in range(CLASSES)]
            assert scores[row, seed] == pytest.approx(np.mean(areas), rel=1e-6)


def test_calibration_error_equals_a_plain_loop(case):
    labels, probabilities, groups, count, _, _ = case
    bins = metrics.calibration_by_group(labels, probabilities, groups, count, bins=10).sum(0)
    for seed, p in enumerate(probabilities.astype(np.float64)):
        confidence, right = p.max(-1), p.argmax(-1) == labels
        error = 0.0
        for i in range(10):
            inside = (confidence > i / 10) & (confidence <= (i + 1) / 10)
            if inside.any():
                error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
        assert metrics.expected_calibration_error(bins)[seed] == pytest.approx(error)


def test_each_image_is_in_the_bin_of_its_confidence():
    """Bins of equal width that hold their upper end, up to the last: two images just above and at the top of each."""
    bins = 15
    tops = np.arange(bins // 2 + 1, bins + 1) / bins  # of two classes the surer has at least a half
    confidence = np.repeat(np.stack([tops - 0.4 / bins, tops - 1e-6], axis=1).ravel(), 2)
    right = np.arange(confidence.size) % 2 == 0
    probabilities = np.stack([confidence, 1 - confidence], axis=1)[None]
    table = metrics.calibration_by_group(np.where(right, 0, 1), probabilities, np.zeros(right.size, int), 1)
    assert table.shape == (1, 1, bins, 3)
    images, summed, hits = np.moveaxis(table[0, 0], -1, 0)
    expected, edges = np.histogram(confidence, bins, (0, 1))
    np.testing.assert_array_equal(images, expected)
    assert set(images[-8:]) == {4}
    np.testing.assert_allclose(summed, np.histogram(confidence, edges, weights=confidence)[0])
    np.testing.assert_array_equal(hits, images / 2)


def test_perfect_calibration_has_no_error():
    labels = np.array([0, 0, 0, 1])
    probabilities = np.full((1, 4, 2), (0.75, 0.25), dtype=np.float32)
    bins = metrics.calibration_by_group(labels, probabilities, np.zeros(4, int), 1).sum(0)
    assert metrics.expected_calibration_error(bins)[0] == pytest.approx(0, abs=1e-7)


def test_a_class_that_is_absent_is_left_out_of_means():
    confusion = np.array([[3.0, 1.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    y, guess = [0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 1]
    assert metrics.macro_f1(confusion) == pytest.approx(reference.f1_score(y, guess, average="macro"))
    assert metrics.balanced_accuracy(confusion) == pytest.approx(0.875)
    assert np.isnan(metrics.recall(confusion)[2])
    assert np.isnan(metrics.macro_f1(np.zeros((3, 3))))


def test_f1_of_present_classes_leaves_out_one_that_is_only_predicted():
    confusion = np.array([[3.0, 1.0, 2.0], [0.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    f1 = np.array([6 / 9, 8 / 9, 0.0])  # 2TP / (2TP + FP + FN)
    np.testing.assert_allclose(metrics.class_f1(confusion), f1)
    assert metrics.macro_f1(confusion) == pytest.approx(f1.mean())
    assert metrics.macro_f1_of_present(confusion) == pytest.approx(f1[:2].mean())
    assert np.isnan(metrics.macro_f1_of_present(np.zeros((3, 3))))


def test_certain_answers_have_finite_losses():
    labels, certain = np.array([0, 1]), np.array([[[1.0, 0.0], [1.0, 0.0]]])
    tiny = np.finfo(np.float32).eps
    sums = metrics.loss_by_group(labels, certain, np.array([0, 1]), 2)[:, 0]
    np.testing.assert_allclose(sums, [[-np.log(1 - tiny), 0, 1], [-np.log(tiny), 2, 1]])


def test_the_area_leaves_out_a_class_without_another_side():
    labels, groups, weights = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 2]), np.ones((1, 3))
    scores = np.array([[[0.9, 0.1, 0], [0.4, 0.6, 0], [0.5, 0.5, 0], [0.2, 0.8, 0]]])
    # Of four pairs of either class, all but (0.4, 0.5) are in order; nothing is of the third.
    assert metrics.MacroAuroc(labels, groups, weights, 3)(scores)[0, 0] == pytest.approx(0.75)
    assert np.isnan(metrics.MacroAuroc(labels * 0, groups, weights, 2)(scores[..., :2])).all()
    # Without the only group that holds anything of a class, a resample has no area.
    one_side = np.array([[1.0, 1, 1], [0, 0, 1]])
    assert np.isnan(metrics.MacroAuroc(labels, groups, one_side, 3)(scores)[1, 0])


def test_a_calibration_error_of_no_images_is_undefined():
    assert np.isnan(metrics.expected_calibration_error(np.zeros((15, 3))))
