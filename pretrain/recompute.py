"""Trade time for memory: forget early activations and compute them again in the backward pass.

In a convolutional encoder nearly all activations lie in the first, high-resolution stages. Chen et al., "Training
Deep Nets with Sublinear Memory Cost", 2016, https://arxiv.org/abs/1604.06174. The numbers do not change: batch
normalisation still sees the whole batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras

# Where a stage's side has shrunk to this share of the input's, what is left to store is small.
EARLY_SIDE = 1 / 8


def _elements(layer: keras.layers.Layer) -> int:
    """Numbers in a layer's output for one image."""
    return math.prod(layer.output.shape[1:])


def activation_bytes(encoder: keras.Model) -> int:
    """Bytes of activations that training keeps for one float32 image: what convolutions and activations give out."""
    kept = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.ReLU, keras.layers.Activation)
    return 4 * sum(_elements(layer) for layer in encoder.layers if isinstance(layer, kept))


def early_cuts(encoder: keras.Model) -> list[keras.layers.Layer]:
    """Layers of a flat functional encoder after which one small tensor carries all that the rest needs.

    Ordered, within the early part; between two of them lies at least four times what they keep.
    """
    layers = encoder.layers
    used_by: dict[str, list[int]] = {layer.name: [] for layer in layers}
    for i, layer in enumerate(layers[1:], start=1):
        for tensor in keras.tree.flatten(layer.input):
            used_by[tensor._keras_history.operation.name].append(i)
    side = encoder.input_shape[1]
    cuts, since, busy_until = [], 0, 0
    for i, layer in enumerate(layers[:-1]):
        since += _elements(layer)
        alone = busy_until <= i  # no earlier output is still needed after this layer
        busy_until = max([busy_until, *used_by[layer.name]])
        if len(layer.output.shape) != 4 or layer.output.shape[1] < side * EARLY_SIDE:
            continue
        # A block begins where the network widens or where a residual branches off.
        begins = _elements(layers[i + 1]) > _elements(layer) or len(used_by[layer.name]) > 1
        if alone and begins and since >= 4 * _elements(layer):
            cuts.append(layer)
            since = 0
    return cuts


def recomputing(encoder: keras.Model) -> Callable[[Any], Any]:
    """A training-mode call of `encoder` that recomputes its early part segment by segment.

    Batch-normalisation statistics are updated once, from the first computation.
    """
    segments, entry = [], encoder.input
    for layer in early_cuts(encoder):
        segments.append(keras.Model(entry, layer.output))
        entry = layer.output
    rest = keras.Model(entry, encoder.output)

    def call_segment(segment: keras.Model, x: Any) -> Any:
        # Without side effects, so that computing twice changes nothing: state goes in and comes out as values.
        def pure(trainable, state, x):
            return segment.stateless_call(trainable, state, x, training=True)

        trainable = [variable.value for variable in segment.trainable_variables]
        state = [variable.value for variable in segment.non_trainable_variables]
        y, state = keras.remat(pure)(trainable, state, x)
        for variable, value in zip(segment.non_trainable_variables, state, strict=True):
            variable.assign(value)
        return y

    def encode(x: Any) -> Any:
        for segment in segments:
            x = call_segment(segment, x)
        return rest(x, training=True)

    return encode
