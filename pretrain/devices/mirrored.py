"""All GPUs of this machine on TensorFlow: one step, traced once for each of them (`tf.distribute.MirroredStrategy`).

Every device gets the whole batch of slices, draws the random numbers of all views, and makes and encodes its own rows
of them, normalised by the whole batch's statistics. Then all exchange what they have, so that heads, losses, queues and
centres are those of a single device; each device computes them for itself, which is little work beside an encoder.

    mri_transfer/machine/replicas.py       which rows are a device's own, and how it comes to those of all
    checkpoints/shared_layers.py   layers of an encoder that see more than their own rows

A device can talk to others only in the main body of a step, not within what is computed a second time in the backward
pass. So neither micro-batches nor recomputed activations are to be had here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mri_transfer import progress
from mri_transfer.errors import UserError
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.devices.sharding import check_batch
from mri_transfer.pretrain.devices.team import Team
from mri_transfer.pretrain.devices.watched import WatchedApart
from mri_transfer.pretrain.fit.out_of_memory import REMEDY
from mri_transfer.pretrain.run.trainer import Trainer

if TYPE_CHECKING:
    import keras

    from mri_transfer.pretrain.methods.method import Plan


def gpus() -> list[str]:
    """Names of the GPUs that TensorFlow may use."""
    import tensorflow as tf

    return [f"GPU:{i}" for i, _ in enumerate(tf.config.get_visible_devices("GPU"))]


class MirroredTeam(Team):
    """This process alone, with several devices of TensorFlow.

    Args:
        config: of the run.
        names: of the devices.

    Raises:
        UserError: they can't share the batch, or the settings ask for what can't be done on several.
    """

    splits = False

    def __init__(self, config: PretrainConfig, names: Sequence[str]):
        super().__init__()
        check_batch(config.batch, len(names))
        for asked, what in (
            (config.micro_batch is not None, f"--micro-batch {config.micro_batch}"),
            (config.recompute == "always", "--recompute always"),
        ):
            if asked:
                raise UserError(
                    f"{what}: TensorFlow does that on one device only, and there are {len(names)}; set "
                    "KERAS_BACKEND=jax, or choose one with CUDA_VISIBLE_DEVICES=0"
                )
        import tensorflow as tf

        self.strategy = tf.distribute.MirroredStrategy(list(names))

    def trainer(self, *arguments: Any, micro_batch: int | None = None, **options: Any) -> Trainer:
        """A trainer for all devices; a micro-batch is that of a run that began on one."""
        if micro_batch is not None:
            progress.say(
                f"{micro_batch} pairs were encoded at once until now; from here on, the devices encode all of a batch"
            )
        return MirroredTrainer(*arguments, strategy=self.strategy, **options)


class MirroredTrainer(WatchedApart):
    """Trains on several devices of TensorFlow.

    Args:
        strategy: a `tf.distribute.MirroredStrategy`.
        (others): as of :class:`Trainer`; there are no micro-batches.
    """

    splits = False

    def __init__(self, *arguments: Any, strategy: Any, **options: Any):
        self.strategy, self.shares = strategy, strategy.num_replicas_in_sync
        super().__init__(*arguments, **options)

    def _compose(self, start: keras.Model | None, size: int, micro_batch: int | None) -> None:
        with self.strategy.scope():  # of what is made here, every device has a copy
            super()._compose(start, size, micro_batch)
        # There is nothing left to build; Keras would look for it by tracing the step once more.
        self.method.built = self.method.views.built = True
        compute_loss, devices = self.method.compute_loss, self.shares

        def share_of_loss(*given: Any, **options: Any) -> Any:
            """Gradients of all devices are added up; Keras multiplies by their number what it reports."""
            return compute_loss(*given, **options) / devices

        self.method.compute_loss = share_of_loss

    def _network(self, start: keras.Model | None, size: int) -> keras.Model:
        from mri_transfer.checkpoints.shared_layers import share_layers

        encoder = self._fresh_network(start, size)  # one that was made before is on one device only
        share_layers(encoder)
        return encoder

    def shortage(self) -> str:
        pairs = self.config.batch // self.shares
        return (
            f"{pairs} pairs on each of {self.shares} devices; {REMEDY}, or set KERAS_BACKEND=jax, which can encode "
            "fewer at once"
        )

    def _plan(self, encoder: keras.Model, micro_batch: int | None) -> Plan | None:
        return None

    def _jit_compile(self) -> bool | str:
        return False  # Keras would give XLA the step of all devices in one, which it can't take
