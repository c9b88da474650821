"""An encoder that compiles in a second, and pictures for it."""

import keras
import numpy as np

CLASSES = ("a", "b", "c")
SIZE = 32


def stripes(count: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Stripes whose direction and width are the class: uint8 (count, 32, 32), labels."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE]
    labels = np.tile(np.arange(3), count // 3)
    angle = np.array([0.0, 1.0, 2.0])[labels] + rng.normal(0, 0.1, count)
    wave = np.sin(x * np.cos(angle)[:, None, None] + y * np.sin(angle)[:, None, None])
    images = 128 + 80 * wave + rng.normal(0, 10, (count, SIZE, SIZE))
    return images.clip(0, 255).astype(np.uint8), labels


def small_encoder() -> keras.Model:
    """Three convolutions with batch normalisation, whose statistics fit no batch; a real backbone compiles for long."""
    keras.utils.set_random_seed(0)
    x = image = keras.Input((SIZE, SIZE, 1), dtype="float32")
    for filters in (8, 16, 24):
        x = keras.layers.Conv2D(filters, 3, strides=2, use_bias=False)(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
    encoder = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x), name="encoder")
    rng = np.random.default_rng(0)
    for layer in encoder.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(rng.normal(0, 0.3, layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 2, layer.moving_variance.shape))
    return encoder
