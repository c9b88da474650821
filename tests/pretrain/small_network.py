"""The command line with a network of three layers, for tests that start many processes or train many steps.

    python tests/pretrain/small_network.py pretrain STORE --out RUN ...

Everything else is the program as it is, except that MRI_TRANSFER_TEST may hold Python that is run first.
"""

from __future__ import annotations

import os
import sys

USE = "from tests.pretrain import small_network; small_network.use()"
"""For a process that is forked, see :mod:`tests.forked`."""


def build_small(backbone: str = "mobilenet", size: int = 32, seed: int = 0):
    """As checkpoints.backbones.build_encoder: batch normalisation and global pooling, but 12 features."""
    import keras
    from keras import layers

    image = keras.Input((size, size, 1), name="image", dtype="float32")
    x = layers.Rescaling(1 / 127.5, -1.0, name="preprocess")(image)
    for i, filters in enumerate((6, 12)):
        kernel = keras.initializers.HeNormal(seed=seed + i)
        x = layers.Conv2D(
            filters, 3, strides=2, padding="same", use_bias=False, kernel_initializer=kernel, name=f"conv{i}"
        )(x)
        x = layers.BatchNormalization(name=f"norm{i}")(x)
        x = layers.ReLU(name=f"relu{i}")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(
        image, layers.Activation("linear", name="features", dtype="float32")(x), name="encoder"
    )


def use(setattr=setattr) -> None:
    """Let every backbone be the small one, and views be random shifts of brightness, whose graph is made in no time.

    Args:
        setattr: give pytest's `monkeypatch.setattr` to have it undone.
    """
    from mri_transfer.machine import device

    device.prepare()
    import keras

    from mri_transfer.checkpoints import backbones, encoders
    from mri_transfer.pretrain.augmentations import views

    class SmallViews(keras.layers.Layer):
        def __init__(self, size, strength=1.0, seed=0, strengths=None):
            super().__init__(dtype="float32")
            self.size, self.random = size, keras.random.SeedGenerator(seed)

        def call(self, images):
            x = keras.ops.cast(images, "float32")[..., None]
            x = keras.ops.image.resize(x, (self.size, self.size), data_format="channels_last")
            return x + keras.random.uniform((keras.ops.shape(x)[0], 1, 1, 1), -40, 40, seed=self.random)

    for module in (backbones, encoders):
        setattr(module, "build_encoder", build_small)
    setattr(views, "Views", SmallViews)


if __name__ == "__main__":
    exec(os.environ.get("MRI_TRANSFER_TEST", ""))
    from mri_transfer.cli import main

    use()
    sys.exit(main())
