"""TensorFlow's SavedModel: for TensorFlow Serving and TensorFlow itself (2.12 and 2.21 load it)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mri_transfer.finetune.export.served import CLASSES, IMAGES, Runner, Served

NAME = "saved_model"


def write(model: Served, folder: Path, batch: int | None = None) -> Path:
    """Write the SavedModel; its signature `serving_default` takes `batch` images, or any number."""
    import keras
    import tensorflow as tf

    archive = keras.export.ExportArchive()
    for part in model.parts:
        archive.track(part)
    archive.add_endpoint(
        "serve", lambda images: {model.output: model.function(images)}, [model.signature(batch)]
    )
    if model.classes:
        names = tf.constant(model.classes)
        archive.add_endpoint(CLASSES, lambda: {CLASSES: names}, [])
    path = folder / NAME
    archive.write_out(path, verbose=False)
    return path


def load(path: Path) -> Runner:
    """The model as TensorFlow loads it, without Keras."""
    import tensorflow as tf

    loaded = tf.saved_model.load(path)

    def run(images: np.ndarray) -> np.ndarray:
        # Looked up here, since variables live only as long as the loaded object.
        (output,) = loaded.signatures["serving_default"](
            **{IMAGES: tf.constant(images[..., None].astype(np.float32))}
        ).values()
        return np.asarray(output)

    return run
