"""Several devices on JAX: weights on every device, each row of a batch on one.

`keras.distribution.DataParallel` lays out the arrays, and XLA compiles a step into one program for all devices. It sees
the whole batch, so losses, batch normalisation and correlations over a batch match a single device's, and random
numbers don't depend on the layout.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import keras
import numpy as np

from mri_transfer import progress
from mri_transfer.errors import UserError
from mri_transfer.pretrain.devices.choice import Devices
from mri_transfer.pretrain.fit.memory_plan import memory_plan, recomputes
from mri_transfer.pretrain.run.trainer import Trainer

if TYPE_CHECKING:
    from mri_transfer.pretrain.methods.method import Method, Plan


class ByRows(keras.distribution.DataParallel):
    """Data parallelism in which views and an encoder's layers output shards by row.

    Concatenating or slicing batches loses the row layout, and all devices would do the same work.
    """

    def __init__(self) -> None:
        super().__init__(auto_shard_dataset=False)
        self.layers: set[str] = set()

    def get_tensor_layout(self, path: str) -> Any:
        """Look up by a layer's path followed by "/output"."""
        return self.get_data_layout((None,)) if path.split("/")[-2] in self.layers else None


class SeveralDevices(Devices):
    """All devices of all processes; they share each batch equally.

    Attributes:
        count: number of devices.

    Raises:
        UserError: processes have different numbers of devices.
    """

    def __init__(self) -> None:
        of = Counter(device.process_index for device in jax.devices())
        if len(set(of.values())) > 1:
            numbers = ", ".join(f"process {process} has {of[process]}" for process in sorted(of))
            raise UserError(
                f"{numbers} devices, and each needs the same number; choose some with CUDA_VISIBLE_DEVICES"
            )
        self.count, self.processes, self.rank = jax.device_count(), jax.process_count(), jax.process_index()
        self.layout = ByRows()
        mesh = self.layout.device_mesh.backend_mesh
        self.everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def share(self, batch: int) -> None:
        """Check that every device gets the same number of pairs.

        Raises:
            UserError: the batch can't be split evenly.
        """
        if batch % self.count:
            fewer = batch // self.count * self.count
            near = " or ".join(str(pairs) for pairs in (fewer, fewer + self.count) if pairs)
            raise UserError(
                f"--batch {batch}: can't be shared out evenly among {self.count} devices; give {near} pairs, or "
                "fewer devices (CUDA_VISIBLE_DEVICES)"
            )
        if self.rank == 0:
            progress.say(f"{self.count} devices share each batch")

    def trainer(self, *arguments: Any, **options: Any) -> Trainer:
        return ShardedTrainer(*arguments, devices=self, **options)


class ShardedTrainer(Trainer):
    """Trains on several devices.

    Args:
        devices: those that share each batch.
        (others): as for :class:`Trainer`.
    """

    def __init__(self, *arguments: Any, devices: SeveralDevices, **options: Any):
        self.devices = devices
        super().__init__(*arguments, **options)

    def _compose(self, start: keras.Model | None, size: int, micro_batch: int | None) -> None:
        super()._compose(start, size, micro_batch)
        self._layers = {self._method.views.name, *(layer.name for layer in self.encoder.layers)}

    def _plan(self, encoder: keras.Model, micro_batch: int | None) -> Plan | None:
        pairs = self.config.batch // self.devices.count
        return memory_plan(recomputes(self.config.recompute, encoder, pairs), micro_batch)

    def _variables(self) -> list[Any]:
        return [*self._method.variables, *self._method.metrics_variables, *self.optimizer.variables]

    def _train(self, batch: Mapping[str, Any]) -> float:
        """A step on this process's rows of a batch, concurrent with the others'."""
        devices = self.devices
        for variable in self._variables():
            if variable.value.sharding != devices.everywhere:  # such as the rate, or gathered variables
                value = np.asarray(variable.value)
                variable.assign(
                    jax.make_array_from_callback(value.shape, devices.everywhere, value.__getitem__)
                )
        per_process = self.config.batch // devices.processes
        rows = slice(devices.rank * per_process, (devices.rank + 1) * per_process)
        devices.layout.layers = self._layers
        with devices.layout.scope():
            return super()._train({name: array[rows] for name, array in batch.items()})

    @property
    def method(self) -> Method:
        """The method with its current numbers on this process's first device alone."""
        for variable in self._variables():
            if len(variable.value.sharding.device_set) > 1:
                variable.assign(variable.value.addressable_data(0))
        return self._method
