"""Keras' own file of an encoder, for whoever has Keras 3 and not this program: plain layers, no code in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mri_transfer.finetune.export.served import Runner, Served

NAME = "encoder.keras"


def write(model: Served, folder: Path) -> Path:
    """Write the encoder; it takes (n, size, size, 1) in 0..255 and gives features."""
    path = folder / NAME
    model.parts[0].save(path)
    return path


def load(path: Path) -> Runner:
    """The encoder as Keras alone reads it."""
    import keras

    encoder = keras.saving.load_model(path, compile=False, safe_mode=True)
    return lambda images: np.asarray(encoder.predict(images[..., None], batch_size=32, verbose=0))
