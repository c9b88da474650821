"""Learning rates: which layers learn how fast, when, and an optimiser that follows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mri_transfer.checkpoints.backbones import leaf_layers

PARTS = 12  # of the encoder, as fine-tuning of ConvNeXt counts them (Liu et al. 2022, arXiv:2201.03545)
HEAD = 0  # the head's place in the vector of rates; the encoder's uppermost part is 1, the lowest PARTS


def parts_of(encoder: keras.Model) -> list[tuple[keras.layers.Layer, int]]:
    """Every layer that has weights, from the input to the output, with its part: 1 at the top, PARTS at the bottom."""
    weighted = [layer for _, layer in leaf_layers(encoder) if layer.weights]
    count = len(weighted)
    return [(layer, 1 + PARTS * (count - 1 - place) // count) for place, layer in enumerate(weighted)]


class Schedule:
    """The rate of each part of a classifier at each step.

    The head's is warmed up linearly and falls to zero as half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983).
    A part k below it has decay**k of that (discriminative rates, Howard & Ruder 2018, arXiv:1801.06146), and where
    parts are unfrozen one after the other it stands still until its turn and is then warmed up itself.

    Args:
        peak: the head's highest rate.
        steps: of the whole training.
        warmup: share of the steps that a part takes to its full rate.
        decay: from one part to the one below it.
        gradual: share of the steps after which the lowest part has its turn.
        lowest: the lowest part that is trained.
    """

    def __init__(
        self,
        peak: float,
        steps: int,
        *,
        warmup: float = 0.0,
        decay: float = 1.0,
        gradual: float = 0.0,
        lowest: int = PARTS,
    ):
        numbers = np.arange(PARTS + 1)
        self.steps = max(1, steps)
        self.warmup = max(1, round(warmup * self.steps))
        self.highest = peak * decay**numbers
        self.turn = gradual * self.steps * np.maximum(numbers - 1, 0) / max(1, lowest - 1)

    def __call__(self, step: int) -> np.ndarray:
        """Rates float32 (PARTS + 1,) of step 0, 1, ...: the head's, then those of parts 1, 2, ..."""
        warm = np.clip((step + 1 - self.turn) / self.warmup, 0, 1)
        cosine = (1 + math.cos(math.pi * min(step / self.steps, 1))) / 2
        return (self.highest * warm * cosine).astype(np.float32)


class LayerwiseAdamW(keras.optimizers.Adam):
    """AdamW whose rate differs from part to part (Loshchilov & Hutter 2019, arXiv:1711.05101).

    Set `rates` before each step; a part at rate zero keeps its weights, while its moments already follow the gradient.

    Args:
        decoupled: weight decay, a multiple of the rate.
        options: of keras.optimizers.Adam, such as `use_ema`.
    """

    def __init__(self, decoupled: float = 0.0, **options: Any):
        super().__init__(learning_rate=1.0, **options)  # which `update_step` puts another in place of
        self.decoupled = decoupled

    def build_parts(self, variables: Sequence[Any], parts: Sequence[int]) -> None:
        """Instead of `build`: the variables that are trained, and the part of each."""
        self.part_of = tuple(parts)
        self.build(list(variables))
        self.rates = self.add_variable(shape=(PARTS + 1,), initializer="zeros", dtype="float32", name="rates")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One variable's step; Keras calls it."""
        rate = ops.cast(self.rates[self.part_of[self._get_variable_index(variable)]], variable.dtype)
        if self.decoupled:
            self.assign_sub(variable, ops.multiply(variable, rate * self.decoupled))
        super().update_step(gradient, variable, rate)

    def restart(self) -> None:
        """Forget every step."""
        for variable in self.variables:
            variable.assign(ops.zeros(variable.shape, variable.dtype))
        self.learning_rate = 1.0
