"""The classifier, in memory and on disk: an encoder, fixed feature standardisation, and one dense layer.

RUN/encoder/             the encoder (see :mod:`mri_transfer.checkpoints.encoders`)
RUN/head-1a2b3c4d.npz    mean, scale, kernel, bias
RUN/classifier.json      classes, size, temperature, SHA-256 of the head and of the encoder it belongs to
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from mri_transfer.checkpoints.encoders import load_encoder, read_card, save_encoder
from mri_transfer.errors import UserError
from mri_transfer.finetune.heads.features import extract_features
from mri_transfer.finetune.heads.probe import Probe, softmax, standardise
from mri_transfer.options import LARGEST_SIDE
from mri_transfer.storage.arrays import differences, not_finite, read_arrays, write_arrays
from mri_transfer.storage.files import Kind, read_object, write_card, wrong_fields

FORMAT = 2  # 1 had no temperature, meaning one
CARD = "classifier.json"
REMEDY = "run `mri-transfer finetune` again into a new folder"


class Standardise(layers.Layer):
    """(features - mean) / scale, with constants that training does not change.

    keras.layers.Normalization won't do: it bounds deviations at 1e-7, and a random network's may be smaller by orders
    of magnitude.
    """

    def __init__(self, mean: np.ndarray, scale: np.ndarray, **options: Any):
        super().__init__(trainable=False, **options)
        self._values = (np.asarray(mean, np.float32), np.asarray(scale, np.float32))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for name, value in zip(("mean", "scale"), self._values, strict=True):
            setattr(self, name, self.add_weight(shape=value.shape, name=name, trainable=False))
            getattr(self, name).assign(value)

    def call(self, features: Any) -> Any:
        return (features - self.mean) / self.scale


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
    """A classifier in memory.

    Attributes:
        encoder: Keras model, (batch, size, size, 1) in 0..255 to (batch, d).
        standardise: layer, (batch, d) to (batch, d).
        head: dense layer, (batch, d) to logits (batch, classes).
        classes: names, in the order of the logits.
        temperature: divides the logits before softmax (Guo et al. 2017, arXiv:1706.04599).
    """

    encoder: keras.Model
    standardise: Standardise
    head: layers.Dense
    classes: tuple[str, ...]
    temperature: float = 1.0

    @property
    def size(self) -> int:
        """Side of the images, pixels."""
        return int(self.encoder.input_shape[1])

    def probabilities(self, images: np.ndarray, desc: str | None = "images") -> np.ndarray:
        """Class probabilities float32 (n, classes) of uint8 images (n, size, size); `desc` None shows no bar."""
        return self.probabilities_of(extract_features(self.encoder, images, desc))

    def probabilities_of(self, features: np.ndarray) -> np.ndarray:
        """Class probabilities float32 (n, classes) of encoder features (n, d)."""
        return softmax(self.logits_of(features) / self.temperature)

    def logits_of(self, features: np.ndarray) -> np.ndarray:
        """Logits float32 (n, classes) of encoder features (n, d), before temperature."""
        mean, scale, kernel, bias = self.head_arrays().values()
        return standardise(features, mean, scale) @ kernel + bias

    def logits(self, images: np.ndarray, desc: str | None = "images") -> np.ndarray:
        """The same for uint8 images (n, size, size)."""
        return self.logits_of(extract_features(self.encoder, images, desc))

    def set_head(self, probe: Probe) -> None:
        """Replace the head by another probe's."""
        self.standardise.mean.assign(probe.mean)
        self.standardise.scale.assign(probe.scale)
        self.head.kernel.assign(probe.kernel)
        self.head.bias.assign(probe.bias)

    def head_arrays(self) -> dict[str, np.ndarray]:
        """mean (d,), scale (d,), kernel (d, classes), bias (classes,): all float32."""
        variables = (self.standardise.mean, self.standardise.scale, self.head.kernel, self.head.bias)
        names = ("mean", "scale", "kernel", "bias")
        return {
            name: np.asarray(keras.ops.convert_to_numpy(variable), np.float32)
            for name, variable in zip(names, variables, strict=True)
        }


