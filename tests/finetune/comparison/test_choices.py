import pytest

from mri_transfer.finetune.comparison.choices import choices, in_words


def ended(rate, temperature, before, after):
    scores = {"brier": 0.3, "ece": 0.1}
    return {
        "rate": rate,
        "epochs": 12,
        "temperature": temperature,
        "uncalibrated": {"log_loss": before, **scores},
        "calibrated": {"log_loss": after, **scores, "ece": 0.04},
    }


DIVERGED = {"rate": 0.1, "epochs": 12, "temperature": 1.0, "diverged": True}
TRIALS = [ended(1e-3, 1.5, 0.8, 0.6), ended(1e-4, 1.1, 0.6, 0.5), ended(1e-3, 1.3, 0.7, 0.4), DIVERGED, {}]


def test_choices_are_counted_and_scores_averaged_over_trials_that_ended():
    summary = choices(TRIALS)
    assert summary["rates"] == {"0.0001": 1, "0.001": 2}
    assert summary["epochs"] == {"12": 3}
    assert summary["temperature"] == {"median": 1.3, "low": 1.1, "high": 1.5}
    assert summary["uncalibrated"]["log_loss"] == pytest.approx(0.7)
    assert summary["calibrated"] == pytest.approx({"log_loss": 0.5, "brier": 0.3, "ece": 0.04})


def test_they_are_told_in_words():
    words = in_words(choices(TRIALS))
    assert words["learning rate"] == "0.0001 in 1 of 3 trials, 0.001 in 2 of 3 trials"
    assert words["epochs"] == "12"
    assert words["temperature"] == "1.30 (1.10 to 1.50)"
    assert words["log loss before and after calibration"] == "0.700 and 0.500"


def test_without_calibration_or_trials_there_is_less_to_tell():
    assert choices([DIVERGED, {}]) == {}
    assert in_words({}) == {}
    assert set(in_words(choices([ended(1e-3, 1.0, 0.8, 0.8)]))) == {"learning rate", "epochs"}
