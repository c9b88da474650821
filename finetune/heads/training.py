"""One training of a classifier.

The head starts as the linear probe's exact solution on the unchanged encoder. Then the encoder's upper part and the
head are trained together (AdamW, rates from :mod:`mri_transfer.finetune.heads.rates`), with augmentation in the graph.
Batch normalisation keeps its statistics; the lower part is frozen and costs no backward pass.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from mri_transfer import progress
from mri_transfer.checkpoints.state import assign_arrays, model_arrays, save_state
from mri_transfer.finetune.config import Recipe
from mri_transfer.finetune.heads.classifier import Classifier
from mri_transfer.finetune.heads.probe import Probe
from mri_transfer.finetune.heads.rates import HEAD, LayerwiseAdamW, Schedule, parts_of
from mri_transfer.machine import device


def unfreeze_upper(encoder: keras.Model, share: float) -> list[str]:
    """Unfreeze the upper `share` of the layers with weights, and freeze the rest.

    Args:
        encoder: from :mod:`mri_transfer.checkpoints`; its layers are in topological order.
        share: 0 freezes everything, 1 nothing.

    Returns:
        Names of the layers that will change.
    """
    weighted = [layer for layer, _ in parts_of(encoder)]
    first = len(weighted) - round(share * len(weighted))
    for position, layer in enumerate(weighted):
        layer.trainable = position >= first
    return [layer.name for layer in weighted[first:]]


def balanced_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """float32 (classes,): n / (classes × images of the class), so that every class has equal weight in the loss."""
    counts = np.bincount(labels, minlength=classes)
    return (len(labels) / (classes * np.maximum(counts, 1))).astype(np.float32)


class Light(layers.Layer):
    """Random gain and gamma per image; black stays black, like the air around a head.

    Args:
        strength: gain lies in 1 ± strength, gamma in exp(± strength).
        seed: for draws.
    """

    def __init__(self, strength: float, seed: int, **options: Any):
        super().__init__(**options)
        self.strength = strength
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, images: Any, training: bool = False) -> Any:
        if not training or not self.strength:
            return images
        shape = (keras.ops.shape(images)[0], 1, 1, 1)
        gain = keras.random.uniform(shape, 1 - self.strength, 1 + self.strength, seed=self.generator)
        gamma = keras.ops.exp(keras.random.uniform(shape, -self.strength, self.strength, seed=self.generator))
        # Powers below one have no slope at zero; no gradient is taken here, but NaN would still spread.
        scaled = keras.ops.clip(images / 255, 1e-6, 1)
        return keras.ops.clip(255 * gain * scaled**gamma, 0, 255)


class Augmentation:
    """Diagnosis-preserving augmentation in the graph: flip, small rotation, zoom, shift, light.

    Empty borders are black, as around a head.
    """

    def __init__(self, recipe: Recipe, seed: int):
        black: dict[str, Any] = {"fill_mode": "constant", "fill_value": 0.0}
        self.seed = seed
        self.layers = [
            *([layers.RandomFlip("horizontal", seed=seed)] if recipe.flip else []),
            layers.RandomRotation(recipe.rotation / 360, seed=seed + 1, **black),
            layers.RandomZoom(recipe.zoom, seed=seed + 2, **black),
            layers.RandomTranslation(recipe.shift, recipe.shift, seed=seed + 3, **black),
            Light(recipe.light, seed=seed + 4),
        ]

    def restart(self, epoch: int) -> None:
        """Make an epoch's random numbers depend only on seed and epoch, so that it can be resumed."""
        for position, layer in enumerate(self.layers):
            words = hashlib.sha256(f"{self.seed}/{epoch}/{position}".encode()).digest()[:8]
            state = layer.generator.state
            state.assign(np.frombuffer(words, np.uint32).reshape(state.shape).astype(state.dtype))


def epoch_order(count: int, batch: int, seed: int, epoch: int) -> np.ndarray:
    """Indices (steps, batch) of one epoch: a permutation, padded from its own start to whole batches."""
    order = np.random.default_rng([seed, epoch]).permutation(count)
    steps = math.ceil(count / batch)
    return np.resize(order, steps * batch).reshape(steps, batch)


