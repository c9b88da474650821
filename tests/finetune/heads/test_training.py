import dataclasses
import json

import keras
import numpy as np
import pytest

from mri_transfer.checkpoints.backbones import build_encoder
from mri_transfer.checkpoints.state import load_state
from mri_transfer.errors import UserError
from mri_transfer.finetune.config import Recipe
from mri_transfer.finetune.heads.classifier import CARD, load_classifier, save_classifier, with_probe_head
from mri_transfer.finetune.heads.features import extract_features
from mri_transfer.finetune.heads.probe import fit_probe
from mri_transfer.finetune.heads.training import (
    Augmentation,
    Finetuning,
    Light,
    balanced_weights,
    epoch_order,
    train,
    unfreeze_upper,
)
from mri_transfer.storage.files import read_object
from tests.finetune.small_network import CLASSES, SIZE, small_encoder, stripes

RECIPE = Recipe(epochs=3, batch=8, rate=3e-3, unfreeze=0.5)


@pytest.fixture(scope="module")
def pictures():
    """Images, labels, and a group for each."""
    return (*stripes(), np.arange(24))


def start(pictures):
    images, labels, groups = pictures
    encoder = small_encoder()
    return with_probe_head(encoder, fit_probe(extract_features(encoder, images), labels, groups, 0), CLASSES)


@pytest.fixture(scope="module")
def trained(pictures):
    """Weights before and after fine-tuning, the classifier, and what training said."""
    classifier = start(pictures)
    before = {w.path: keras.ops.convert_to_numpy(w).copy() for w in classifier.encoder.weights}
    head = classifier.head_arrays()
    tuning = Finetuning(classifier, *pictures[:2], RECIPE, seed=1)
    return before, head, tuning, train(tuning)


def test_the_head_begins_as_the_probe(pictures):
    images, labels, groups = pictures
    classifier = start(pictures)
    features = extract_features(classifier.encoder, images)
    probe = fit_probe(features, labels, groups, 0)
    assert np.abs(classifier.probabilities(images) - probe.probabilities(features)).max() < 1e-6


def test_only_the_upper_part_changes_and_no_statistic(trained):
    before, head, tuning, _ = trained
    encoder = tuning.classifier.encoder
    changed = {
        weight.path
        for weight in encoder.weights
        if not np.array_equal(before[weight.path], keras.ops.convert_to_numpy(weight))
    }
    upper = {
        weight.path
        for layer in encoder.layers
        if layer.name in tuning.trained
        for weight in layer.trainable_weights
    }
    assert changed
    assert changed <= upper
    assert len(changed) > 0.9 * len(upper)
    assert not any("moving" in path for path in changed)
    after = tuning.classifier.head_arrays()
    assert not np.array_equal(head["kernel"], after["kernel"])
    assert np.array_equal(head["mean"], after["mean"])
    assert np.array_equal(head["scale"], after["scale"])


def test_training_sees_the_statistics_it_keeps(pictures):
    """The first loss is the probe's own; batch statistics in batch normalisation would change it."""
    images, labels, _ = pictures
    plain = Recipe(epochs=1, batch=24, smoothing=0, rotation=0, zoom=0, shift=0, light=0, flip=False)
    classifier = start(pictures)
    probabilities = classifier.probabilities(images)
    loss = Finetuning(classifier, images, labels, plain, 0).step(np.arange(24))
    assert loss == pytest.approx(-np.log(probabilities[np.arange(24), labels]).mean(), rel=1e-3)


def test_training_lowers_the_loss(trained):
    *_, tuning, history = trained
    assert tuning.epoch == RECIPE.epochs
    assert len(history["losses"]) == RECIPE.epochs
    assert history["losses"][-1] < history["losses"][0]
    assert not history["diverged"]


def test_the_same_seed_gives_the_same_classifier_also_when_continued(trained, pictures, tmp_path):
    images = pictures[0]
    expected = trained[2].classifier.probabilities(images)
    first = Finetuning(start(pictures), *pictures[:2], RECIPE, seed=1)
    first.train_epoch()
    first.train_epoch()
    first.save(tmp_path)
    del first
    continued = Finetuning(start(pictures), *pictures[:2], RECIPE, seed=1)
    arrays, info = load_state(tmp_path)
    continued.resume(arrays, info["epoch"])
    assert continued.epoch == 2
    train(continued)
    assert np.abs(continued.classifier.probabilities(images) - expected).max() < 1e-4


def test_divergence_is_reported_and_stops(pictures):
    classifier = start(pictures)
    classifier.head.kernel.assign(classifier.head.kernel * np.nan)
    history = train(Finetuning(classifier, *pictures[:2], RECIPE, seed=1))
    assert history["diverged"]
    assert history["losses"] == []


