"""Fused batch normalisation is Keras' own, in numbers, gradients and moving averages."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from mri_transfer.checkpoints.backbones import build_encoder, leaf_layers
from mri_transfer.checkpoints.normalization import fuse_batch_normalization


def layer_of(model):
    return next(layer for layer in model.layers if isinstance(layer, layers.BatchNormalization))


def fused(shape=(None, None, 5), **options):
    """A model of one fused layer."""
    x = keras.Input(shape)
    model = keras.Model(x, layers.BatchNormalization(**options)(x))
    fuse_batch_normalization(model)
    return model


def pair(**options):
    """A fused layer and Keras' own with the same weights, for maps of 5 channels."""
    rng = np.random.default_rng(0)
    values = [rng.uniform(0.5, 2, 5), rng.normal(size=5), rng.normal(size=5), rng.uniform(0.5, 2, 5)]
    ours = layer_of(fused(epsilon=1e-3, momentum=0.9, **options))
    theirs = layers.BatchNormalization(epsilon=1e-3, momentum=0.9, **options)
    theirs.build((None, None, None, 5))
    for layer in (ours, theirs):
        layer.set_weights(values)
    return ours, theirs


@pytest.fixture
def maps():
    return np.random.default_rng(1).normal(3.0, 2.0, (4, 6, 7, 5)).astype("float32")


@pytest.mark.parametrize("training", [True, False])
def test_the_same_output_and_moving_averages(maps, training):
    ours, theirs = pair()
    for _ in range(3):
        a, b = ours(maps, training=training), theirs(maps, training=training)
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=2e-5)
    for x, y in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5)


def test_a_frozen_layer_uses_and_keeps_its_averages(maps):
    ours, theirs = pair(trainable=False)
    before = ours.get_weights()
    np.testing.assert_allclose(
        np.asarray(ours(maps, training=True)), np.asarray(theirs(maps, training=True)), atol=2e-5
    )
    assert all(np.array_equal(x, y) for x, y in zip(before, ours.get_weights(), strict=True))


@pytest.mark.parametrize("training", [True, False])
def test_the_same_gradients(maps, training):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("other backends run Keras' own")
    import tensorflow as tf

    gradients = []
    for layer in pair():
        x = tf.constant(maps)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.sin(layer(x, training=training)) * tf.range(5, dtype="float32"))
        gradients.append(tape.gradient(loss, [x, layer.gamma.value, layer.beta.value]))
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_allclose(a, b, atol=5e-4)


@pytest.mark.parametrize("options", [{"scale": False}, {"center": False}, {"axis": 1}, {"epsilon": 1e-6}])
def test_what_the_operation_cannot_do_is_left_to_keras(options):
    x = np.random.default_rng(2).normal(size=(3, 4, 4, 4)).astype("float32")
    ours, theirs = layer_of(fused((4, 4, 4), **options)), layers.BatchNormalization(**options)
    assert "call" not in vars(ours)
    np.testing.assert_allclose(
        np.asarray(ours(x, training=True)), np.asarray(theirs(x, training=True)), atol=1e-6
    )
    np.testing.assert_allclose(np.asarray(ours(x)), np.asarray(theirs(x)), atol=1e-6)


def test_vectors_are_normalised_as_well():
    x = np.random.default_rng(3).normal(2, 3, (16, 5)).astype("float32")
    y = np.asarray(fused((5,))(x, training=True))
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(0), 1, atol=1e-3)


def test_half_precision_keeps_float32_averages(maps):
    layer = layer_of(fused(dtype="mixed_bfloat16", epsilon=1e-3))
    y = layer(ops.cast(maps, "bfloat16"), training=True)
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    assert all(weight.dtype == "float32" for weight in layer.get_weights())
    np.testing.assert_allclose(np.asarray(ops.cast(y, "float32")).mean((0, 1, 2)), 0, atol=0.02)


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "mobilenet"])
def test_every_backbone_is_fused(backbone):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("other backends run Keras' own")
    norms = [
        layer
        for _, layer in leaf_layers(build_encoder(backbone, 32))
        if isinstance(layer, layers.BatchNormalization)
    ]
    assert norms
    assert all("call" in vars(layer) for layer in norms)
