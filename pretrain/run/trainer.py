"""Trains the encoder, its method and optimizer, which can be rebuilt midway without losing a number."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mri_transfer.machine import device
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.fit.precision import policy
from mri_transfer.pretrain.methods import METHODS

if TYPE_CHECKING:
    import keras
    import numpy as np

    from mri_transfer.pretrain.methods.method import Method, Plan


def bytes_of_training(
    config: PretrainConfig, encoder: keras.Model, micro_batch: int | None, processes: int = 1
) -> float:
    """Expected memory of a process, in bytes, given the pairs at once in all processes."""
    from mri_transfer.pretrain.fit.memory_plan import recomputes, step_bytes

    pairs = config.batch // processes
    at_once = None if micro_batch is None else -(-micro_batch // processes)
    recompute = recomputes(config.recompute, encoder, pairs)
    return step_bytes(encoder, pairs, recompute=recompute, micro_batch=at_once)


class Trainer:
    """Encoder, method and optimizer of a run.

    Args:
        config: the run's settings.
        backbone: the encoder's network.
        encoder: to start from; None for one whose weights :meth:`assign` will bring.
        size: side of the views in pixels.
        micro_batch: pairs encoded at once; None for the whole batch.
        precision: of layers' computation, one of `precision.PRECISIONS`.
    """

    def __init__(
        self,
        config: PretrainConfig,
        backbone: str,
        encoder: keras.Model | None,
        *,
        size: int,
        micro_batch: int | None = None,
        precision: str = "float32",
    ):
        self.config, self.backbone, self.precision = config, backbone, precision
        self.peak_rate = config.learning_rate or config.default_rate
        self._method: Method
        self.optimizer: keras.optimizers.Optimizer
        self._compose(encoder, size, micro_batch)

    def _compose(self, start: keras.Model | None, size: int, micro_batch: int | None) -> None:
        with policy(self.precision):
            self._compose_in_precision(start, size, micro_batch)

    def _compose_in_precision(self, start: keras.Model | None, size: int, micro_batch: int | None) -> None:
        import keras

        from mri_transfer.pretrain.augmentations.views import Views

        config = self.config
        encoder = self._network(start, size)
        self.encoder, self.size, self.micro_batch = encoder, size, micro_batch
        self._method = METHODS[config.method].build(
            encoder,
            Views(size, config.strength, seed=config.seed, strengths=config.strengths),
            plan=self._plan(encoder, micro_batch),
            seed=config.seed,
            **config.method_options,
        )
        self.optimizer = keras.optimizers.AdamW(self.peak_rate, weight_decay=config.weight_decay)
        self.optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
        self._method.compile(optimizer=self.optimizer, jit_compile=device.jit_compile())
        self.optimizer.build(self._method.trainable_variables)
        self.compiled = False  # the first step compiles the graph

    def _network(self, start: keras.Model | None, size: int) -> keras.Model:
        """The encoder to train, with the weights of `start` if there is one."""
        if start is not None and self.precision == "float32":
            return start
        # `start` was built to compute in float32.
        from mri_transfer.checkpoints.backbones import build_encoder

        encoder = build_encoder(self.backbone, size, self.config.seed)
        if start is not None:
            encoder.set_weights(start.get_weights())
        return encoder

    def _plan(self, encoder: keras.Model, micro_batch: int | None) -> Plan | None:
        """How training calls the encoder."""
        from mri_transfer.pretrain.fit.memory_plan import memory_plan, recomputes

        return memory_plan(recomputes(self.config.recompute, encoder, self.config.batch), micro_batch)

    def build(
        self, *, size: int | None = None, micro_batch: int | None = None, arrays: dict[str, Any] | None = None
    ) -> None:
        """Rebuild the method for another view size or micro-batch, carrying over every number.

        Args:
            size: side of the views in pixels; None for the current one.
            micro_batch: pairs encoded at once; None for the current number.
            arrays: the state to continue from; None for the current one.

        Raises:
            UserError: the method's variables depend on what was changed.
        """
        arrays = self.arrays() if arrays is None else arrays
        size, micro_batch = size or self.size, micro_batch or self.micro_batch
        del self._method, self.optimizer, self.encoder  # frees memory for their replacements
        gc.collect()
        self._compose(None, size, micro_batch)
        self.assign(arrays)

    def step(self, batch: Mapping[str, Any], rate: float, share: float) -> float:
        """One optimizer step.

        Args:
            batch: "a", "b" uint8 (pairs, size, size), "subject" int32 (pairs,).
            rate: learning rate.
            share: of the budget used before it, 0..1.

        Returns:
            The loss before the step; not finite if training diverged.
        """
        self._method.set_progress(share)
        self.optimizer.learning_rate.assign(rate)
        self._method.reset_metrics()
        loss = self._train(batch)
        self.compiled = True
        return loss

    def _train(self, batch: Mapping[str, Any]) -> float:
        return float(self._method.train_on_batch(batch, return_dict=True)["loss"])

    @property
    def method(self) -> Method:
        """The method, for inspection."""
        return self._method

    def arrays(self) -> dict[str, np.ndarray]:
        """Copies of every number that changes while training, by name."""
        from mri_transfer.checkpoints.state import model_arrays

        return model_arrays(self._method, self.optimizer)

    def assign(self, arrays: dict[str, np.ndarray]) -> None:
        """Continue from numbers returned by :meth:`arrays`."""
        from mri_transfer.checkpoints.state import assign_arrays

        assign_arrays(arrays, self._method, self.optimizer)

    def copy_encoder(self, provenance: dict[str, Any]) -> Callable[[Path], None]:
        """Copy the current encoder; returns a function that writes that copy into a folder at any later time."""
        from mri_transfer.checkpoints.encoders import encoder_arrays, save_encoder

        encoder, backbone, size, arrays = self.encoder, self.backbone, self.size, encoder_arrays(self.encoder)

        def write(folder: Path) -> None:
            save_encoder(encoder, folder, backbone=backbone, size=size, provenance=provenance, arrays=arrays)

        return write
