"""Scores and their intervals, against scikit-learn and against a bootstrap that draws images one by one."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, recall_score

from mri_transfer.datasets.audit.scores import recalls, scores
from mri_transfer.evaluation.metrics import balanced_accuracy, confusion, macro_f1


@pytest.fixture
def answers():
    """Labels, two classifiers and groups; the last class never occurs, one that does is never predicted."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    guess = rng.integers(0, 2, 300)
    good = np.where(rng.random(300) < 0.8, labels, guess)
    return labels, np.stack([guess, good]), np.arange(300) // 6


def test_estimates_are_those_of_scikit_learn(answers):
    labels, predictions, groups = answers
    for predicted, score in zip(predictions, scores(labels, predictions, groups, 4, 0.95, 0), strict=True):
        assert score["balanced_accuracy"]["estimate"] == pytest.approx(
            balanced_accuracy_score(labels, predicted)
        )
        assert score["macro_f1"]["estimate"] == pytest.approx(f1_score(labels, predicted, average="macro"))
        assert score["recall"][:3] == pytest.approx(recall_score(labels, predicted, average=None))
        assert score["recall"][3] is None


def test_many_confusions_are_scored_at_once(answers):
    labels, predictions, _ = answers
    counts = np.stack([confusion(labels, predicted, 3) for predicted in predictions])
    assert balanced_accuracy(counts).shape == macro_f1(counts).shape == (2,)
    assert balanced_accuracy(counts)[1] == pytest.approx(np.mean(recalls(counts[1])))


def test_intervals_are_those_of_drawing_whole_groups(answers):
    labels, predictions, groups = answers
    rng = np.random.default_rng(1)
    draws = []
    for _ in range(1000):
        rows = np.concatenate([np.flatnonzero(groups == group) for group in rng.integers(0, 50, 50)])
        draws.append(balanced_accuracy_score(labels[rows], predictions[1][rows]))
    low, high = np.quantile(draws, [0.05, 0.95])
    interval = scores(labels, predictions, groups, 3, 0.9, 0)[1]["balanced_accuracy"]
    assert interval["low"] == pytest.approx(low, abs=0.01)
    assert interval["high"] == pytest.approx(high, abs=0.01)


def test_larger_groups_of_one_answer_widen_the_interval():
    labels = np.tile([0, 1], 100)
    predicted = np.where(np.arange(200) // 20 % 2 == 0, labels, 1 - labels)

    def width(groups):
        interval = scores(labels, predicted[None], groups, 2, 0.95, 0)[0]["balanced_accuracy"]
        return interval["high"] - interval["low"]

    assert width(np.arange(200) // 20) > 3 * width(np.arange(200))
