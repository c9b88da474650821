"""Learning rates per layer and step, and an optimiser that follows them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mri_transfer.checkpoints.backbones import leaf_layers

PARTS = 12  # of the encoder, as in ConvNeXt's fine-tuning (Liu et al. 2022, arXiv:2201.03545)
HEAD = 0  # the head's place in the vector of rates; the encoder's uppermost part is 1, the lowest PARTS


def parts_of(encoder: keras.Model) -> list[tuple[keras.layers.Layer, int]]:
    """Every layer with weights, from input to output, with its part: 1 at the top, PARTS at the bottom."""
    weighted = [layer for _, layer in leaf_layers(encoder) if layer.weights]
    count = len(weighted)
    return [(layer, 1 + PARTS * (count - 1 - place) // count) for place, layer in enumerate(weighted)]


class Schedule:
    """The rate of each part of a classifier at each step.

    The head's warms up linearly and falls to zero along half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983).
    Part k below it has decay**k of that (discriminative rates, Howard & Ruder 2018, arXiv:1801.06146); with gradual
    unfreezing, it stays frozen until its turn and then warms up itself.

    Args:
        peak: the head's peak rate.
        steps: of the whole training.
        warmup: share of steps for a part to reach its full rate.
        decay: factor from one part to the one below.
        gradual: share of steps after which the lowest part's turn comes.
        lowest: the lowest trained part.
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
    """AdamW with a rate per part (Loshchilov & Hutter 2019, arXiv:1711.05101).

    Set `rates` before each step; a part at rate zero keeps its weights, but its moments already follow the gradient.

    Args:
        decoupled: weight decay, a multiple of the rate.
        options: of keras.optimizers.Adam, such as `use_ema`.
    """

    def __init__(self, decoupled: float = 0.0, **options: Any):
        super().__init__(learning_rate=1.0, **options)  # replaced in `update_step`
        self.decoupled = decoupled

    def build_parts(self, variables: Sequence[Any], parts: Sequence[int]) -> None:
        """Instead of `build`: sets the trained variables and their parts."""
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
