"""Where an image shows evidence for a class: class activation maps, coarse and gradient-free.

Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391, equations 1 and 2) weighs each of the last feature maps A_k by the
mean gradient of a class's logit over the map, alpha_k, and shows ReLU(sum_k alpha_k A_k). Classifiers here pool the
maps, standardise the means and apply one dense layer, so a logit is linear in the pooled maps and that gradient is
known: alpha_k = w_k / Z, with w_k the dense layer's weight over the feature's scale and Z the number of places in a
map. Grad-CAM is then class activation mapping (Zhou et al. 2016, arXiv:1512.04150) divided by Z, on any backend. The
test compares with gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from mri_transfer.errors import UserError
from mri_transfer.finetune.heads.classifier import Classifier
from mri_transfer.machine import device


@dataclass(frozen=True, eq=False)
class Maps:
    """An encoder's outputs for `n` images: last maps (n, h, w, k), pooled (n, k), and features (n, d), float32."""

    maps: np.ndarray
    pooled: np.ndarray
    features: np.ndarray

    def of(self, rows: np.ndarray) -> Maps:
        """Those of a subset of images."""
        return Maps(self.maps[rows], self.pooled[rows], self.features[rows])


class MapReader:
    """An encoder that also returns the maps whose means are its features.

    Args:
        encoder: from :mod:`mri_transfer.checkpoints`; unchanged.

    Raises:
        UserError: it doesn't simply average its last maps.
    """

    def __init__(self, encoder: keras.Model):
        pools = [
            place
            for place, layer in enumerate(encoder.layers)
            if isinstance(layer, layers.GlobalAveragePooling2D)
        ]
        self._tail = encoder.layers[pools[-1] + 1 :] if pools else []
        if not pools or not all(_is_plain(layer) for layer in self._tail):
            raise UserError(
                f"{encoder.name}: where it looks can't be shown, as it doesn't end in global average pooling"
            )
        pool = encoder.layers[pools[-1]]
        self.model = keras.Model(encoder.input, [pool.input, pool.output, encoder.output])
        self.model.compile(jit_compile=device.jit_compile())

    def __call__(self, images: np.ndarray) -> Maps:
        """Maps for one batch of images, uint8 (n, size, size)."""
        return Maps(
            *(np.asarray(output, np.float32) for output in self.model.predict_on_batch(images[..., None]))
        )

    def activation(self, outputs: Maps, *, kernel: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Class activation maps for every class.

        Args:
            outputs: of images.
            kernel: (d, classes) of the dense layer on features divided by `scale` (d,).

        Returns:
            float32 (n, classes, h, w), non-negative, in logit units: a map's mean is the part of the logit from places
            that support the class.
        """
        slope = (kernel / scale[:, None]).T[None]  # of every logit in every feature
        for layer in reversed(self._tail):
            slope = _slope_before(layer, outputs.pooled[:, None], slope)
        slope = np.broadcast_to(slope, (len(outputs.maps), *slope.shape[1:]))
        return np.maximum(np.einsum("nhwk,nck->nchw", outputs.maps, slope), 0)


@dataclass(frozen=True, eq=False)
class Explained:
    """A classifier's outputs for `n` images: features (n, d), probabilities (n, classes), maps (n, classes, h, w)."""

    features: np.ndarray
    probabilities: np.ndarray
    activation: np.ndarray


class Explainer:
    """A classifier that also shows where it looks.

    Raises:
        UserError: as :class:`MapReader` does.
    """

    def __init__(self, classifier: Classifier):
        self.classifier, self.read = classifier, MapReader(classifier.encoder)

    def __call__(self, images: np.ndarray) -> Explained:
        """Classify and explain one batch of images, uint8 (n, size, size)."""
        outputs, head = self.read(images), self.classifier.head_arrays()
        activation = self.read.activation(outputs, kernel=head["kernel"], scale=head["scale"])
        return Explained(outputs.features, self.classifier.probabilities_of(outputs.features), activation)


def _is_plain(layer: Any) -> bool:
    """Whether :func:`_slope_before` knows a layer after the pooling."""
    return isinstance(layer, layers.LayerNormalization) or (
        isinstance(layer, layers.Activation) and layer.activation is keras.activations.linear
    )


def _slope_before(layer: Any, pooled: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """The slope at a layer's input (..., d), from that at its output; ConvNeXt normalises its pooled features."""
    if not isinstance(layer, layers.LayerNormalization):
        return slope
    if layer.gamma is not None:
        slope = slope * keras.ops.convert_to_numpy(layer.gamma)
    deviation = np.sqrt(pooled.var(-1, keepdims=True) + layer.epsilon)
    standard = (pooled - pooled.mean(-1, keepdims=True)) / deviation
    along = (slope * standard).mean(-1, keepdims=True)
    return (slope - slope.mean(-1, keepdims=True) - standard * along) / deviation
