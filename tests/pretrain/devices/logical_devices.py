"""The processor as two devices of TensorFlow, on which whatever is run here would run on two GPUs.

It can be divided only before TensorFlow starts, so everything is done in a process of its own; run as a program, this
file trains on one device and on both from the same weights and batches, and prints what came of it as JSON:

    python tests/pretrain/parallel/logical_devices.py '{"method": "simclr", "steps": 3}'

What can be asked for: the arguments of :class:`Both`, how many steps, and whether to `carry` on afterwards.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

PAIRS, SIZE, RATE = 6, 64, 1e-3


def divide() -> list[str]:
    """Divide the processor; returns the names of its halves."""
    from mri_transfer.machine import device

    device.prepare()
    import tensorflow as tf

    (processor,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
    return ["CPU:0", "CPU:1"]


def use() -> None:
    """Let the program take the halves for GPUs."""
    names = divide()
    from mri_transfer.pretrain.devices import mirrored

    mirrored.gpus = lambda: names


def tiny_encoder(backbone: str = "", size: int = SIZE, seed: int = 0):
    """As checkpoints.backbones.build_encoder: a stride of 32, batch normalisation, and dropout of both kinds."""
    import keras
    from keras import layers

    from mri_transfer.checkpoints.normalization import fuse_batch_normalization

    image = keras.Input((size, size, 1), name="image", dtype="float32")
    x = layers.Rescaling(1 / 128, -1)(image)
    for i, (filters, stride) in enumerate([(6, 4), (8, 4), (12, 2)]):
        kernel = keras.initializers.HeNormal(seed=seed + i)
        x = layers.Conv2D(
            filters, 3, strides=stride, padding="same", use_bias=False, kernel_initializer=kernel
        )(x)
        x = layers.ReLU()(layers.BatchNormalization(scale=i != 1)(x))  # those without a scale are not fused
    x = layers.Dropout(0.2, noise_shape=(None, 1, 1, 1), seed=seed + 5)(x)
    x = layers.Dropout(0.1, seed=seed + 6)(x)
    x = layers.GlobalAveragePooling2D()(x)
    encoder = keras.Model(image, layers.Activation("linear", name="features", dtype="float32")(x))
    fuse_batch_normalization(encoder)
    return encoder


def batches(count: int) -> list[dict[str, np.ndarray]]:
    """Pairs of slices that differ in brightness and texture, some of one subject."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0 : 1 : SIZE * 1j, 0 : 1 : SIZE * 1j]

    def slices():
        waves = rng.uniform(2, 30, (PAIRS, 2, 1, 1))
        pictures = 100 + 60 * np.sin(waves[:, 0] * x) * np.cos(waves[:, 1] * y)
        return (pictures + rng.normal(0, 9, pictures.shape)).clip(0, 255).astype(np.uint8)

    subject = np.array([0, 0, 1, 2, 3, 3], np.int32)
    labels = {
        "plane": np.array([0, 1, 2, -1, 2, 0], np.int32),
        "position": np.full((PAIRS, 2), 0.3, np.float32),
    }
    return [{"a": slices(), "b": slices(), "subject": subject, **labels} for _ in range(count)]


def apart(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], kinds: str, least: float) -> float:
    """The largest difference of arrays whose names end so, each as a share of its own largest number.

    Args:
        kinds: ends of names.
        least: to take shares of; what should be zero is rounding.
    """
    assert ours.keys() == theirs.keys()
    found = [
        float(np.abs(ours[name].astype(float) - theirs[name]).max() / max(np.abs(theirs[name]).max(), least))
        for name in ours
        if name.endswith(tuple(kinds.split()))
    ]
    assert found, kinds
    return max(found)


