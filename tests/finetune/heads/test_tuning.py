import dataclasses

import keras
import numpy as np
import pytest

from mri_transfer.checkpoints.state import save_state
from mri_transfer.errors import UserError
from mri_transfer.finetune.config import Recipe
from mri_transfer.finetune.heads.features import extract_features
from mri_transfer.finetune.heads.temperature import fit_temperature
from mri_transfer.finetune.heads.training import Finetuning
from mri_transfer.finetune.heads.tuning import Tuning
from tests.finetune.small_network import CLASSES, small_encoder, stripes

ALL = Recipe(
    epochs=2,
    batch=16,
    rates=(1e-4, 3e-3),
    decay=0.8,
    gradual=0.5,
    smoothing=0.05,
    average=0.5,
    calibration="temperature",
    early_stopping=True,
)


@pytest.fixture(scope="module")
def pictures():
    """Images, labels, groups of three of one class that are no neighbours, and features."""
    images, labels = stripes(45)
    return (
        images,
        labels,
        labels + 3 * (np.arange(45) // 9),
        extract_features(small_encoder(), images),
    )


def tuning_of(pictures, recipe=ALL, groups=None) -> Tuning:
    images, labels, own_groups, features = pictures
    return Tuning(
        small_encoder(),
        features,
        images,
        labels,
        own_groups if groups is None else groups,
        CLASSES,
        recipe,
        0,
    )


def weights_of(tuning) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(weight).copy() for weight in tuning.finetuning.model.weights]


@pytest.fixture(scope="module")
def finished(pictures):
    """An undisturbed tuning with everything on, what it says, and the trainings it did as (images, rate, epochs)."""
    starts = []
    begin = Finetuning.begin

    def noted(self, images, labels, probe, **options):
        starts.append((images, labels, options["rate"], options["epochs"]))
        begin(self, images, labels, probe, **options)

    Finetuning.begin = noted
    try:
        tuning = tuning_of(pictures)
        return tuning, tuning.run(), starts
    finally:
        Finetuning.begin = begin


def test_no_inner_training_sees_a_group_that_is_held_out(finished, pictures):
    tuning, _, starts = finished
    images, labels, groups, _ = pictures
    fit, held = tuning.inner
    assert not set(groups[fit]) & set(groups[held])
    assert sorted([*fit, *held]) == list(range(45))
    assert set(labels[held]) == {0, 1, 2}
    *inner, last = starts
    assert len(inner) == 3
    for inputs, targets, *_ in inner:
        assert np.array_equal(inputs, images[fit])
        assert np.array_equal(targets, labels[fit])
    assert np.array_equal(last[0], images)


def test_images_held_out_don_t_influence_the_inner_training(pictures):
    images, labels, groups, features = pictures
    first = tuning_of(pictures)
    held = first.inner[1]
    changed = images.copy(), features.copy()
    changed[0][held] = 255 - images[held]
    changed[1][held] = features[held][::-1] * 3
    second = tuning_of((changed[0], labels, groups, changed[1]))
    assert not np.array_equal(first.probe.kernel, second.probe.kernel)  # that of all images
    assert first.finetuning.train_epoch() == second.finetuning.train_epoch()


def test_the_rate_that_did_best_is_taken_and_shown(finished):
    tuning, details, starts = finished
    assert list(details["rates"]) == ["0.0001", "0.003"]
    best = min(details["rates"], key=details["rates"].get)
    assert details["rate"] == float(best)
    assert [rate for *_, rate, _ in starts] == [1e-4, 3e-3, float(best), float(best)]
    assert [epochs for *_, epochs in starts] == [1, 1, 2, 2]
    assert tuning.finetuning.schedule.highest[0] == float(best)


def test_a_rate_at_which_training_diverges_is_not_taken(pictures):
    tuning = tuning_of(pictures)
    tuning.about["rates"] = {"0.0001": None, "0.003": 0.7}
    assert tuning.rate == 3e-3
    tuning.about["rates"] = {"0.0001": 0.9, "0.003": None}
    assert tuning.rate == 1e-4


def test_the_last_training_is_as_long_as_was_best_and_its_temperature_is_of_that_epoch(finished):
    tuning, details, _ = finished
    losses = [training["calibrated"] for training in details["inner"]]
    assert len(losses) == 2
    assert (
        details["epochs"] == 1 + int(np.argmin(losses)) == tuning.finetuning.epoch == len(details["losses"])
    )
    assert details["temperature"] == details["inner"][details["epochs"] - 1]["temperature"]
    assert tuning.classifier.temperature == details["temperature"]
    assert all(training["calibrated"] <= training["log_loss"] for training in details["inner"])


