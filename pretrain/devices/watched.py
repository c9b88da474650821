"""What monitors look at where several devices train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mri_transfer.pretrain.run.trainer import Trainer

if TYPE_CHECKING:
    import keras
    import numpy as np

    from mri_transfer.pretrain.methods.method import Method


class WatchedApart(Trainer):
    """A trainer whose monitors see a copy on one device; arguments as of :class:`Trainer`."""

    _twin: Trainer | None = None
    _twin_is_old = True

    def _compose(self, start: keras.Model | None, size: int, micro_batch: int | None) -> None:
        self._twin = None
        super()._compose(start, size, micro_batch)

    def assign(self, arrays: dict[str, np.ndarray]) -> None:
        super().assign(arrays)
        self._twin_is_old = True

    def step(self, batch: Mapping[str, Any], rate: float, share: float) -> float:
        self._twin_is_old = True
        return super().step(batch, rate, share)

    @property
    def watched(self) -> Method:
        """A copy on one device: what others don't take part in must not touch what they share."""
        if self._twin is None:
            self._twin = Trainer(
                self.config,
                self.backbone,
                None,
                size=self.size,
                micro_batch=self.micro_batch,
                precision=self.precision,
            )
            self._twin_is_old = True
        if self._twin_is_old:
            self._twin.assign(self.arrays())
            self._twin_is_old = False
        return self._twin.method
