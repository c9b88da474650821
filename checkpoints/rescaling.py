"""The control for scale: random weights with the mean and standard deviation of each trained layer.

Part of a trained start's benefit may be the scale of its weights rather than what they have learned. Raghu et al. 2019
("Transfusion", arXiv:1902.07208, section 5) separate the two by drawing each layer's weights independently from a
normal distribution with the mean and variance of the trained layer's. If a trained start does no better than this, only
its scale mattered.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

CALIBRATION_IMAGES = 64


def rescale_at_random(model: Any, seed: int) -> None:
    """Replace an encoder's learned weights with noise of the same scale, in place.

    Every trainable weight (kernel, bias, gain, offset) is redrawn, then shifted and scaled to exactly its former mean
    and standard deviation. Batch normalisation's moving statistics no longer describe the activations; they are
    recomputed on noise images, so that activations have the scale the layer was made for, and no data set is needed.

    Args:
        model: an encoder, (batch, size, size, 1) in 0..255.
        seed: of the weights.
    """
    import keras

    from mri_transfer.checkpoints.backbones import leaf_layers

    normalisations = []
    for name, layer in leaf_layers(model):
        for variable in layer.trainable_weights:
            trained = keras.ops.convert_to_numpy(variable).astype(np.float64)
            words = hashlib.sha256(f"{seed}/{name}/{variable.name}".encode()).digest()[:8]
            numbers = np.random.default_rng(int.from_bytes(words, "big")).standard_normal(trained.shape)
            variable.assign(like(numbers, trained).astype(variable.dtype))
        if isinstance(layer, keras.layers.BatchNormalization):
            normalisations.append(layer)
    if not normalisations:
        return
    momenta = [layer.momentum for layer in normalisations]
    for layer in normalisations:
        layer.momentum = 0.0  # the moving statistics become those of the next batch
    try:
        model(noise(CALIBRATION_IMAGES, int(model.input_shape[1]), seed)[..., None], training=True)
    finally:
        for layer, momentum in zip(normalisations, momenta, strict=True):
            layer.momentum = momentum


def like(numbers: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """Random numbers shifted and scaled to the mean and standard deviation of others; a single number is copied."""
    spread = numbers.std()
    return trained.mean() + (numbers - numbers.mean()) * (trained.std() / spread if spread > 0 else 0.0)


def noise(count: int, size: int, seed: int) -> np.ndarray:
    """Noise images, float32 (count, size, size) in 0..255, with amplitudes that fall as 1/f, as in natural images.

    Field 1987, doi:10.1364/JOSAA.4.002379.
    """
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = np.inf  # no mean yet
    spectrum = np.fft.rfft2(rng.standard_normal((count, size, size))) / frequency
    pictures = np.fft.irfft2(spectrum, s=(size, size))
    pictures /= pictures.std(axis=(1, 2), keepdims=True)
    return np.clip(127.5 + 64 * pictures, 0, 255).astype(np.float32)