@pytest.mark.slow
def test_the_temperature_is_that_of_images_held_out(pictures):
    """By hand: train on the inner split alone, and fit on the rest."""
    recipe = dataclasses.replace(ALL, rates=(), early_stopping=False, epochs=1)
    tuning = tuning_of(pictures, recipe)
    held = tuning.inner[1]
    alone = tuning_of(pictures, recipe).finetuning
    alone.train_epoch()
    alone.finish()
    logits = alone.classifier.logits(pictures[0][held], None)
    assert tuning.run()["temperature"] == pytest.approx(fit_temperature(logits, pictures[1][held]), rel=1e-3)


def test_statistics_and_frozen_layers_stay_through_all_stages(finished):
    tuning = finished[0]
    before = small_encoder()
    frozen = 0
    for old, new in zip(before.layers, tuning.classifier.encoder.layers, strict=True):
        keeps = {weight.path for weight in new.non_trainable_weights}
        for a, b in zip(old.weights, new.weights, strict=True):
            same = np.array_equal(keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b))
            if b.path in keeps:
                frozen += 1
                assert same
    assert frozen > 6


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"epoch": None}, "epoch"),
        ({"epoch": 99}, "epoch"),
        ({"stage": -1}, "stage"),
        ({"stage": 99}, "stage"),
        ({"rates": []}, "rates"),
        ({"rates": {"0.003": "low"}}, "rates"),
        ({"inner": [{"calibrated": 1.0}]}, "inner"),
        ({"inner": [{"log_loss": 1.0, "calibrated": 1.0, "temperature": 0}]}, "inner"),
    ],
)
def test_kept_facts_of_other_values_are_refused(pictures, tmp_path, change, fault):
    facts = {"epoch": 0, "stage": 0, "losses": [], "rates": {}, "inner": []}
    save_state(tmp_path, {"a": np.zeros(1)}, facts | change)
    with pytest.raises(UserError, match=rf"is damaged \({fault}\); delete the folder to start over"):
        tuning_of(pictures).restore(tmp_path)


@pytest.mark.parametrize(
    "stop", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(4, marks=pytest.mark.slow)]
)
def test_interrupted_anywhere_it_ends_with_the_same_bits(finished, pictures, tmp_path, stop, monkeypatch):
    """With choice of the rate, calibration, early stopping, averaging, smoothing and gradual unfreezing."""
    epoch, trained = Finetuning.train_epoch, []

    def interrupted(self, on_step=None):
        if len(trained) == stop:
            raise KeyboardInterrupt
        trained.append(self.epoch)
        return epoch(self, on_step)

    with monkeypatch.context() as patch:
        patch.setattr(Finetuning, "train_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tuning_of(pictures).run(state=tmp_path)
    tuning, expected = tuning_of(pictures), finished[1]
    assert tuning.restore(tmp_path)
    result = tuning.run(state=tmp_path)
    same = set(expected) - {"seconds"}
    assert {key: result[key] for key in same} == {key: expected[key] for key in same}
    for a, b in zip(weights_of(tuning), weights_of(finished[0]), strict=True):
        assert np.array_equal(a, b)


def test_groups_that_allow_no_inner_split_train_at_the_middle_rate(pictures):
    tuning = tuning_of(pictures, dataclasses.replace(ALL, rates=(1e-4, 1e-3, 1e-2)), groups=pictures[1])
    assert tuning.inner is None
    assert [str(stage) for stage in tuning.stages] == ["all images"]
    assert tuning.stage.rate == 1e-3
    assert tuning.temperature == 1.0


def test_without_epochs_the_probe_is_the_classifier(pictures):
    tuning = tuning_of(pictures, dataclasses.replace(ALL, epochs=0))
    result = tuning.run()
    assert (result["epochs"], result["temperature"], result["losses"]) == (0, 1.0, [])
    np.testing.assert_allclose(
        tuning.classifier.probabilities(pictures[0]), tuning.probe.probabilities(pictures[3]), atol=1e-5
    )


def test_trainings_at_a_time_follow_from_memory(monkeypatch):
    from mri_transfer.finetune.comparison import tuning_trials

    monkeypatch.setattr(tuning_trials.device, "has_gpu", lambda: False)
    monkeypatch.setattr(tuning_trials.device, "cores", lambda: 8)
    for room, expected in ((None, 8), (1e9, 1), (6e9, 2), (1e12, 8)):
        monkeypatch.setattr(tuning_trials.memory, "available_bytes", lambda room=room: room)
        assert tuning_trials.processes_for_training() == expected
    monkeypatch.setattr(tuning_trials.device, "has_gpu", lambda: True)
    assert tuning_trials.processes_for_training() == 1