class _Trained(keras.Model):
    """Augmentation, encoder and head as one model that outputs logits.

    Not a functional model: there Keras passes `training=True` to nested models even if called with `training=False`,
    and batch normalisation would use batch statistics after all.
    """

    def __init__(self, classifier: Classifier, augmentation: Augmentation):
        super().__init__(name="finetuning")
        self.changes = augmentation.layers
        self.encoder, self.standardise, self.head = (
            classifier.encoder,
            classifier.standardise,
            classifier.head,
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Nothing to build: the parts already have weights."""

    def call(self, images: Any, training: bool = False) -> Any:
        for change in self.changes:
            images = change(images, training=training)
        return self.head(self.standardise(self.encoder(images, training=False)))


class Finetuning:
    """A classifier being trained.

    Args:
        classifier: changed in place.
        images: uint8 (n, size, size), training images only.
        labels: int (n,).
        recipe: the settings.
        seed: for image order and augmentation.
    """

    def __init__(
        self, classifier: Classifier, images: np.ndarray, labels: np.ndarray, recipe: Recipe, seed: int
    ) -> None:
        self.classifier, self.recipe, self.seed = classifier, recipe, seed
        self.trained = unfreeze_upper(classifier.encoder, recipe.unfreeze)
        self.augmentation = Augmentation(recipe, seed)
        self.model = _Trained(classifier, self.augmentation)
        self.model.build((None, classifier.size, classifier.size, 1))
        average = recipe.average * math.ceil(len(images) / min(recipe.batch, len(images)))
        self.optimizer = LayerwiseAdamW(
            recipe.weight_decay,
            global_clipnorm=1.0,
            use_ema=average > 0,
            ema_momentum=1 - 1 / max(average, 1),
        )
        self.model.compile(
            optimizer=self.optimizer,
            loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.smoothing),
            jit_compile=device.jit_compile(),
        )
        self.optimizer.build_parts(self.model.trainable_variables, self._parts())
        self._start = [keras.ops.convert_to_numpy(weight).copy() for weight in self.model.trainable_variables]
        self._set(images, labels, recipe.rate, recipe.passes(len(images)))

    def _parts(self) -> list[int]:
        """The part of each trained variable."""
        part_of = {
            id(weight): part
            for layer, part in parts_of(self.classifier.encoder)
            for weight in layer.trainable_weights
        }
        return [part_of.get(id(weight), HEAD) for weight in self.model.trainable_variables]

    def _set(self, images: np.ndarray, labels: np.ndarray, rate: float, epochs: int) -> None:
        self.images, self.labels, self.epoch, self.epochs = images, labels, 0, epochs
        self.batch = min(self.recipe.batch, len(images))
        self.steps = math.ceil(len(images) / self.batch)
        classes = len(self.classifier.classes)
        self.targets = np.eye(classes, dtype=np.float32)[labels]
        weights = balanced_weights(labels, classes) if self.recipe.balance else np.ones(classes, np.float32)
        self.importance = weights[labels]
        self.schedule = Schedule(
            rate,
            self.steps * epochs,
            warmup=self.recipe.warmup,
            decay=self.recipe.decay,
            gradual=self.recipe.gradual,
            lowest=max(self.optimizer.part_of),
        )

    def begin(
        self, images: np.ndarray, labels: np.ndarray, probe: Probe, *, rate: float, epochs: int
    ) -> None:
        """Start anew from the first encoder and another head, without recompiling.

        Args:
            images: uint8 (n, size, size).
            labels: int (n,).
            probe: on the first encoder's features of these images.
            rate: peak learning rate.
            epochs: length of the schedule.
        """
        for weight, value in zip(self.model.trainable_variables, self._start, strict=True):
            weight.assign(value)
        self.classifier.set_head(probe)
        self.optimizer.restart()
        self._set(images, labels, rate, epochs)

    def step(self, rows: np.ndarray) -> float:
        """Train on the images with these indices; returns their loss (nats) before the step."""
        self.model.reset_metrics()  # else Keras returns the mean since the epoch began
        self.optimizer.rates.assign(self.schedule(int(self.optimizer.iterations)))
        loss = self.model.train_on_batch(
            self.images[rows][..., None].astype(np.float32),
            self.targets[rows],
            sample_weight=self.importance[rows],
        )
        return float(np.ravel(loss)[0])

    def train_epoch(self, on_step: Callable[[float], None] | None = None) -> float:
        """One pass over the images.

        Args:
            on_step: called with the loss after every step.

        Returns:
            Mean loss (nats); not finite if training diverged and stopped there.
        """
        self.augmentation.restart(self.epoch)
        losses = []
        for rows in epoch_order(len(self.images), self.batch, self.seed, self.epoch):
            losses.append(self.step(rows))
            if on_step:
                on_step(losses[-1])
            if not math.isfinite(losses[-1]):
                break
        self.epoch += 1
        return float(np.mean(losses))

    @contextlib.contextmanager
    def averaged(self) -> Iterator[Classifier]:
        """The classifier as if training ended now: with the moving average of weights, if kept."""
        originals = [keras.ops.convert_to_numpy(weight).copy() for weight in self.model.trainable_variables]
        self.finish()
        try:
            yield self.classifier
        finally:
            for weight, value in zip(self.model.trainable_variables, originals, strict=True):
                weight.assign(value)

    def is_finite(self) -> bool:
        """Whether all trained weights are finite numbers."""
        return all(
            np.isfinite(keras.ops.convert_to_numpy(weight)).all() for weight in self.model.trainable_variables
        )

    def finish(self) -> None:
        """Use the moving average of weights, if kept; no training may follow."""
        if not self.optimizer.use_ema or not int(self.optimizer.iterations):
            return
        self.optimizer.finalize_variable_values(self.model.trainable_variables)
        for weight in self.model.trainable_variables:
            # On JAX, a weight and its average would share an array, which the next step may donate.
            weight.assign(keras.ops.convert_to_numpy(weight).copy())

    def save(self, folder: Path, **about: Any) -> None:
        """Save everything that the next epoch depends on; see :mod:`mri_transfer.checkpoints.state`.

        Args:
            about: JSON values to save with it.
        """
        save_state(folder, model_arrays(self.model, self.optimizer), {**about, "epoch": self.epoch})

    def resume(self, arrays: dict[str, np.ndarray], epoch: int) -> None:
        """Continue from arrays that :meth:`save` kept after `epoch` epochs of the same training."""
        assign_arrays(arrays, self.model, self.optimizer)
        self.epoch = epoch


def train(
    finetuning: Finetuning,
    *,
    desc: str = "fine-tuning",
    epochs: int | None = None,
    on_epoch: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """Run the remaining epochs, then use the average of weights.

    Args:
        finetuning: new or restored.
        desc: label of the progress bar.
        epochs: stop after this many, before the schedule's end.
        on_epoch: called with the mean loss after each epoch.

    Returns:
        {"losses": mean loss of each epoch run here, "diverged": bool, "seconds": .., "trained_layers": count}.
    """
    started, losses = time.monotonic(), []
    last = finetuning.epochs if epochs is None else min(epochs, finetuning.epochs)
    left = (last - finetuning.epoch) * finetuning.steps
    with progress.bar(total=max(0, left), desc=desc, unit="step", leave=False) as bar:

        def on_step(loss: float) -> None:
            bar.update(1)
            bar.set_postfix_str(f"epoch {finetuning.epoch + 1}/{last}, loss {loss:.3f}", False)

        while finetuning.epoch < last:
            losses.append(finetuning.train_epoch(on_step))
            if (
                not finetuning.is_finite()
            ):  # a loss is from before its step, and the last step may break the weights
                losses[-1] = math.nan
            if not math.isfinite(losses[-1]):
                break
            if on_epoch:
                on_epoch(losses[-1])
    diverged = bool(losses) and not math.isfinite(losses[-1])
    if not diverged:
        finetuning.finish()
    return {
        "losses": [round(loss, 5) for loss in losses if math.isfinite(loss)],
        "diverged": diverged,
        "seconds": round(time.monotonic() - started, 2),
        "trained_layers": len(finetuning.trained),
    }
