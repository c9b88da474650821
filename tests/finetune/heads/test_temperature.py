import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.metrics import log_loss

from mri_transfer.finetune.heads.temperature import (
    LOWEST,
    calibration_scores,
    fit_temperature,
    log_probabilities,
    tempered_loss,
)


def overconfident(count, temperature, seed=0, classes=4):
    """Logits, and labels drawn from their softmax at the given temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (count, classes))
    labels = (softmax(logits / temperature, axis=1).cumsum(1) < rng.random((count, 1))).sum(1)
    return logits, labels.clip(max=classes - 1)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.5])
def test_the_temperature_that_labels_were_drawn_at_is_found(temperature):
    assert fit_temperature(*overconfident(20_000, temperature)) == pytest.approx(temperature, rel=0.03)


@given(st.integers(0, 10_000), st.sampled_from([0.8, 1.3, 4.0]))
def test_it_is_the_optimum_of_another_solver(seed, temperature):
    logits, labels = overconfident(200, temperature, seed)

    def loss(log_temperature):
        return -log_softmax(logits / np.exp(log_temperature[0]), axis=1)[np.arange(200), labels].mean()

    expected = float(np.exp(minimize(loss, [0.0], method="BFGS").x[0]))
    assert fit_temperature(logits, labels) == pytest.approx(max(expected, LOWEST), rel=1e-3)


def test_a_few_images_that_are_all_right_make_no_one_certain():
    logits, _ = overconfident(5, 1)
    assert fit_temperature(logits, logits.argmax(1)) == pytest.approx(LOWEST, rel=1e-4)


def test_loss_and_probabilities_are_those_of_scipy_also_of_huge_logits():
    logits, labels = overconfident(50, 1)
    expected = log_softmax(logits * 1000 / 1.7, axis=1)
    assert log_probabilities(logits * 1000, 1.7) == pytest.approx(expected)
    assert tempered_loss(logits, labels, 1.7) == pytest.approx(
        log_loss(labels, softmax(logits / 1.7, axis=1), labels=range(4))
    )


def test_scores_are_those_of_the_textbook():
    logits, labels = overconfident(400, 3)
    p = softmax(logits / 1.4, axis=1)
    scores = calibration_scores(logits, labels, 1.4)
    assert scores["log_loss"] == pytest.approx(log_loss(labels, p, labels=range(4)))
    assert scores["brier"] == pytest.approx(((p - np.eye(4)[labels]) ** 2).sum(1).mean())
    confidence, right = p.max(1), p.argmax(1) == labels
    gaps = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        gaps += abs(right[inside].sum() - confidence[inside].sum()) / 400
    assert scores["ece"] == pytest.approx(gaps)


def test_calibration_lowers_what_it_should():
    logits, labels = overconfident(4000, 3)
    temperature = fit_temperature(logits[:2000], labels[:2000])
    before, after = (calibration_scores(logits[2000:], labels[2000:], t) for t in (1.0, temperature))
    assert all(after[key] < before[key] for key in before)
    assert after["ece"] < 0.03 < before["ece"]
