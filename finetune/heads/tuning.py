"""One complete fine-tuning: chooses the rate, calibrates probabilities, and trains the classifier.

An inner split of the training groups makes all choices; see :mod:`mri_transfer.finetune.heads.stages`. Settings are
judged by log loss after temperature scaling, as sharpness is corrected afterwards (Berta et al. 2025,
arXiv:2501.19195). One network serves all trainings, so it is compiled once.
"""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mri_transfer.checkpoints.state import REMEDY, load_state
from mri_transfer.errors import UserError
from mri_transfer.finetune.config import Recipe
from mri_transfer.finetune.data.protocol import inner_splits
from mri_transfer.finetune.heads.classifier import Classifier, with_probe_head
from mri_transfer.finetune.heads.probe import Probe, fit_probe
from mri_transfer.finetune.heads.stages import Stage, grid, stages
from mri_transfer.finetune.heads.temperature import fit_temperature, tempered_loss
from mri_transfer.finetune.heads.training import Finetuning, train
from mri_transfer.storage.files import Kind, wrong_fields

_NUMBER: Kind = (int, float)
_KEPT: dict[str, Kind] = {  # beside the weights
    **{"epoch": int, "stage": int, "losses": [_NUMBER], "rates": dict[str, int | float | None]},
    "inner": [dict.fromkeys(("log_loss", "calibrated", "temperature"), _NUMBER)],
}


