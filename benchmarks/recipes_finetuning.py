"""Which parts of fine-tuning earn their place: one change at a time, on development groups only.

    python benchmarks/recipes_finetuning.py TUMORS --out results [--size 96] [--folds 3] [--epochs 5] [--batch 16]
        [--seeds 0,1] [--only NAME,...] [--table]

Every variant trains on the same grouped folds of the development groups from the same ImageNet start, with the
program's own code; scores are on each fold's held-out images, with the last weights and their moving average. `chosen`
runs everything: the rate chosen by short trainings on an inner split, calibration, early stopping. Results are kept in
OUT, so a stopped benchmark continues; `--table` prints existing ones.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from development import Development
from sklearn.metrics import f1_score

from mri_transfer.datasets.tumors.folds import grouped_folds
from mri_transfer.finetune.config import Recipe
from mri_transfer.finetune.heads.temperature import calibration_scores, fit_temperature
from mri_transfer.machine import device

CLASSES = ("a", "b", "c", "d")
PLAIN = {
    "decay": 1.0,
    "gradual": 0.0,
    "smoothing": 0.0,
    "balance": True,
    "calibration": "none",
    "average": 1.0,
}
STILL = {"rotation": 0.0, "zoom": 0.0, "shift": 0.0, "light": 0.0, "flip": False}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rate 1e-3": {"rate": 1e-3},
    "twice as long": {"epochs": 2},
    "batches of 8": {"batch": 8},
    "batches of 32": {"batch": 32},
    "no augmentation": STILL,
    "unfreeze 1, decay 0.8": {"unfreeze": 1.0, "decay": 0.8},
    "decay 0.8": {"decay": 0.8},
    "smoothing 0.1": {"smoothing": 0.1},
    "no class weights": {"balance": False},
    "gradual 0.5": {"gradual": 0.5},
    "unfreeze 1": {"unfreeze": 1.0},
    "rate 1e-4": {"rate": 1e-4},
}
CHOSEN = {"calibration": "temperature", "rates": (1e-4, 3e-4, 1e-3), "average": 0.0}


class Bench:
    """The development images, one ImageNet encoder for all, and each fold's probe."""

    def __init__(self, a: argparse.Namespace, data: Development):
        from mri_transfer.checkpoints.initialisation import Initialisation
        from mri_transfer.finetune.heads.features import extract_features

        self.a, self.data = a, data
        self.encoder, _ = Initialisation.read("imagenet", a.backbone).load(a.size)
        self.encoder.compile(jit_compile=device.jit_compile())
        self.start = self.encoder.get_weights()
        self.features = extract_features(self.encoder, data.images, None)
        self.probes: dict[tuple[int, int], Any] = {}
        self.compiled: dict[tuple, Any] = {}

    def recipe(self, changes: dict[str, Any]) -> Recipe:
        """The plain recipe with changes; "epochs" is a multiple."""
        changes = {**PLAIN, **changes, "epochs": self.a.epochs * changes.get("epochs", 1)}
        return Recipe(**{"batch": self.a.batch, **changes})

    def folds(self, seed: int) -> list[tuple[np.ndarray, np.ndarray, Any]]:
        """Training rows, held-out rows, and the training rows' probe."""
        from mri_transfer.finetune.heads.probe import fit_probe

        data, folds = self.data, []
        fold_of = grouped_folds(data.labels, data.groups, self.a.folds, seed)
        for fold in range(self.a.folds):
            train, test = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
            if (seed, fold) not in self.probes:
                self.probes[seed, fold] = fit_probe(
                    self.features[train], data.labels[train], data.groups[train], seed
                )
            folds.append((train, test, self.probes[seed, fold]))
        return folds

    def trained(self, changes: dict[str, Any], seed: int, curve: bool) -> dict[str, np.ndarray]:
        """Logits (n, classes) out of fold: of the probe, the last weights and their average, and each epoch."""
        from mri_transfer.finetune.heads.classifier import with_probe_head
        from mri_transfer.finetune.heads.training import Finetuning, unfreeze_upper

        images, labels, recipe = self.data.images, self.data.labels, self.recipe(changes)
        epochs = recipe.epochs
        names = ("probe", "last", "average", *(f"epoch {k}" for k in range(1, epochs)))
        logits = {name: np.full((len(labels), 4), np.nan, np.float32) for name in names}
        # What only concerns the schedule or host needs no other graph.
        key = (recipe.batch, recipe.smoothing, recipe.unfreeze, recipe.flip, recipe.rotation)
        training = self.compiled.get(key)
        self.encoder.set_weights(self.start)
        for train, test, probe in self.folds(seed):
            if training is None:
                classifier = with_probe_head(self.encoder, probe, CLASSES)
                training = Finetuning(classifier, images[train], labels[train], recipe, seed)
                self.compiled[key] = training
            unfreeze_upper(self.encoder, recipe.unfreeze)
            training.recipe, training.seed, training.augmentation.seed = recipe, seed, seed
            training.begin(images[train], labels[train], probe, rate=recipe.rate, epochs=epochs)
            logits["probe"][test] = training.classifier.logits_of(self.features[test])
            for epoch in range(1, epochs + 1):
                training.train_epoch()
                if curve and epoch < epochs:
                    logits[f"epoch {epoch}"][test] = training.classifier.logits(images[test], None)
            logits["last"][test] = training.classifier.logits(images[test], None)
            training.finish()
            logits["average"][test] = training.classifier.logits(images[test], None)
        return logits

    def chosen(self, changes: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
        """Logits (n, classes) out of fold, the temperature of each image's fold, and the choices."""
        from mri_transfer.finetune.heads.tuning import Tuning

        data = self.data
        logits, temperature = np.empty((len(data.labels), 4), np.float32), np.empty(len(data.labels))
        reports = []
        for train, test, _ in self.folds(seed):
            self.encoder.set_weights(self.start)
            parts = (array[train] for array in (self.features, data.images, data.labels, data.groups))
            tuning = Tuning(self.encoder, *parts, CLASSES, self.recipe(changes), seed)
            reports.append(tuning.run())
            logits[test] = tuning.classifier.logits(data.images[test], None)
            temperature[test] = tuning.temperature
        return {"logits": logits, "temperature": temperature, "said": np.array(json.dumps(reports))}


def work(a: argparse.Namespace, data: Development) -> None:
    """Run what is missing."""
    bench = Bench(a, data)
    for seed in a.seeds:
        for name, changes in (*VARIANTS.items(), ("chosen", CHOSEN)):
            path = a.out / f"{name} seed {seed}.npz"
            if path.exists() or (a.only and name not in a.only.split(",")):
                continue
            before = time.process_time()
            arrays = (
                bench.chosen(changes, seed)
                if name == "chosen"
                else bench.trained(changes, seed, curve=name == "plain")
            )
            part = path.with_suffix(".part.npz")
            np.savez(part, cpu_seconds=time.process_time() - before, **arrays)
            part.replace(path)
            print(f"{name}, seed {seed}: {time.process_time() - before:.0f} s of a core", flush=True)


def scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Macro-F1; log loss, ECE; and log loss at the overall best temperature, which is unfair but comparable."""
    return {
        "macro_f1": f1_score(labels, logits.argmax(1), average="macro"),
        **calibration_scores(logits, labels),
        "refined": calibration_scores(logits, labels, fit_temperature(logits, labels))["log_loss"],
    }


def line(name: str, rows: list[dict[str, float]]) -> None:
    mean = {key: np.mean([row[key] for row in rows]) for key in rows[0]}
    macro_f1 = " ".join(f"{row['macro_f1']:.3f}" for row in rows)
    print(
        f"{name:>32}  macro-F1 {mean['macro_f1']:.3f} ({macro_f1})  log loss {mean['log_loss']:.3f}, at its best "
        f"temperature {mean['refined']:.3f}  ECE {mean['ece']:.3f}"
    )


def table(a: argparse.Namespace, data: Development) -> None:
    """Print existing results."""
    for name in VARIANTS:
        files = [np.load(path) for path in sorted(a.out.glob(f"{name} seed *.npz"))]
        for kind in files[0].files if files else ():
            title = kind if kind == "probe" else name + ("" if kind == "last" else f", {kind}")
            if (
                kind == "cpu_seconds"
                or np.isnan(files[0][kind]).any()
                or (kind == "probe" and name != "plain")
            ):
                continue
            line(title, [scores(file[kind], data.labels) for file in files])
    for path in sorted(a.out.glob("chosen seed *.npz")):
        file = np.load(path)
        line(path.stem, [scores(file["logits"], data.labels)])
        calibrated = file["logits"] / file["temperature"][:, None]
        print(" " * 34, "calibrated:", calibration_scores(calibrated, data.labels))
        for report in json.loads(str(file["said"])):
            losses = [round(trial["calibrated"], 3) for trial in report["inner"]]
            print(" " * 34, report["rate"], report["rates"], f"T {report['temperature']:.2f}", losses)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tumors", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument(
        "--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0, 1], metavar="LIST"
    )
    parser.add_argument("--only", default="", help="names of variants, with commas")
    parser.add_argument("--table", action="store_true", help="print what is there and stop")
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    data = Development(a.tumors, a.size, a.out / "cache")
    if not a.table:
        device.prepare()
        work(a, data)
    table(a, data)


if __name__ == "__main__":
    main()
