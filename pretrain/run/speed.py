"""Measures this machine's training speed: a few real steps on noise, in each precision."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.fit.out_of_memory import largest_that_fits
from mri_transfer.pretrain.fit.precision import fastest, measured
from mri_transfer.pretrain.run.trainer import Trainer, bytes_of_training


@dataclasses.dataclass(frozen=True)
class Speed:
    """The measurement.

    Attributes:
        backbone, size, batch: network, side of the views in pixels, pairs in a step.
        micro_batch: pairs that fit into memory at once; None for all.
        step_seconds: the median step by precision, including views.
        memory_bytes: expected memory of training.
    """

    backbone: str
    size: int
    batch: int
    micro_batch: int | None
    step_seconds: dict[str, float]
    memory_bytes: float

    @property
    def precision(self) -> str:
        """The precision to train in."""
        return fastest(self.step_seconds)

    @property
    def views_per_second(self) -> float:
        """In that precision."""
        return 2 * self.batch / self.step_seconds[self.precision]

    @property
    def hours_per_million_views(self) -> float:
        """Likewise, without health checks and saves, which take at most 3%."""
        return 1e6 / self.views_per_second / 3600


def measure_speed(
    *, backbone: str, size: int, batch: int, seconds: float, limit: float | None, method: str = "simclr"
) -> Speed:
    """Train on noise for about `seconds`, not counting compilation.

    Args:
        backbone: the encoder's.
        size: side of views in pixels.
        batch: pairs in a step.
        seconds: for both precisions together.
        limit: memory limit in bytes, if known.
        method: to train.

    Raises:
        UserError: not even a few pairs fit into memory.
    """
    from mri_transfer.checkpoints.backbones import build_encoder

    nowhere = Path()
    config = PretrainConfig(store=nowhere, out=nowhere, steps=1, batch=batch, size=size, method=method)
    encoder = build_encoder(backbone, size)

    def bytes_needed(at_once: int | None) -> float:
        return bytes_of_training(config, encoder, at_once)

    micro_batch = largest_that_fits(bytes_needed, batch, limit)
    pairs = np.random.default_rng(0).integers(0, 256, (2, batch, size, size), np.uint8)
    slices = {
        "a": pairs[0],
        "b": pairs[1],
        "subject": np.arange(batch, dtype=np.int32),
        "plane": np.zeros(batch, np.int32),
        "position": np.full((batch, 2), 0.5, np.float32),
    }

    def trainer_of(precision: str) -> Trainer:
        return Trainer(config, backbone, encoder, size=size, micro_batch=micro_batch, precision=precision)

    step_seconds = measured(trainer_of, slices, seconds)
    return Speed(backbone, size, batch, micro_batch, step_seconds, bytes_needed(micro_batch))
