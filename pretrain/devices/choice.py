"""Picks the devices a run trains on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from mri_transfer import progress
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.errors import UserError
from mri_transfer.machine import device
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.devices.membership import membership_of
from mri_transfer.pretrain.pairs.positives import PairSampler
from mri_transfer.pretrain.run.stop_signals import Interrupts
from mri_transfer.pretrain.run.trainer import Trainer


class Devices:
    """One device.

    Attributes:
        rank: this process's, in its group. Rank 0 runs the loop and writes; the others :meth:`follow`.
        processes: size of the group.
    """

    rank, processes = 0, 1

    def trainer(self, *arguments: Any, **options: Any) -> Trainer:
        """A trainer for these devices; arguments as for :class:`Trainer`."""
        return Trainer(*arguments, **options)

    def follow(self, config: PretrainConfig, sampler: PairSampler) -> dict[str, Any]:
        """Do each step with rank 0 until it ends; returns a summary."""
        raise NotImplementedError


@contextlib.contextmanager
def chosen_devices(config: PretrainConfig, store: SliceStore, interrupts: Interrupts) -> Iterator[Devices]:
    """The devices this run trains on.

    Args:
        config, store: the run's.
        interrupts: stop requests from the user or the system.

    Raises:
        UserError: processes don't find one another or don't agree, devices can't share the batch, or the backend
            can't do it.
    """
    membership = membership_of(config)
    if device.prepare() != "jax":
        if membership is not None:
            raise UserError(
                "--processes: Keras trains in several processes on JAX only, and this one uses TensorFlow; "
                "set KERAS_BACKEND=jax (pip install 'mri-transfer[jax]')"
            )
        if (gpus := device.tensorflow_gpus()) > 1:
            progress.say(f"training on the first of {gpus} GPUs: several need KERAS_BACKEND=jax")
        yield Devices()
        return
    import jax

    if membership is not None:
        from mri_transfer.pretrain.devices.group import ProcessGroup

        with ProcessGroup(config, store, membership, interrupts) as group:
            yield group
    elif jax.device_count() > 1:
        from mri_transfer.pretrain.devices.sharding import SeveralDevices

        devices = SeveralDevices()
        devices.share(config.batch)
        yield devices
    else:
        yield Devices()
