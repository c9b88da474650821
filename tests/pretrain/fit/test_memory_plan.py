"""Micro-batches and recomputation change memory and nothing else."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

from mri_transfer.pretrain.fit.memory_plan import memory_plan, recomputes, step_bytes


def small_encoder(dropout=0.0):
    image = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, kernel_initializer=keras.initializers.GlorotUniform(0))(image)
    x = layers.ReLU()(layers.BatchNormalization(epsilon=1e-3)(x))
    if dropout:
        x = layers.Dropout(dropout, seed=1)(x)
    return keras.Model(image, layers.GlobalAveragePooling2D()(x))


class Cubed(keras.Model):
    """A loss in which every image matters differently."""

    def __init__(self, encoder, call):
        super().__init__()
        self.encoder, self._call = encoder, call

    def call(self, x, training=True):
        return self._call(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean(ops.sum(y_pred**3, axis=1) * ops.arange(1, y_pred.shape[0] + 1, dtype="float32"))


def trained(call_of, steps=3, dropout=0.0):
    encoder = small_encoder(dropout)
    model = Cubed(encoder, call_of(encoder))
    model.compile(optimizer=keras.optimizers.SGD(0.01))
    x = np.random.default_rng(0).normal(size=(12, 8, 8, 1)).astype("float32")
    losses = [float(model.train_on_batch(x, return_dict=True)["loss"]) for _ in range(steps)]
    return losses, encoder.get_weights()


# 12 views divide so.
@pytest.mark.parametrize(
    ("pairs", "at_once", "dropout"),
    [(2, 4, 0.0), (1, 2, 0.0), (3, 6, 0.0), (4, 6, 0.0), (5, 6, 0.0), (2, 4, 0.5)],
)
def test_micro_batches_equal_the_parts_called_one_by_one(pairs, at_once, dropout):
    """Batch normalisation sees a part at a time in both, averages and random generators move in the same order."""

    def by_hand(encoder):
        return lambda x: ops.concatenate(
            [encoder(x[i : i + at_once], training=True) for i in range(0, 12, at_once)], axis=0
        )

    losses, weights = trained(memory_plan(micro_batch=pairs), dropout=dropout)
    expected, wanted = trained(by_hand, dropout=dropout)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    for a, b in zip(weights, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_micro_batch_that_holds_everything_changes_nothing():
    plain = trained(lambda encoder: lambda x: encoder(x, training=True))
    whole = trained(memory_plan(micro_batch=6))
    assert plain[0] == whole[0]
    assert all(np.array_equal(a, b) for a, b in zip(plain[1], whole[1], strict=True))


def test_maps_keep_their_shape():
    image = keras.Input((8, 8, 1))
    model = keras.Model(image, layers.Conv2D(3, 3)(image))
    x = np.random.default_rng(0).normal(size=(6, 8, 8, 1)).astype("float32")
    y = memory_plan(micro_batch=1)(model)(ops.convert_to_tensor(x))
    np.testing.assert_allclose(np.asarray(y), np.asarray(model(x)), atol=1e-5)


def test_the_estimate_follows_what_it_depends_on():
    encoder = small_encoder()

    def expected(batch=64, recompute=False, micro_batch=None):
        return step_bytes(encoder, batch, recompute=recompute, micro_batch=micro_batch)

    assert expected(128) > expected(64) > expected(64, recompute=True)
    batch = 10**6  # of a network this small, or the loop over micro-batches takes more than it saves
    assert expected(batch, micro_batch=8) < expected(batch, micro_batch=batch // 2) < expected(batch)
    assert expected(64, micro_batch=64) == expected(64)
    assert recomputes("always", encoder, 1)
    assert not recomputes("auto", encoder, 1)
    assert recomputes("auto", encoder, 10**7)
    assert not recomputes("never", encoder, 10**7)


MEASURE = """
import re, sys
from mri_transfer.machine import device
device.prepare()
import keras, numpy as np
from mri_transfer.checkpoints.backbones import build_encoder
from mri_transfer.pretrain.fit.memory_plan import memory_plan, step_bytes
from mri_transfer.pretrain.methods import METHODS
from mri_transfer.pretrain.augmentations.views import Views
recompute, micro = sys.argv[1] == "True", int(sys.argv[2]) or None
encoder = build_encoder("efficientnet_lite0", 96, 0)
method = METHODS["simclr"].build(encoder, Views(96), plan=memory_plan(recompute, micro))
method.compile(optimizer="adamw", jit_compile=False)
images = np.random.default_rng(0).integers(0, 255, (2, 48, 96, 96)).astype("uint8")
batch = {"a": images[0], "b": images[1], "subject": np.arange(48, dtype="int32")}
for _ in range(2):  # the second has everything that later ones have
    method.train_on_batch(batch)
# Of this program alone: what getrusage tells includes the process that started it.
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
print(peak, step_bytes(encoder, 48, recompute=recompute, micro_batch=micro))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_saved_and_foreseen():
    def measured(recompute, micro):
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, str(recompute), str(micro)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return tuple(map(int, done.stdout.split()))

    plain, recomputation, small = measured(False, 0), measured(True, 0), measured(False, 8)
    assert recomputation[0] < plain[0]
    assert small[0] < 0.75 * plain[0]
    for peak, expected in (plain, recomputation, small):
        assert 0.7 < expected / peak < 1.4
