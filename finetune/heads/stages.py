"""Stages of a fine-tuning: short trainings to choose the rate, one to calibrate, and the final one.

All but the last train on an inner split of the training groups and are judged by its held-out part; each begins anew
from the start and a probe on its own images. This module imports no Keras.
"""

from __future__ import annotations

import dataclasses
import math

from mri_transfer.finetune.config import Recipe


@dataclasses.dataclass(frozen=True)
class Stage:
    """One training.

    Attributes:
        purpose: "rate", "calibration" or "final".
        rate: its peak learning rate; None for the chosen one.
        epochs: its length.
    """

    purpose: str
    rate: float | None
    epochs: int

    @property
    def inner(self) -> bool:
        """Whether it trains on the inner split."""
        return self.purpose != "final"

    def __str__(self) -> str:
        if self.purpose == "rate":
            return f"rate {self.rate:g}"
        return {"calibration": "inner split", "final": "all images"}[self.purpose]


def grid(recipe: Recipe) -> tuple[float, ...]:
    """The candidate rates, ascending; one if there is no choice."""
    return tuple(sorted(set(recipe.rates))) or (recipe.rate,)


def stages(recipe: Recipe, images: int, *, inner: bool) -> list[Stage]:
    """The trainings of a recipe, in order.

    Args:
        images: number of training images.
        inner: whether the training groups allow an inner split; without one, the middle of the grid is used, and
            nothing is calibrated.
    """
    rates, epochs = grid(recipe), recipe.passes(images)
    final = Stage("final", rates[0] if len(rates) == 1 else None, epochs)
    if not inner or not epochs:
        return [dataclasses.replace(final, rate=rates[len(rates) // 2])]
    short = max(1, round(recipe.choosing * epochs))
    result = [Stage("rate", rate, short) for rate in rates] if len(rates) > 1 else []
    if recipe.calibration == "temperature" or recipe.early_stopping:
        result.append(dataclasses.replace(final, purpose="calibration"))
    return [*result, final]


def steps_of(recipe: Recipe, images: int) -> int:
    """Approximate steps of all stages for this many training images."""
    share = 1 - 1 / recipe.inner_parts
    return sum(
        stage.epochs * math.ceil(images * (share if stage.inner else 1) / recipe.batch)
        for stage in stages(recipe, images, inner=True)
    )
