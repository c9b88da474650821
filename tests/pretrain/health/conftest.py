"""A loop as small as can be, which asks a monitor as the real one does."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import pytest

from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.pairs.positives import PairSampler


def tiny_encoder(size: int = 32, features: int = 24, seed: int = 0) -> keras.Model:
    """Three convolutions with batch normalisation, flat and functional as every encoder is."""
    start = keras.initializers.HeNormal
    x = image = keras.Input((size, size, 1))
    x = keras.layers.Rescaling(1 / 128, offset=-1)(x)
    for i, width in enumerate((8, 16, features)):
        x = keras.layers.Conv2D(
            width, 3, strides=2, padding="same", use_bias=False, kernel_initializer=start(seed=seed + i)
        )(x)
        x = keras.layers.BatchNormalization(momentum=0.9)(x)
        x = keras.layers.ReLU()(x)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))


class SmallLoop:
    """Trains a tiny encoder, and keeps what a run keeps."""

    def __init__(self, store, out, method=None, *, steps=60, batch=8, size=32, seed=0, learning_rate=1e-3):
        from mri_transfer.pretrain.augmentations.views import Views
        from mri_transfer.pretrain.methods import METHODS

        self.config = PretrainConfig(store=store, out=out, steps=steps, batch=batch, size=size, seed=seed)
        self.store = SliceStore.open(store)
        self.sampler = PairSampler(self.store, positives="adjacent", max_mm=6, batch=batch, seed=seed)
        registered = METHODS["simclr"] if method is None else method
        self.method = registered.build(tiny_encoder(size, seed=seed), Views(size, seed=seed), seed=seed)
        self.method.compile(keras.optimizers.AdamW(learning_rate), jit_compile=False)
        self.lines, self.step, self.loss, self.out = [], 0, None, out

    def view(self):
        return SimpleNamespace(
            config=self.config,
            out=self.out,
            store=self.store,
            method=self.method,
            size=self.config.size,
            batch=self.batch,
            loss=self.loss,
            share=self.step / self.config.steps,
            metrics=self.lines,
            stopped=None,
            saving=0.004,
            diverged_at=(),
            ending=False,
        )

    def run(self, steps, monitor=None, every=10):
        """So many steps more; the monitor measures after the first one, and after each `every`."""
        for _ in range(steps):
            self.batch = self.sampler(self.step)
            self.loss = float(self.method.train_on_batch(self.batch, return_dict=True)["loss"])
            self.method.reset_metrics()
            self.step += 1
            at = {"step": self.step, "seconds": float(self.step)}
            line = {
                **at,
                "loss": self.loss,
                "learning_rate": 1e-3,
                "views_per_second": 16.0,
                "data_wait": 0.01,
            }
            if monitor is not None and (self.step == 1 or self.step % every == 0):
                line |= monitor.measure(self.view(), at)
            self.lines.append(line)
            if monitor is not None and monitor.stop:
                break
        return self

    def finish(self, monitor):
        return monitor.finish(self.view(), {"step": self.step, "seconds": float(self.step)})


@pytest.fixture(scope="session")
def make_encoder():
    return tiny_encoder


@pytest.fixture(scope="session")
def small_loop(small_store, tmp_path_factory):
    """Makes a loop in a folder of its own."""

    def make(method=None, **options):
        return SmallLoop(small_store, tmp_path_factory.mktemp("run"), method, **options)

    return make
