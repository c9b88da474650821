"""Which part of an image speaks for a class: class activation maps, coarse and without any gradient.

Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391, equations 1 and 2) weighs each of the last feature maps A_k by the
mean gradient of a class's logit over the map, alpha_k, and shows ReLU(sum_k alpha_k A_k). Classifiers here pool the
maps, standardise the means and apply one dense layer, so a logit is linear in the pooled maps and that gradient is
known: alpha_k = w_k / Z, with w_k the dense layer's weight over the feature's scale and Z the number of places in a
map. Grad-CAM is then class activation mapping (Zhou et al. 2016, arXiv:1512.04150) divided by Z, on any backend. The
test takes the gradients and compares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers
from PIL import Image

from mri_transfer import device
from mri_transfer.errors import UserError
from mri_transfer.finetune.classifier import Classifier

STRENGTH = 0.7  # of the colour where the heat is greatest; the picture below stays visible


@dataclass(frozen=True, eq=False)
class Explained:
    """What a classifier says of `n` images, and where it looks.

    Attributes:
        features: float32 (n, d), the pooled maps as the head gets them.
        probabilities: float32 (n, classes).
        shown: int (n,), the class that the heat speaks for.
        heat: float32 (n, h, w), not negative, in the unit of the logit: its mean over the map is the part of the
            logit that comes from places that speak for the class.
    """

    features: np.ndarray
    probabilities: np.ndarray
    shown: np.ndarray
    heat: np.ndarray


class Explainer:
    """A classifier that also says where it looks.

    Args:
        classifier: of an encoder that averages its last feature maps.

    Raises:
        UserError: the encoder does something else with its maps.
    """

    def __init__(self, classifier: Classifier):
        self.classifier = classifier
        encoder = classifier.encoder
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

    def __call__(self, images: np.ndarray, classes: np.ndarray | None = None) -> Explained:
        """Classify one batch and explain it.

        Args:
            images: uint8 (n, size, size).
            classes: int (n,), the class to explain of each; None for the most probable one.
        """
        maps, pooled, features = (
            np.asarray(part, np.float32) for part in self.model.predict_on_batch(images[..., None])
        )
        probabilities = self.classifier.probabilities_of(features)
        shown = probabilities.argmax(-1) if classes is None else np.asarray(classes)
        head = self.classifier.head_arrays()
        slope = (head["kernel"] / head["scale"][:, None])[:, shown].T  # of each image's logit to its features
        for layer in reversed(self._tail):
            slope = _slope_before(layer, pooled, slope)
        heat = np.einsum("nhwk,nk->nhw", maps, slope)
        return Explained(features, probabilities, shown, np.maximum(heat, 0))


def _is_plain(layer: Any) -> bool:
    """Whether a layer behind the pooling is one that :func:`_slope_before` knows."""
    return isinstance(layer, layers.LayerNormalization) or (
        isinstance(layer, layers.Activation) and layer.activation is keras.activations.linear
    )


def _slope_before(layer: Any, pooled: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """The slope (n, d) to a layer's input, from that to its output; ConvNeXt normalises what it has pooled."""
    if not isinstance(layer, layers.LayerNormalization):
        return slope
    if layer.gamma is not None:
        slope = slope * keras.ops.convert_to_numpy(layer.gamma)
    deviation = np.sqrt(pooled.var(-1, keepdims=True) + layer.epsilon)
    standard = (pooled - pooled.mean(-1, keepdims=True)) / deviation
    along = (slope * standard).mean(-1, keepdims=True)
    return (slope - slope.mean(-1, keepdims=True) - standard * along) / deviation


def overlay(image: np.ndarray, heat: np.ndarray, side: int | None = None) -> np.ndarray:
    """A picture with the heat laid over it, from nothing (no colour) to its own maximum (yellow).

    The colours grow lighter all the way, so they can be read in grey and by the colour-blind.

    Args:
        image: uint8 (s, s).
        heat: (h, w), not negative; a map has few places, between which it is drawn smoothly.
        side: of the result, pixels; None for s.

    Returns:
        uint8 (side, side, 3).
    """
    from matplotlib import colormaps

    side = side or image.shape[0]
    grey = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC), np.float32)
    highest = float(heat.max())
    share = (heat / highest if highest > 0 else np.zeros_like(heat)).astype(np.float32)
    share = np.asarray(Image.fromarray(share).resize((side, side), Image.Resampling.BILINEAR))
    colour = 255 * colormaps["inferno"](np.clip(share, 0, 1))[..., :3]
    opacity = STRENGTH * np.clip(share, 0, 1)[..., None]
    return np.round((1 - opacity) * grey[..., None] + opacity * colour).astype(np.uint8)


def beside(image: np.ndarray, heat: np.ndarray, side: int = 320) -> np.ndarray:
    """The picture as the classifier sees it, and the same with the heat: uint8 (side, 2 × side, 3)."""
    plain = overlay(image, np.zeros_like(heat), side)
    return np.concatenate([plain, overlay(image, heat, side)], axis=1)
