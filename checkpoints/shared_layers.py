"""Layers of an encoder that see more than their own rows, where several TensorFlow devices share a batch.

Batch normalisation takes its statistics over the batch, and dropout its random numbers for the batch. On a device that
holds some of the rows both would differ from what one device does with all of them.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import keras
from keras import layers, ops

from mri_transfer.machine import replicas


def share_layers(model: keras.Model) -> None:
    """Have layers of `model` act on this device's rows as they would on all, in place; nothing on a single device.

    Called in the scope of the devices. The layers stay Keras' own, so the model is written and read by Keras alone. A
    clone of the model has to be treated anew.
    """
    if replicas.in_scope() == 1:
        return
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            share_layers(layer)
        elif isinstance(layer, layers.BatchNormalization):
            layer.call = MethodType(_normalize, layer)
        elif type(layer) is layers.Dropout and layer.rate > 0:
            layer.call = MethodType(_drop, layer)


def _normalize(
    self: layers.BatchNormalization, inputs: Any, training: bool | None = None, mask: Any = None
) -> Any:
    """Stands in for `BatchNormalization.call`; in float32, as there.

    Not Keras' own `synchronized`, whose variance is a small difference of large numbers (mean of squares less square of
    the mean).
    """
    if not (training and self.trainable):
        return layers.BatchNormalization.call(self, inputs, training=training, mask=mask)
    x = ops.cast(inputs, "float32")
    axes = [axis for axis in range(len(x.shape)) if axis != self.axis % len(x.shape)]
    # One exchange for both. Every device has as many rows, so means over all are means of their means.
    each = replicas.all_rows(ops.expand_dims(ops.stack(ops.moments(x, axes)), 0))
    mean = ops.mean(each[:, 0], axis=0)
    variance = ops.mean(each[:, 1] + ops.square(each[:, 0] - mean), axis=0)
    for average, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
        average.assign(average.value * self.momentum + new * (1.0 - self.momentum))
    y = ops.batch_normalization(
        x, mean, variance, axis=self.axis, offset=self.beta, scale=self.gamma, epsilon=self.epsilon
    )
    return ops.cast(y, self.compute_dtype)


def _drop(self: layers.Dropout, inputs: Any, training: bool = False) -> Any:
    """Stands in for `Dropout.call`: draws for all rows what a single device would draw, and takes its own."""
    if not training:
        return inputs
    of = self.noise_shape or (None,) * len(inputs.shape)
    rows, *rest = (size if size is not None else inputs.shape[i] for i, size in enumerate(of))
    if of[0] is None:
        rows *= replicas.count()
    kept = keras.random.dropout(
        ops.ones((rows, *rest), inputs.dtype), rate=self.rate, seed=self.seed_generator
    )
    return inputs * (replicas.own_rows(kept) if of[0] is None else kept)