def test_a_last_step_that_breaks_the_weights_is_divergence(pictures, monkeypatch):
    finetuning = Finetuning(start(pictures), *pictures[:2], RECIPE, seed=1)
    epoch, bias = finetuning.train_epoch, finetuning.classifier.head.bias

    def broken(on_step):
        loss = epoch(on_step)
        bias.assign(bias * np.inf * 0)
        return loss

    monkeypatch.setattr(finetuning, "train_epoch", broken)
    assert train(finetuning)["diverged"]
    assert finetuning.epoch == 1


def test_saved_and_loaded_predicts_the_same(pictures, tmp_path):
    images, labels, groups = pictures
    encoder = build_encoder(size=SIZE, seed=0)
    classifier = with_probe_head(
        encoder, fit_probe(extract_features(encoder, images), labels, groups, 0), CLASSES
    )
    classifier = dataclasses.replace(classifier, temperature=1.75)
    save_classifier(classifier, tmp_path, backbone="efficientnet_lite0", provenance={})
    loaded = load_classifier(tmp_path)
    assert loaded.classes == CLASSES
    probabilities = loaded.probabilities(images)
    assert np.array_equal(probabilities, classifier.probabilities(images))
    sharper = dataclasses.replace(loaded, temperature=1.0).probabilities(images).astype(float) ** (1 / 1.75)
    assert probabilities == pytest.approx(sharper / sharper.sum(-1, keepdims=True), abs=1e-6)

    card = read_object(tmp_path / CARD)
    text = (tmp_path / CARD).read_text()
    (tmp_path / CARD).write_text(text.replace('"a"', '"d"'))
    with pytest.raises(UserError, match="changed after it was written"):
        load_classifier(tmp_path)
    (tmp_path / CARD).write_text(json.dumps(json.loads(text) | {"classes": list(CLASSES[::-1])}))
    with pytest.raises(UserError, match="changed after it was written"):
        load_classifier(tmp_path)
    (tmp_path / CARD).write_text(json.dumps({**card, "classes": [CLASSES[0]] * len(CLASSES)}))
    with pytest.raises(UserError, match="damaged \\(classes\\)"):
        load_classifier(tmp_path)
    (tmp_path / CARD).write_text(json.dumps({**card, "format": 99}))
    with pytest.raises(UserError, match="newer mri-transfer"):
        load_classifier(tmp_path)
    (tmp_path / CARD).write_text(json.dumps({**card, "temperature": 0.0}))
    with pytest.raises(UserError, match="damaged \\(temperature\\)"):
        load_classifier(tmp_path)
    del card["temperature"]  # as written before there was one
    (tmp_path / CARD).write_text(json.dumps({**card, "format": 1}))
    assert load_classifier(tmp_path).temperature == 1.0


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_share_is_counted_from_the_top(share):
    encoder = small_encoder()
    weighted = [layer.name for layer in encoder.layers if layer.weights]
    names = unfreeze_upper(encoder, share)
    assert names == weighted[len(weighted) - round(share * len(weighted)) :]
    assert [layer.name for layer in encoder.layers if layer.weights and layer.trainable] == names


def test_epoch_order_shows_every_image_and_fills_up():
    order = epoch_order(10, 4, seed=0, epoch=0)
    assert order.shape == (3, 4)
    assert set(order.ravel()) == set(range(10))
    assert np.bincount(order.ravel()).max() == 2
    assert not np.array_equal(order, epoch_order(10, 4, seed=0, epoch=1))


def test_balanced_weights_give_each_class_the_same_sum():
    labels = np.array([0] * 6 + [1] * 3 + [2])
    weights = balanced_weights(labels, 3)[labels]
    assert [weights[labels == k].sum() for k in range(3)] == pytest.approx([10 / 3] * 3)
    assert weights.mean() == pytest.approx(1)


def test_augmentation_keeps_range_and_black_and_repeats_an_epoch(pictures):
    images = pictures[0][..., None].astype("float32")
    augmentation = Augmentation(Recipe(), seed=4)

    def changed(epoch):
        augmentation.restart(epoch)
        batch = images
        for layer in augmentation.layers:
            batch = layer(batch, training=True)
        return keras.ops.convert_to_numpy(batch)

    first = changed(0)
    assert first.min() >= 0
    assert first.max() <= 255
    assert np.array_equal(first, changed(0))
    assert not np.array_equal(first, changed(1))
    assert np.abs(first - images).mean() > 5


def test_light_leaves_black_black_and_keeps_order():
    ramp = np.linspace(0, 255, 64, dtype=np.float32).reshape(1, 8, 8, 1)
    output = keras.ops.convert_to_numpy(Light(0.3, seed=0)(np.repeat(ramp, 16, 0), training=True))
    assert output[:, 0, 0, 0].max() < 0.01
    assert (np.diff(output.reshape(16, -1), axis=1) >= 0).all()
    assert output[:, 4, 4, 0].std() > 1
    assert np.array_equal(keras.ops.convert_to_numpy(Light(0.3, seed=0)(ramp)), ramp)
