"""Keras's own file of an encoder, for use with Keras 3 without this program: plain layers, no code."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mri_transfer.finetune.export.served import Runner, Served

NAME = "encoder.keras"


def write(model: Served, folder: Path) -> Path:
    """Write the encoder; it maps (n, size, size, 1) in 0..255 to features."""
    path = folder / NAME
    model.parts[0].save(path)
    return path


def load(path: Path) -> Runner:
    """The encoder as loaded by Keras alone."""
    import keras

    encoder = keras.saving.load_model(path, compile=False, safe_mode=True)
    return lambda images: np.asarray(encoder.predict(images[..., None], batch_size=32, verbose=0))
