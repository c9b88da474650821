"""Small networks behind an encoder, thrown away after pretraining."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops


def unit(x: Any) -> Any:
    """Scale rows to length 1; the epsilon is inside the root, so the gradient at a zero row is finite.

    Args:
        x: (..., d).
    """
    return x * ops.rsqrt(ops.sum(x * x, axis=-1, keepdims=True) + 1e-12)


def mlp(
    features: int, widths: Sequence[int], *, name: str, seed: int, normalised: bool = False
) -> keras.Sequential:
    """Dense layers with batch normalisation and ReLU in between; the last is linear, without bias.

    Args:
        features: of the input.
        widths: of each layer's output.
        name: the model's, and prefix of its layers'.
        seed: for kernels; layer i draws from seed + 1 + i.
        normalised: whether the output is batch-normalised too, without scale and offset.
    """
    model = keras.Sequential([keras.Input((features,))], name=name)
    for i, width in enumerate(widths):
        last = i == len(widths) - 1
        model.add(
            layers.Dense(
                width,
                use_bias=False,
                kernel_initializer=keras.initializers.HeNormal(seed=seed + 1 + i),
                name=f"{name}_dense_{i}",
            )
        )
        if not last:
            model.add(layers.BatchNormalization(name=f"{name}_norm_{i}"))
            model.add(layers.ReLU(name=f"{name}_relu_{i}"))
        elif normalised:
            model.add(layers.BatchNormalization(center=False, scale=False, name=f"{name}_norm_{i}"))
    return model
