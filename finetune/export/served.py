"""Every export's computation as one TensorFlow function: images in 0..255 to probabilities or features.

Grey values are scaled, standardised and calibrated inside, so no runtime can do it differently. Only reading a file,
padding it to a square and resizing it stay outside; `datasets/tumors/images.py` does that here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer.errors import UserError
from mri_transfer.machine import device

IMAGES = "images"
CLASSES = "classes"

# A loaded export: uint8 (n, size, size) to float32 (n, outputs).
Runner = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Served:
    """A model ready to be exported.

    Attributes:
        parts: the Keras objects that hold its variables.
        encode: float32 (n, size, size, 1) in 0..255 to features (n, d), a Python function of tensors.
        finish: features to output, likewise.
        output: "probabilities" for a classifier, "features" for an encoder.
        classes: names in the order of the probabilities; empty for an encoder.
        size: side of images, pixels.
        weights: SHA-256 of the encoder's weights.
        backbone: its network's name.
        shift: (d,), subtracted from features: a quantised encoder's mean error.
    """

    parts: tuple[Any, ...]
    encode: Callable[[Any], Any]
    finish: Callable[[Any], Any]
    output: str
    classes: tuple[str, ...]
    size: int
    weights: str
    backbone: str
    shift: np.ndarray | None = None

    def function(self, images: Any) -> Any:
        """Map an image tensor to the output."""
        features = self.encode(images)
        return self.finish(features if self.shift is None else features - self.shift)

    def features_only(self) -> Served:
        """The encoder alone."""
        return dataclasses.replace(self, finish=lambda features: features, output="features", classes=())

    def signature(self, batch: int | None) -> Any:
        """The TensorSpec of `batch` images; None for any number."""
        import tensorflow as tf

        return tf.TensorSpec((batch, self.size, self.size, 1), tf.float32, name=IMAGES)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Keras's output: uint8 (n, size, size) to float32 (n, outputs)."""
        outputs = [
            np.asarray(self.function(images[start : start + 32, ..., None].astype(np.float32)))
            for start in range(0, len(images), 32)
        ]
        return np.concatenate(outputs)


def served(run: Path) -> Served:
    """The classifier of a fine-tuning run, or the encoder of a pretraining run or encoder folder.

    Raises:
        UserError: the run has neither, is damaged, or Keras's backend isn't TensorFlow.
    """
    if device.prepare() != "tensorflow":
        raise UserError(
            "exports are made with TensorFlow: unset KERAS_BACKEND and run the same command again"
        )
    import tensorflow as tf

    from mri_transfer.checkpoints.encoders import load_encoder, read_card
    from mri_transfer.finetune.heads.classifier import CARD, load_classifier

    card = read_card(run)
    weights, backbone = str(card["weights_sha256"]), str(card["backbone"])
    if not (Path(run) / CARD).is_file():
        encoder = load_encoder(run)
        size = int(encoder.input_shape[1])
        return Served((encoder,), _features(encoder), lambda x: x, "features", (), size, weights, backbone)
    classifier = load_classifier(run)

    def probabilities(features: Any) -> Any:
        return tf.nn.softmax(classifier.head(classifier.standardise(features)) / classifier.temperature)

    return Served(
        (classifier.encoder, classifier.standardise, classifier.head),
        _features(classifier.encoder),
        probabilities,
        "probabilities",
        classifier.classes,
        classifier.size,
        weights,
        backbone,
    )


def _features(encoder: Any) -> Callable[[Any], Any]:
    import tensorflow as tf

    return lambda images: tf.cast(encoder(images, training=False), tf.float32)
