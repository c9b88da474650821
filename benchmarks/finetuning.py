"""A fine-tuning step beside a bare Keras step of the same network.

    python benchmarks/finetuning.py [--size 160] [--batch 32] [--steps 12] [--rounds 5]

The bare step is `train_on_batch` of encoder and head with the same layers frozen, AdamW and cross-entropy, on one ready
batch: no augmentation, class weights, rates by part, weight averaging or image order. Rounds of both alternate, and the
ratio is the median of the rounds' ratios, in wall-clock and CPU time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from mri_transfer.machine import device

device.prepare()

import keras  # noqa: E402

from mri_transfer.checkpoints.initialisation import Initialisation  # noqa: E402
from mri_transfer.finetune.config import Recipe  # noqa: E402
from mri_transfer.finetune.heads.classifier import build_classifier  # noqa: E402
from mri_transfer.finetune.heads.training import Finetuning, unfreeze_upper  # noqa: E402

CLASSES = ("a", "b", "c", "d")


def encoder(a: argparse.Namespace) -> keras.Model:
    """Random weights are as fast as any."""
    return Initialisation.read("random", a.backbone).load(a.size)[0]


class Bare(keras.Model):
    """Encoder and head; batch normalisation keeps its statistics, as in fine-tuning."""

    def __init__(self, network: keras.Model):
        super().__init__()
        self.network, self.head = network, keras.layers.Dense(len(CLASSES))

    def call(self, images):
        return self.head(self.network(images, training=False))


def bare(a: argparse.Namespace, images: np.ndarray, labels: np.ndarray) -> Callable[[], None]:
    """One step of plain Keras."""
    network = encoder(a)
    unfreeze_upper(network, Recipe.unfreeze)
    model = Bare(network)
    model.compile(
        optimizer=keras.optimizers.AdamW(1e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=device.jit_compile(),
    )
    batch = images[: a.batch, ..., None].astype("float32")
    return lambda: model.train_on_batch(batch, labels[: a.batch])


def ours(a: argparse.Namespace, images: np.ndarray, labels: np.ndarray, recipe: Recipe) -> Callable[[], None]:
    """One fine-tuning step, with the full recipe."""
    network = encoder(a)
    features = network.output_shape[-1]
    classifier = build_classifier(
        network,
        CLASSES,
        mean=np.zeros(features, "float32"),
        scale=np.ones(features, "float32"),
        kernel=np.zeros((features, len(CLASSES)), "float32"),
        bias=np.zeros(len(CLASSES), "float32"),
    )
    training = Finetuning(classifier, images, labels, recipe, 0)
    rng = np.random.default_rng(0)
    return lambda: training.step(rng.permutation(len(images))[: a.batch])


def timed(step: Callable[[], None], steps: int) -> np.ndarray:
    """Wall-clock and CPU seconds per step."""
    before = time.perf_counter(), time.process_time()
    for _ in range(steps):
        step()
    return np.array([time.perf_counter() - before[0], time.process_time() - before[1]]) / steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--batch", type=int, default=Recipe.batch)
    parser.add_argument("--steps", type=int, default=12, help="steps a round")
    parser.add_argument("--rounds", type=int, default=5)
    a = parser.parse_args()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4 * a.batch, a.size, a.size)).astype("uint8")
    labels = np.arange(len(images)) % len(CLASSES)
    no_augmentation = Recipe(batch=a.batch, rotation=0, zoom=0, shift=0, light=0, flip=False)
    kinds = {
        "bare Keras": bare(a, images, labels),
        "ours without augmentation": ours(a, images, labels, no_augmentation),
        "ours": ours(a, images, labels, Recipe(batch=a.batch)),
    }
    for step in kinds.values():
        step()
        step()
    rounds = {name: [] for name in kinds}
    for _ in range(a.rounds):
        for name, step in kinds.items():
            rounds[name].append(timed(step, a.steps))
    for name, timings in rounds.items():
        wall, processor = (statistics.median(column) for column in np.array(timings).T)
        ratio = [statistics.median(column) for column in (np.array(timings) / rounds["bare Keras"]).T]
        print(
            f"{name:>26}: {1000 * wall:7.0f} ms a step, {1000 * processor / a.batch:5.1f} ms of a core an image; "
            f"{ratio[0]:.2f} and {ratio[1]:.2f} times bare Keras (wall clock, processor)"
        )


if __name__ == "__main__":
    main()
