"""Who holds what, on JAX: weights on every device, rows of a batch on one each.

`keras.distribution.DataParallel` says how arrays are laid out, and XLA makes of a step one program for all devices: it
sees the whole batch, so losses, batch normalisation and correlations over a batch are those of a single device, and
random numbers don't depend on the layout.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from mri_transfer.errors import UserError


def check_batch(batch: int, devices: int) -> None:
    """That every device gets as many pairs.

    Raises:
        UserError: the batch can't be shared out evenly.
    """
    if batch % devices:
        fewer = batch // devices * devices
        near = [pairs for pairs in (fewer, fewer + devices) if pairs]
        raise UserError(
            f"--batch {batch}: can't be shared out evenly among {devices} devices; give "
            f"{' or '.join(map(str, near))} pairs, or fewer devices (CUDA_VISIBLE_DEVICES)"
        )


class Devices:
    """All devices of all processes, which share each batch equally.

    Attributes:
        count: of all devices.
        processes, process: how many processes have them, and which one this is.

    Raises:
        UserError: processes have different numbers of them.
    """

    def __init__(self) -> None:
        import jax
        import keras

        of = Counter(device.process_index for device in jax.devices())
        if len(set(of.values())) > 1:
            told = ", ".join(f"process {process} has {of[process]}" for process in sorted(of))
            raise UserError(
                f"{told} devices, and each needs the same number; choose some with CUDA_VISIBLE_DEVICES"
            )
        self.count = jax.device_count()
        self.processes, self.process = jax.process_count(), jax.process_index()
        self._layout = keras.distribution.DataParallel(auto_shard_dataset=False)
        mesh = self._layout.device_mesh.backend_mesh
        self._everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def check(self, batch: int) -> None:
        """That every device gets as many pairs.

        Raises:
            UserError: the batch can't be shared out evenly.
        """
        check_batch(batch, self.count)

    def rows(self, batch: int) -> slice:
        """Which pairs of a batch this process reads."""
        own = batch // self.processes
        return slice(self.process * own, (self.process + 1) * own)

    def scope(self) -> contextlib.AbstractContextManager:
        """Inside, Keras shares out what a step is given by rows."""
        return self._layout.scope()

    def spread(self, variables: Iterable[Any]) -> None:
        """Put numbers that only this process's first device holds on all devices.

        Every process must hold the same; that isn't checked, nor is anything sent.
        """
        import jax

        for variable in variables:
            if variable.value.sharding != self._everywhere:
                value = np.asarray(variable.value)
                variable.assign(
                    jax.make_array_from_callback(value.shape, self._everywhere, value.__getitem__)
                )
