"""A network small enough to compile in a second, a batch for it, and the losses on fixed numbers."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

LOSSES = Path(__file__).with_name("losses.py")


@pytest.fixture(scope="session")
def losses():
    """The module losses.py."""
    if "method_losses" not in sys.modules:
        spec = importlib.util.spec_from_file_location("method_losses", LOSSES)
        sys.modules["method_losses"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules["method_losses"]


@pytest.fixture(scope="session")
def tiny_encoder():
    """Makes a flat functional encoder with a stride of 32 and 12 features."""
    import keras
    from keras import layers

    def build(size: int = 64, seed: int = 0) -> keras.Model:
        image = keras.Input((size, size, 1))
        x = layers.Rescaling(1 / 128, -1)(image)
        for i, (filters, stride) in enumerate([(6, 4), (8, 4), (12, 2)]):
            kernel = keras.initializers.HeNormal(seed=seed + i)
            x = layers.Conv2D(
                filters, 3, strides=stride, padding="same", use_bias=False, kernel_initializer=kernel
            )(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.GlobalAveragePooling2D()(x)
        x = layers.Activation("linear", name="features", dtype="float32")(x)
        return keras.Model(image, x)

    return build


@pytest.fixture
def batch():
    """Six pairs of slices that differ in brightness and texture, some of one subject."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:1:64j, 0:1:64j]

    def slices():
        waves = rng.uniform(2, 30, (6, 2, 1, 1))
        pictures = (
            100 + 60 * np.sin(waves[:, 0] * x) * np.cos(waves[:, 1] * y) + rng.normal(0, 9, (6, 64, 64))
        )
        return pictures.clip(0, 255).astype(np.uint8)

    return {
        "a": slices(),
        "b": slices(),
        "subject": np.array([0, 0, 1, 2, 3, 3], np.int32),
        "plane": np.array([0, 1, 2, -1, 2, 0], np.int32),
        "position": rng.uniform(size=(6, 2)).astype(np.float32),
    }
