"""A fine-tuning trial as a value that any process can run."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer.checkpoints.initialisation import Initialisation
from mri_transfer.errors import UserError
from mri_transfer.finetune.arms.starts import load_compiled
from mri_transfer.finetune.config import Recipe
from mri_transfer.finetune.heads.probe import softmax
from mri_transfer.finetune.heads.temperature import calibration_scores
from mri_transfer.machine import device, memory
from mri_transfer.storage.arrays import load_npz

TIMED_STEPS = 4
# Estimated memory of a process at 160 px and 32 images a step: TensorFlow, weights, activations.
TRIAL_BYTES = 2.5e9


def processes_for_training() -> int:
    """Default number of concurrent trainings: one per core, as memory allows; one with a GPU."""
    if device.has_gpu():
        return 1
    room = memory.available_bytes()
    return device.cores() if room is None else max(1, min(device.cores(), int(room / TRIAL_BYTES)))


@dataclasses.dataclass(frozen=True, eq=False)
class TuningTask:
    """One fine-tuning to run.

    Attributes:
        name: in progress messages.
        source: the start, and `digest`, its identity (`Initialisation.digest`).
        imagenet_weights: as given by the user.
        recipe: the settings.
        classes: names.
        images: `.npy` file, uint8 (n, size, size).
        features: verified file of the start's features of all images.
        labels, groups: (n,) of all images.
        train, test: indices.
        seed: for inner splits, image order and augmentation.
        insight: path for the report's data on the fine-tuned encoder.
        elsewhere: `.npy` files of other images, all tested too.
    """

    name: str
    source: Initialisation
    digest: str
    imagenet_weights: Path | None
    recipe: Recipe
    classes: tuple[str, ...]
    images: Path
    features: Path
    labels: np.ndarray
    groups: np.ndarray
    train: np.ndarray
    test: np.ndarray
    seed: int
    insight: Path
    elsewhere: tuple[Path, ...] = ()


def _prepared(task: TuningTask) -> tuple[Any, np.ndarray]:
    """The fine-tuning, ready to begin, and all images.

    Raises:
        UserError: the start is not what it was when the comparison began.
    """
    device.prepare()
    from mri_transfer.finetune.heads.tuning import Tuning

    images = np.load(task.images, mmap_mode="r", allow_pickle=False)
    model, _ = load_compiled(task.source, images.shape[1], task.imagenet_weights)
    if task.source.digest(model) != task.digest:
        raise UserError(f"{task.source.origin}: changed while the comparison ran; run the same command again")
    features = load_npz(task.features)["features"][task.train]
    labels, groups = task.labels[task.train], task.groups[task.train]
    tuning = Tuning(model, features, images[task.train], labels, groups, task.classes, task.recipe, task.seed)
    return tuning, images


def tuning_trial(task: TuningTask) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Fine-tune and test.

    Returns:
        float32 (len(test), classes), then one for every other set of images; and details. A diverged training gives
        every class the same probability.

    Raises:
        UserError: the start is not what it was when the comparison began.
    """
    from mri_transfer.finetune.comparison.kept_maps import see_and_keep

    tuning, images = _prepared(task)
    details = tuning.run(desc=task.name)
    tested = [images[task.test], *(np.load(path, allow_pickle=False) for path in task.elsewhere)]
    if details["diverged"]:
        count = len(task.classes)
        return [np.full((len(pictures), count), 1 / count, np.float32) for pictures in tested], details
    classifier = tuning.classifier
    features = see_and_keep(task.insight, classifier, tested[0], task.name)
    logits = [
        classifier.logits_of(features),
        *(classifier.logits(pictures, task.name) for pictures in tested[1:]),
    ]
    labels = task.labels[task.test]
    details["uncalibrated"] = calibration_scores(logits[0], labels)
    details["calibrated"] = calibration_scores(logits[0], labels, tuning.temperature)
    return [softmax(values / tuning.temperature) for values in logits], details


def timed(task: TuningTask) -> tuple[float, float]:
    """Seconds to start a training, and seconds per step."""
    started = time.monotonic()
    finetuning = _prepared(task)[0].finetuning
    rows = np.arange(finetuning.batch)
    finetuning.step(rows)  # builds and compiles
    overhead = time.monotonic() - started
    started = time.monotonic()
    for _ in range(TIMED_STEPS):
        finetuning.step(rows)
    return overhead, (time.monotonic() - started) / TIMED_STEPS
