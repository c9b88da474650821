"""The control of scale: the trained network's figures, and nothing else of it."""

import keras
import numpy as np
import pytest
from keras import layers

from mri_transfer.checkpoints.rescaling import like, noise, rescale_at_random


def encoder(seed=0) -> keras.Model:
    """A small one whose weights are no longer those it was built with."""
    image = keras.Input((16, 16, 1))
    x = layers.Normalization(mean=[3.0], variance=[4.0])(image)
    for width in (8, 12):
        x = layers.Conv2D(width, 3, padding="same", name=f"conv_{width}")(x)
        x = layers.BatchNormalization(name=f"norm_{width}")(x)
        x = layers.ReLU()(x)
    model = keras.Model(image, layers.GlobalAveragePooling2D()(x))
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(rng.gamma(2.0, 1.0, variable.shape) - 1.5)
    return model


def arrays(model) -> dict[str, np.ndarray]:
    return {
        f"{layer.name}/{weight.name}": np.array(weight) for layer in model.layers for weight in layer.weights
    }


def test_every_layer_keeps_mean_and_deviation_and_loses_the_rest():
    model = encoder()
    before = arrays(model)
    rescale_at_random(model, 0)
    after = arrays(model)
    trained = [name for name in before if name.split("/")[1] in ("kernel", "bias", "gamma", "beta")]
    assert len(trained) == 8
    for name in trained:
        assert after[name].mean() == pytest.approx(before[name].mean(), abs=1e-5)
        assert after[name].std() == pytest.approx(before[name].std(), rel=1e-4)
    kernel = "conv_12/kernel"
    assert abs(np.corrcoef(before[kernel].ravel(), after[kernel].ravel())[0, 1]) < 0.12


def test_activations_are_of_the_scale_that_normalisation_expects():
    """Batch normalisation with its own statistics gives what it would with those of the pictures of noise."""
    model = encoder()
    rescale_at_random(model, 3)
    norm = model.get_layer("norm_12")
    probe = keras.Model(model.input, [norm.input, norm.output])
    before, after = probe(noise(64, 16, 3)[..., None], training=False)
    before, after = np.array(before), np.array(after)
    scaled = (before - before.mean((0, 1, 2))) / np.sqrt(before.var((0, 1, 2)) + norm.epsilon)
    expected = scaled * np.array(norm.gamma) + np.array(norm.beta)
    np.testing.assert_allclose(after, expected, atol=2e-2)
    assert norm.momentum == 0.99  # as it was


def test_what_is_not_learned_stays():
    model = encoder()
    normalization = next(layer for layer in model.layers if isinstance(layer, layers.Normalization))
    before = [np.array(normalization.mean), np.array(normalization.variance)]
    rescale_at_random(model, 0)
    assert all(map(np.array_equal, before, [np.array(normalization.mean), np.array(normalization.variance)]))


def test_the_seed_decides():
    first, repeated, other = encoder(), encoder(), encoder()
    for model, seed in ((first, 1), (repeated, 1), (other, 2)):
        rescale_at_random(model, seed)
    assert all(np.array_equal(a, b) for a, b in zip(first.get_weights(), repeated.get_weights(), strict=True))
    assert not np.array_equal(first.get_layer("conv_8").kernel, other.get_layer("conv_8").kernel)


def test_a_single_weight_keeps_its_value():
    assert like(np.array([5.0]), np.array([2.0])) == 2.0


def test_pictures_of_noise_are_smooth_and_in_range():
    pictures = noise(8, 32, 0)
    assert pictures.shape == (8, 32, 32)
    assert pictures.min() >= 0
    assert pictures.max() <= 255
    neighbours = np.corrcoef(pictures[:, :, 1:].ravel(), pictures[:, :, :-1].ravel())[0, 1]
    assert neighbours > 0.6