def build_classifier(
    encoder: keras.Model,
    classes: tuple[str, ...],
    *,
    mean: np.ndarray,
    scale: np.ndarray,
    kernel: np.ndarray,
    bias: np.ndarray,
    temperature: float = 1.0,
) -> Classifier:
    """Put a head on an encoder. Its arrays are as in :meth:`Classifier.head_arrays`."""
    standard = Standardise(mean, scale, name="standardise", dtype="float32")
    head = layers.Dense(len(classes), name="logits", dtype="float32")
    standard.build((None, len(mean)))
    head.build((None, len(mean)))
    head.set_weights([kernel, bias])
    return Classifier(encoder, standard, head, tuple(classes), temperature)


def with_probe_head(encoder: keras.Model, probe: Probe, classes: tuple[str, ...]) -> Classifier:
    """The classifier that predicts exactly what the linear probe does."""
    return build_classifier(
        encoder, classes, mean=probe.mean, scale=probe.scale, kernel=probe.kernel, bias=probe.bias
    )


def save_classifier(classifier: Classifier, run: Path, *, backbone: str, provenance: dict[str, Any]) -> None:
    """Write encoder, head and card into a run folder; the card last, so it never names missing files."""
    run = Path(run)
    card = save_encoder(
        classifier.encoder, run / "encoder", backbone=backbone, size=classifier.size, provenance=provenance
    )
    fresh = run / "head-new.npz"
    digest = write_arrays(fresh, classifier.head_arrays())
    head = run / f"head-{digest[:8]}.npz"
    fresh.replace(head)
    write_card(
        run / CARD,
        {
            "format": FORMAT,
            "classes": list(classifier.classes),
            "size": classifier.size,
            "temperature": classifier.temperature,
            "head": head.name,
            "head_sha256": digest,
            "encoder_sha256": card["weights_sha256"],
        },
    )
    for old in run.glob("head-*.npz"):
        if old.name != head.name:
            old.unlink(missing_ok=True)


def _sensible(card: dict[str, Any]) -> dict[str, bool]:
    """Whether fields of the right types have valid values."""
    names = card["classes"]
    are_strings = all(isinstance(name, str) and name for name in names)
    return {
        "temperature": 0 < card["temperature"] < 1e6,
        "size": 0 < card["size"] <= LARGEST_SIDE,
        "classes": are_strings and len(set(names)) == len(names) >= 1,
    }


def load_classifier(run: Path) -> Classifier:
    """A run folder's classifier, every byte verified.

    Raises:
        UserError: something is missing, damaged or mismatched.
    """
    run = Path(run)
    if not (run / CARD).is_file():
        raise UserError(f"{run}: holds no finished classifier; `mri-transfer finetune` makes one")
    kinds: dict[str, Kind] = {
        "format": int,
        "classes": [str],
        "size": int,
        "head": str,
        "head_sha256": str,
        "encoder_sha256": str,
    }
    card = read_object(run / CARD, kinds, newest=FORMAT, remedy=REMEDY)
    if card["format"] == 1:
        card["temperature"] = 1.0
    wrong = wrong_fields(card, {"temperature": float, "head": str})
    if not wrong:
        wrong = [name for name, sensible in _sensible(card).items() if not sensible]
    if wrong or Path(card["head"]).name != card["head"]:
        raise UserError(f"{run / CARD}: is damaged ({', '.join(wrong) or 'head'}); {REMEDY}")
    if read_card(run)["weights_sha256"] != card["encoder_sha256"]:
        raise UserError(f"{run / 'encoder'}: is not the encoder that this head was trained on; {REMEDY}")
    arrays = read_arrays(run / card["head"], card["head_sha256"], REMEDY)
    encoder = load_encoder(run, card["size"])
    features, count = int(encoder.output_shape[-1]), len(card["classes"])
    shapes = {"mean": (features,), "scale": (features,), "kernel": (features, count), "bias": (count,)}
    if differ := differences(shapes, arrays):
        raise UserError(f"{run / card['head']}: does not fit its encoder ({differ}); {REMEDY}")
    if name := not_finite(arrays):
        raise UserError(f"{run / card['head']}: holds numbers that are not finite ({name}); {REMEDY}")
    classes = tuple(card["classes"])
    return build_classifier(encoder, classes, **arrays, temperature=card["temperature"])
