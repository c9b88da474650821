"""Batch normalisation as one operation on TensorFlow.

Keras 3 computes batch normalisation as means, squared differences and products, each a pass over the whole feature map:
40% of a training step of the default backbone on a CPU. TensorFlow's fused operation takes two passes. XLA, and so JAX,
fuses automatically.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import keras
from keras import layers, ops

SMALLEST_EPSILON = 1.001e-5  # the fused operation's own limit


def fuse_batch_normalization(model: keras.Model) -> None:
    """Make every batch normalisation of feature maps in `model` run as one fused operation, in place.

    Results change only by rounding. The layers stay Keras's own, so plain Keras can save and load the model. A clone of
    the model must be fused again. Backends other than TensorFlow don't need it.
    """
    if keras.backend.backend() != "tensorflow":
        return
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            fuse_batch_normalization(layer)
        elif type(layer) is layers.BatchNormalization and _fuses(layer):
            # Patched on the object: Keras could not load a custom class without this package.
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
    """Replaces `BatchNormalization.call`."""
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
