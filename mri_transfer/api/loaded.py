"""Encoders and classifiers for your own pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mri_transfer.api.images import grey_images
from mri_transfer.machine import device

if TYPE_CHECKING:
    import keras

    from mri_transfer.finetune.heads.classifier import Classifier as InMemory
    from mri_transfer.finetune.prediction.out_of_distribution import InDistribution

SIZE = 160  # pixels, if neither the user nor the encoder sets it


class Encoder:
    """Computes features of pictures.

    Attributes
    ----------
    model : keras.Model
        Takes grey values 0..255 of any number type, (batch, size, size, 1), and normalises them itself; returns float32
        (batch, features).
    size : int
        Side of the images, in pixels.
    about : dict
        Provenance of the weights.
    """

    def __init__(self, model: keras.Model, about: Mapping[str, Any]):
        self.model, self.about = model, dict(about)
        self.size = int(model.input_shape[1])
        model.compile(jit_compile=device.jit_compile())

    def features(self, images: Any) -> np.ndarray:
        """Features of pictures, float32 (n, d).

        Parameters
        ----------
        images : path, PIL image, array, or a list of these
            Pictures of any size; grey values from 0 to 255. One array (n, h, w) holds n of them.
        """
        from mri_transfer.finetune.heads.features import extract_features

        return extract_features(self.model, grey_images(images, self.size), None)

    def __repr__(self) -> str:
        return (
            f"Encoder({self.about.get('backbone')}, {self.size} px, {self.model.output_shape[-1]} features)"
        )


class Classifier:
    """A fine-tuned classifier, with the conventions of scikit-learn.

    Its pickle, such as joblib sends to workers, names the run's folder instead of holding the weights.

    Attributes
    ----------
    classes_ : array of str
        In the order of the columns of `predict_proba`.
    size : int
        Side of the images, in pixels.
    """

    def __init__(self, run: Path, classifier: InMemory):
        self._run, self._classifier = run, classifier
        self.classes_ = np.array(classifier.classes)
        self.size = classifier.size
        classifier.encoder.compile(jit_compile=device.jit_compile())

    def predict_proba(self, images: Any) -> np.ndarray:
        """Probability of every class, float32 (n, classes); what `images` may be, see `Encoder.features`."""
        return self._classifier.probabilities(grey_images(images, self.size), None)

    def predict(self, images: Any) -> np.ndarray:
        """The likeliest class of each picture, str (n,)."""
        return self.classes_[self.predict_proba(images).argmax(axis=1)]

    def score(self, images: Any, labels: Any) -> float:
        """The share of pictures classified correctly."""
        return float((self.predict(images) == np.asarray(labels)).mean())

    def is_unlike_training(self, images: Any) -> np.ndarray:
        """Whether each picture's features are unusually far from those of the training images, bool (n,).

        Predicted classes of such pictures are meaningless. Not being flagged says nothing about a disease.
        """
        from mri_transfer.finetune.heads.features import extract_features

        distribution, grey = self._distribution, grey_images(images, self.size)
        if distribution is None:
            return np.zeros(len(grey), bool)
        return np.asarray(
            distribution.distances(extract_features(self._classifier.encoder, grey, None))
            > distribution.threshold
        )

    @cached_property
    def _distribution(self) -> InDistribution | None:
        from mri_transfer.finetune.prediction.out_of_distribution import load_in_distribution

        return load_in_distribution(self._run, int(self._classifier.encoder.output_shape[-1]))

    def __reduce__(self) -> tuple[Any, ...]:
        return load_classifier, (self._run.absolute(),)

    def __repr__(self) -> str:
        return f"Classifier({', '.join(self.classes_)}; {self.size} px)"


def load_encoder(
    start: str | os.PathLike[str], size: int | None = None, backbone: str | None = None
) -> Encoder:
    """An encoder for computing features of pictures.

    Parameters
    ----------
    start : path or str
        Folder of a run or an encoder, or a start by name, such as "imagenet"; also a `.keras` file with a network of
        your own, or a file of weights.
    size : int, optional
        Side of the images, in pixels; by default the encoder's training size, or 160.
    backbone : str, optional
        The network, if `start` doesn't determine it.

    Raises
    ------
    UserError
        There is no such encoder, or it is damaged.

    Examples
    --------
    >>> encoder = api.load_encoder("runs/mri")
    >>> encoder.features(["a.png", "b.png"]).shape
    (2, 1280)
    """
    device.prepare()
    from mri_transfer.checkpoints.initialisation import NETWORK, Initialisation, card_of, kind_of

    origin = str(start)
    if kind_of(origin) == NETWORK:
        initialisation = Initialisation(origin, card_of(origin, "")["backbone"])
    else:
        initialisation = Initialisation.read(origin, backbone, option="")
    return Encoder(*initialisation.load(size or initialisation.card.get("size") or SIZE))


def load_classifier(run: str | os.PathLike[str]) -> Classifier:
    """A classifier made by `finetune`, with scikit-learn's interface.

    Parameters
    ----------
    run : path
        Its folder.

    Raises
    ------
    UserError
        It doesn't exist, or it is damaged.

    Examples
    --------
    >>> classifier = api.load_classifier("runs/classifier")
    >>> classifier.predict_proba(["scan.png"]).round(2), classifier.classes_
    """
    device.prepare()
    from mri_transfer.finetune.heads.classifier import load_classifier as load

    return Classifier(Path(run), load(Path(run)))
