"""A trainer that does everything together with others, and how the others follow it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.devices.channel import Message, unpacked
from mri_transfer.pretrain.devices.sharding import Devices
from mri_transfer.pretrain.devices.watched import WatchedApart
from mri_transfer.pretrain.pairs.positives import Batch, PairSampler, read_ahead

if TYPE_CHECKING:
    import keras
    import numpy as np

# Given a message and arrays that go with it, before this process does what it says.
Tell = Callable[[Message, "dict[str, np.ndarray] | None"], None]


class ParallelTrainer(WatchedApart):
    """Trains on all devices of all processes; where there are several, the one that leads tells the others.

    Args:
        devices: that share each batch.
        tell: passes on what has to be done everywhere; None for a process that has nobody to tell.
        failed: told of an exception in a step that others take part in; may end the process.
        (others): as of :class:`Trainer`.

    Attributes:
        in_step: whether a step was begun and not ended, so that other processes may wait for this one.
    """

    def __init__(
        self,
        *arguments: Any,
        devices: Devices,
        tell: Tell | None = None,
        failed: Callable[[Exception], None] = lambda error: None,
        **options: Any,
    ):
        self.devices, self.shares = devices, devices.count
        self._tell, self._failed = tell or (lambda message, arrays: None), failed
        self.in_step = False
        super().__init__(*arguments, **options)
        self.assign(self.arrays())  # all begin with what this process has

    def _compose(self, start: keras.Model | None, size: int, micro_batch: int | None) -> None:
        message = {"backbone": self.backbone, "size": size, "micro_batch": micro_batch}
        self._tell({"do": "make", **message, "precision": self.precision}, None)
        super()._compose(start, size, micro_batch)

    def assign(self, arrays: dict[str, np.ndarray]) -> None:
        self._tell({"do": "assign"}, arrays)
        super().assign(arrays)
        self._spread()

    def begin(self, step: int) -> None:
        self._tell({"do": "begin", "step": step}, None)

    def step(self, batch: Mapping[str, Any], rate: float, share: float) -> float:
        """As of :class:`Trainer`, of which the batch holds this process's rows; the loss is that of all."""
        self._tell({"do": "step", "rate": rate, "share": share}, None)
        self.in_step = True
        try:
            loss = super().step(batch, rate, share)
        except Exception as error:
            self._failed(error)
            raise
        self.in_step = False
        return loss

    def _train(self, batch: Mapping[str, Any]) -> float:
        self._spread()  # the rate, and what methods set by the share
        with self.devices.scope():
            return super()._train(batch)

    def _spread(self) -> None:
        method = self.method
        self.devices.spread((*method.variables, *method.metrics_variables, *self.optimizer.variables))


def follow(
    config: PretrainConfig, sampler: PairSampler, devices: Devices, orders: Iterable[tuple[Message, bytes]]
) -> int:
    """Do what a trainer elsewhere told its channel, until there is no more.

    Args:
        config: the run's settings.
        sampler: gives this process its rows.
        devices: that share each batch.
        orders: messages, and the bytes that came with them.

    Returns:
        How many steps were done.
    """
    trainer: ParallelTrainer | None = None
    batches: Generator[Batch, None, None] | None = None
    steps = 0
    try:
        for order, payload in orders:
            if order["do"] == "make":
                trainer = None  # its memory is needed
                gc.collect()
                trainer = ParallelTrainer(
                    config,
                    order["backbone"],
                    None,
                    size=order["size"],
                    micro_batch=order["micro_batch"],
                    precision=order["precision"],
                    devices=devices,
                )
                continue
            assert trainer is not None
            if order["do"] == "assign":
                trainer.assign(unpacked(payload))
            elif order["do"] == "begin":
                if batches is not None:
                    batches.close()
                batches = read_ahead(sampler, order["step"])
            elif order["do"] == "step":
                # Before the first step of the run, precisions are measured on its batch.
                batch = sampler(0) if batches is None else next(batches)
                trainer.step(batch, order["rate"], order["share"])
                steps += 1
    finally:
        if batches is not None:
            batches.close()
    return steps
