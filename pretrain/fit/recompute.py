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

# Once a stage's side has shrunk to this fraction of the input's, little is left to store.
EARLY_SIDE = 1 / 8


def _elements(layer: keras.layers.Layer) -> int:
    """Numbers in a layer's output for one image."""
    return math.prod(layer.output.shape[1:])


def activation_bytes(encoder: keras.Model) -> int:
    """Bytes of activations that training keeps per float32 image: outputs of convolutions and activations."""
    layer_types = (
        keras.layers.Conv2D,
        keras.layers.DepthwiseConv2D,
        keras.layers.ReLU,
        keras.layers.Activation,
    )
    return 4 * sum(_elements(layer) for layer in encoder.layers if isinstance(layer, layer_types))


def early_cuts(encoder: keras.Model) -> list[keras.layers.Layer]:
    """Layers of a flat functional encoder after which the rest needs only one small tensor.

    In order, within the early part; at least four times what they keep lies between two of them.
    """
    layers = encoder.layers
    used_by: dict[str, list[int]] = {layer.name: [] for layer in layers}
    for i, layer in enumerate(layers[1:], start=1):
        for tensor in keras.tree.flatten(layer.input):
            used_by[tensor._keras_history.operation.name].append(i)
    side = encoder.input_shape[1]
    cuts, elements, busy_until = [], 0, 0
    for i, layer in enumerate(layers[:-1]):
        elements += _elements(layer)
        alone = busy_until <= i  # no earlier output is still needed after this layer
        busy_until = max([busy_until, *used_by[layer.name]])
        if len(layer.output.shape) != 4 or layer.output.shape[1] < side * EARLY_SIDE:
            continue
        # A block begins where the network widens or a residual branches off.
        begins = _elements(layers[i + 1]) > _elements(layer) or len(used_by[layer.name]) > 1
        if alone and begins and elements >= 4 * _elements(layer):
            cuts.append(layer)
            elements = 0
    return cuts


def without_side_effects(model: keras.Model, run: Callable[..., tuple[Any, Any]], x: Any) -> Any:
    """A training-mode call of `model` with state passed in and out as values, so that computing twice is safe.

    Args:
        model: functional model.
        run: takes (pure, weights, state, x), where pure(weights, state, x) -> (y, state) is the model as a function;
            returns (y, state).
        x: its input.

    Returns:
        y; the model's state is set once, to the one `run` returned.
    """

    def pure(weights: Any, state: Any, x: Any) -> Any:
        return model.stateless_call(weights, state, x, training=True)

    weights = [variable.value for variable in model.trainable_variables]
    state = [variable.value for variable in model.non_trainable_variables]
    y, state = run(pure, weights, state, x)
    for variable, value in zip(model.non_trainable_variables, state, strict=True):
        variable.assign(value)
    return y


def recomputing(encoder: keras.Model) -> Callable[[Any], Any]:
    """A training-mode call of `encoder` that recomputes its early part segment by segment.

    Batch-normalisation statistics are updated once, from the first computation.
    """
    segments, entry = [], encoder.input
    for layer in early_cuts(encoder):
        segments.append(keras.Model(entry, layer.output))
        entry = layer.output
    rest = keras.Model(entry, encoder.output)

    def twice(pure: Any, weights: Any, state: Any, x: Any) -> tuple[Any, Any]:
        return keras.remat(pure)(weights, state, x)

    def encode(x: Any) -> Any:
        for segment in segments:
            x = without_side_effects(segment, twice, x)
        return rest(x, training=True)

    return encode