def norm(arrays: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """Of the difference of all trained weights together."""
    names = [
        name for name in arrays if name.startswith("model/") and name.endswith(("/kernel", "/gamma", "/beta"))
    ]
    return float(np.sqrt(sum(((arrays[name] - other[name]) ** 2).sum() for name in names)))


class Both:
    """One trainer on one device, another on two, from the same weights; both are fed the same batches.

    Args:
        method, precision: of both.

    Attributes:
        losses: of the steps so far, of either.
        rows: how many images a convolution of the encoder was made for, on either.
    """

    def __init__(self, method: str, precision: str = "float32"):
        names = divide()
        from mri_transfer.checkpoints import backbones
        from mri_transfer.pretrain.config import PretrainConfig
        from mri_transfer.pretrain.devices.mirrored import MirroredTeam
        from mri_transfer.pretrain.run.trainer import Trainer

        backbones.build_encoder = tiny_encoder
        config = PretrainConfig(
            store=Path(),
            out=Path(),
            batch=PAIRS,
            method=method,
            weight_decay=5.0,  # a hundred times as strong as usual, so that a weight of which it is forgotten is seen
            # They round to whole grey levels, and where a pixel is between two, its last bit decides: on one version of
            # TensorFlow that changed the third loss by 2e-5.
            view=("depth=0", "jpeg=0"),
        )
        given, options = (config, "tiny", tiny_encoder()), {"size": SIZE, "precision": precision}
        self.two = MirroredTeam(config, names).trainer(*given, **options)
        self.one = Trainer(*given, **options)
        self.start = self.one.arrays()
        self.losses: dict[str, list[float]] = {"one": [], "two": []}
        self.rows: dict[str, set[int]] = {"one": set(), "two": set()}

    def steps(self, count: int) -> None:
        import keras

        convolve, of = keras.layers.Conv2D.call, ""

        def noting(layer, x):
            if not layer.name.startswith("decoder"):
                self.rows[of].add(x.shape[0])
            return convolve(layer, x)

        keras.layers.Conv2D.call = noting
        for batch in batches(count):
            share = len(self.losses["one"]) / 10
            for of, trainer in (("one", self.one), ("two", self.two)):
                self.losses[of].append(trainer.step(batch, RATE, share))
        keras.layers.Conv2D.call = convolve

    def differences(self) -> dict[str, float]:
        """Of the numbers of both: momentum (after one step that is the gradient), statistics and random generators as
        shares of the largest number of an array; trained weights as a share of the way that they have come.
        """
        ours, theirs = self.two.arrays(), self.one.arrays()
        return {
            "momentum": apart(ours, theirs, "/momentum", 1e-6),
            "statistics": apart(ours, theirs, "/moving_mean /moving_variance", 1e-3),
            "generators": apart(ours, theirs, "/seed_generator_state", 1.0),
            "weights": norm(ours, theirs) / norm(theirs, self.start),
        }

    def unlike(self) -> list[str]:
        """Variables of which the two devices hold different numbers."""
        copies_of = self.two.strategy.experimental_local_results
        variables = (*self.two.method.variables, *self.two.optimizer.variables)
        return [
            v.path for v in variables if len({copy.numpy().tobytes() for copy in copies_of(v.value)}) != 1
        ]

    def carry(self) -> bool:
        """Views become larger, each goes on from the other's numbers, and both do two steps more.

        Returns:
            Whether what monitors look at had the numbers of the two devices, before and after.
        """
        from mri_transfer.checkpoints.state import model_arrays

        def is_watched() -> bool:
            method = self.two.watched
            ours = {name: array for name, array in self.two.arrays().items() if name.startswith("model/")}
            seen = model_arrays(method)
            return ours.keys() == seen.keys() and all(np.array_equal(ours[name], seen[name]) for name in ours)

        watched = is_watched()
        for trainer in (self.one, self.two):
            trainer.build(size=SIZE + 32)
        first, second = self.one.arrays(), self.two.arrays()
        self.one.assign(second)
        self.two.assign(first)
        self.steps(2)
        return watched and is_watched()


def main(method: str, steps: int, precision: str = "float32", carry: bool = False) -> None:
    both = Both(method, precision)
    both.steps(1)
    found: dict[str, Any] = {"first": both.differences()}
    both.steps(steps - 1)
    found["last"] = both.differences()
    found["watched"] = both.carry() if carry else None
    rows = {of: sorted(rows) for of, rows in both.rows.items()}
    print(json.dumps({**found, "losses": both.losses, "rows": rows, "unlike": both.unlike()}))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
