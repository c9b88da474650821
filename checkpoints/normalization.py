"""Batch normalisation as one operation on TensorFlow.

Keras 3 spells batch normalisation out as means, squared differences and products, each of which reads and writes the
whole feature map: on a processor 40% of a training step of the default backbone. TensorFlow's fused operation does the
same in two passes. XLA, and so JAX, fuses by itself.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import keras
from keras import layers, ops

SMALLEST_EPSILON = 1.001e-5  # the fused operation's own limit


def fuse_batch_normalization(model: keras.Model) -> None:
    """Have every batch normalisation of feature maps in `model` run as one operation, in place.

    Numbers change by rounding only. The layers stay Keras' own, so the model is written and read by Keras alone. A
    clone of the model has to be fused anew. Other backends than TensorFlow have no need of it.
    """
    if keras.backend.backend() != "tensorflow":
        return
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            fuse_batch_normalization(layer)
        elif type(layer) is layers.BatchNormalization and _fuses(layer):
            # On the object, not by a class of our own, which Keras could not read back without this package.
            layer.call = MethodType(_call, layer)


def _fuses(layer: layers.BatchNormalization) -> bool:
    maps = len(layer.input.shape) == 4
    return (
        maps
        and layer.axis in (-1, 3)
        and layer.scale
        and layer.center
        and layer.epsilon >= SMALLEST_EPSILON
        and not getattr(layer, "synchronized", False)
        and not getattr(layer, "renorm", False)
    )


def _call(
    self: layers.BatchNormalization, inputs: Any, training: bool | None = None, mask: Any = None
) -> Any:
    """Stands in for `BatchNormalization.call`."""
    import tensorflow as tf

    if mask is not None:
        return layers.BatchNormalization.call(self, inputs, training=training, mask=mask)
    in_training = bool(training) and self.trainable
    x = ops.cast(inputs, self.compute_dtype)
    gamma, beta, moving_mean, moving_variance = (
        ops.cast(weight, "float32")
        for weight in (self.gamma, self.beta, self.moving_mean, self.moving_variance)
    )
    moving = {} if in_training else {"mean": moving_mean, "variance": moving_variance}
    y, mean, variance = tf.compat.v1.nn.fused_batch_norm(
        x, gamma, beta, epsilon=self.epsilon, is_training=in_training, **moving
    )
    if in_training:
        shape = tf.shape(x)
        count = ops.cast(shape[0] * shape[1] * shape[2], "float32")
        # The operation reports the unbiased variance; Keras averages the biased one.
        variance = variance * (count - 1) / count
        for average, before, new in (
            (self.moving_mean, moving_mean, mean),
            (self.moving_variance, moving_variance, variance),
        ):
            average.assign(ops.cast(before * self.momentum + new * (1.0 - self.momentum), average.dtype))
    return y