class Tuning:
    """A classifier in the making.

    Args:
        encoder: the start; it is changed in place.
        features: float32 (n, d), its initial features of the images.
        images: uint8 (n, size, size), training images only.
        labels, groups: int (n,).
        classes: names.
        recipe: the settings.
        seed: for the inner split, image order and augmentation.
    """

    def __init__(
        self,
        encoder: keras.Model,
        features: np.ndarray,
        images: np.ndarray,
        labels: np.ndarray,
        groups: np.ndarray,
        classes: tuple[str, ...],
        recipe: Recipe,
        seed: int,
    ):
        self.features, self.images, self.labels, self.groups = features, images, labels, groups
        self.recipe, self.seed = recipe, seed
        parts = inner_splits(labels, groups, seed, recipe.inner_parts)
        self.inner = parts[0] if parts else None
        self.stages = stages(recipe, len(labels), inner=bool(parts))
        self.probe = self._probe(np.arange(len(labels)))
        self._inner_probe: Probe | None = None
        start = with_probe_head(encoder, self.probe, classes)
        self.finetuning = Finetuning(start, images, labels, recipe, seed)
        self.about: dict[str, Any] = {"stage": 0, "losses": [], "rates": {}, "inner": []}
        self._begin()

    @property
    def stage(self) -> Stage:
        """The current training."""
        return self.stages[self.about["stage"]]

    @property
    def rate(self) -> float:
        """The best rate; the lowest if none did better."""
        tried = self.about["rates"]
        return min(grid(self.recipe), key=lambda rate: tried.get(f"{rate:g}") or math.inf)

    @property
    def epochs(self) -> int:
        """Length of the last training, within its schedule."""
        if not self.recipe.early_stopping or not self.about["inner"]:
            return self.stages[-1].epochs
        return 1 + int(np.argmin([epoch["calibrated"] for epoch in self.about["inner"]]))

    @property
    def temperature(self) -> float:
        """Temperature of the inner training after as many epochs as the last training has; 1 without one."""
        if self.recipe.calibration != "temperature" or not 0 < self.epochs <= len(self.about["inner"]):
            return 1.0
        return self.about["inner"][self.epochs - 1]["temperature"]

    @property
    def classifier(self) -> Classifier:
        """The classifier as it is now."""
        return dataclasses.replace(self.finetuning.classifier, temperature=self.temperature)

    @property
    def position(self) -> str:
        """Training's position, in words."""
        return f"{self.stage}, after epoch {self.finetuning.epoch} of {self.stage.epochs}"

    def _probe(self, rows: np.ndarray) -> Probe:
        return fit_probe(self.features[rows], self.labels[rows], self.groups[rows], self.seed)

    def _begin(self) -> None:
        """Start the current stage's training."""
        rows, probe = np.arange(len(self.labels)), self.probe
        if self.inner is not None and self.stage.inner:
            rows = self.inner[0]
            probe = self._inner_probe = self._inner_probe or self._probe(rows)
        rate = self.rate if self.stage.rate is None else self.stage.rate
        self.finetuning.begin(
            self.images[rows], self.labels[rows], probe, rate=rate, epochs=self.stage.epochs
        )

    def restore(self, folder: Path) -> bool:
        """Continue from what :meth:`run` kept for the same settings; False if nothing was kept."""
        state = load_state(folder)
        if state is None:
            return False
        arrays, facts = state
        if wrong := self._wrong_in(facts):
            raise UserError(f"{folder}: is damaged ({', '.join(wrong)}); {REMEDY}")
        epoch = facts.pop("epoch")
        self.about = facts
        self._begin()
        self.finetuning.resume(arrays, epoch)
        return True

    def _wrong_in(self, facts: dict[str, Any]) -> list[str]:
        """The facts beside kept weights that are not what :meth:`run` keeps."""
        if wrong := wrong_fields(facts, _KEPT):
            return wrong
        if not 0 <= facts["stage"] < len(self.stages):
            return ["stage"]
        if not 0 <= facts["epoch"] <= self.stages[facts["stage"]].epochs:
            return ["epoch"]
        return [] if all(epoch["temperature"] > 0 for epoch in facts["inner"]) else ["inner"]

    def run(self, desc: str = "fine-tuning", state: Path | None = None) -> dict[str, Any]:
        """Run the rest.

        Args:
            desc: label of the progress bars.
            state: folder for resuming after each epoch.

        Returns:
            JSON-able {"losses": mean loss (nats) of each epoch of the last training, "diverged": whether that one did,
            "rate": its peak learning rate, "rates": held-out log loss of each rate tried, None if it diverged,
            "epochs", "temperature", "inner": for each epoch of the inner training the held-out "log_loss", the same
            after calibration as "calibrated", and "temperature", "inner_images": numbers of training and held-out
            images, or None, "strength": of the probe's penalty, "seconds", "trained_layers"}.
        """
        started = time.monotonic()
        while True:
            stage = self.stage
            final = stage.purpose == "final"
            result = train(
                self.finetuning,
                desc=desc if len(self.stages) == 1 else f"{desc}, {stage}",
                epochs=self.epochs if final else None,
                on_epoch=lambda loss: self._after_epoch(loss, state),
            )
            if final:
                break
            if stage.purpose == "rate":
                judged = None if result["diverged"] else self._judged()["calibrated"]
                self.about["rates"][f"{stage.rate:g}"] = judged
            self.about |= {"stage": self.about["stage"] + 1, "losses": []}
            self._begin()
        return {
            **result,
            "losses": self.about["losses"],
            "seconds": round(time.monotonic() - started, 2),
            "rate": self.rate if stage.rate is None else stage.rate,
            "rates": self.about["rates"],
            "epochs": self.epochs,
            "temperature": self.temperature,
            "inner": self.about["inner"],
            "inner_images": None if self.inner is None else [len(rows) for rows in self.inner],
            "strength": self.probe.strength,
        }

    def _after_epoch(self, loss: float, state: Path | None) -> None:
        self.about["losses"].append(round(loss, 5))
        if self.stage.purpose == "calibration":
            with self.finetuning.averaged():
                self.about["inner"].append(self._judged())
        if state is not None:
            self.finetuning.save(state, **self.about)

    def _judged(self) -> dict[str, float]:
        """The current classifier's scores on the inner split's held-out images."""
        if self.inner is None:
            raise RuntimeError("no images are held out")
        rows = self.inner[1]
        logits, labels = self.finetuning.classifier.logits(self.images[rows], None), self.labels[rows]
        temperature = fit_temperature(logits, labels)
        return {
            "log_loss": tempered_loss(logits, labels, 1.0),
            "calibrated": tempered_loss(logits, labels, temperature),
            "temperature": temperature,
        }
