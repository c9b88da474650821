"""Which parts of fine-tuning earn their place: one change at a time, on the development groups alone.

    python benchmarks/recipes_finetuning.py TUMORS --out results [--size 96] [--epochs 8] [--batch 16] [--seeds 2]
        [--only NAME,...] [--table]

Every variant is trained on the same grouped folds of the development groups from the same ImageNet start, by the
program's own code; scores are of the images that each fold holds out, after every epoch, with the last weights and with
their moving average. `chosen` runs the whole of it: the rate chosen by an inner split, calibration, early stopping.
What is done is kept in OUT, so a stopped benchmark continues; `--table` prints what is there.
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

from mri_transfer import device
from mri_transfer.datasets.tumors.folds import grouped_folds
from mri_transfer.finetune.calibration import calibration_scores, fit_temperature
from mri_transfer.finetune.config import Recipe

FOLDS = 3
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
    "no augmentation": STILL,
    "flip only": {**STILL, "flip": True},
    "decay 0.8": {"decay": 0.8},
    "decay 0.6": {"decay": 0.6},
    "gradual 0.5": {"gradual": 0.5},
    "decay 0.8, gradual 0.5": {"decay": 0.8, "gradual": 0.5},
    "smoothing 0.1": {"smoothing": 0.1},
    "no class weights": {"balance": False},
    "rate 1e-4": {"rate": 1e-4},
    "rate 1e-3": {"rate": 1e-3},
    "unfreeze 0.25": {"unfreeze": 0.25},
    "unfreeze 1": {"unfreeze": 1.0},
}
CHOSEN = {"calibration": "temperature", "rates": (1e-4, 3e-4, 1e-3)}


def start(a: argparse.Namespace) -> Any:
    """The ImageNet encoder."""
    import keras

    from mri_transfer.checkpoints.encoders import start_encoder

    keras.utils.clear_session()
    encoder, _ = start_encoder("imagenet", backbone=a.backbone, size=a.size, seed=0)
    encoder.compile(jit_compile=device.jit_compile())
    return encoder


def trained(a: argparse.Namespace, data: Development, features: np.ndarray, changes: dict, seed: int) -> dict:
    """Logits (epochs + 1, 2, n, classes) out of fold: of the probe and after each epoch, last weights and average."""
    from mri_transfer.finetune.classifier import with_probe_head
    from mri_transfer.finetune.features import extract_features
    from mri_transfer.finetune.probe import fit_probe
    from mri_transfer.finetune.training import Finetuning

    recipe = Recipe(epochs=a.epochs, batch=a.batch, **{**PLAIN, **changes})
    fold_of = grouped_folds(data.labels, data.groups, FOLDS, seed)
    logits = np.empty((a.epochs + 1, 2, len(data.labels), 4), np.float32)
    training = None
    for fold in range(FOLDS):
        train, test = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        probe = fit_probe(features[train], data.labels[train], data.groups[train], seed)
        if training is None:
            classifier = with_probe_head(start(a), probe, ("a", "b", "c", "d"))
            training = Finetuning(classifier, data.images[train], data.labels[train], recipe, seed)
        training.begin(data.images[train], data.labels[train], probe, rate=recipe.rate, epochs=a.epochs)
        held = data.images[test]
        logits[0, :, test] = classifier.logits_of(features[test])[:, None]
        for epoch in range(1, a.epochs + 1):
            training.train_epoch()
            logits[epoch, 0, test] = classifier.logits(held, None)
            with training.averaged():
                logits[epoch, 1, test] = classifier.logits_of(
                    extract_features(classifier.encoder, held, None)
                )
    return {"logits": logits}


def chosen(a: argparse.Namespace, data: Development, features: np.ndarray, changes: dict, seed: int) -> dict:
    """Logits (n, classes) out of fold, the temperature of each image's fold, and what was chosen."""
    from mri_transfer.finetune.tuning import Tuning

    recipe = Recipe(epochs=a.epochs, batch=a.batch, **{**PLAIN, **changes})
    fold_of = grouped_folds(data.labels, data.groups, FOLDS, seed)
    logits, temperature = np.empty((len(data.labels), 4), np.float32), np.empty(len(data.labels))
    said = []
    for fold in range(FOLDS):
        train, test = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        parts = (part[train] for part in (features, data.images, data.labels, data.groups))
        tuning = Tuning(start(a), *parts, ("a", "b", "c", "d"), recipe, seed)
        said.append(tuning.run())
        logits[test] = tuning.classifier.logits(data.images[test], None)
        temperature[test] = tuning.temperature
    return {"logits": logits, "temperature": temperature, "said": np.array(json.dumps(said))}


def work(a: argparse.Namespace, data: Development) -> None:
    from mri_transfer.finetune.features import extract_features

    features = extract_features(start(a), data.images, None)
    for seed in range(a.seeds):
        for name, changes in (*VARIANTS.items(), ("chosen", CHOSEN)):
            path = a.out / f"{name} seed {seed}.npz"
            if path.exists() or (a.only and name not in a.only.split(",")):
                continue
            before = time.process_time()
            found = (chosen if name == "chosen" else trained)(a, data, features, changes, seed)
            part = path.with_suffix(".part.npz")
            np.savez(part, cpu_seconds=time.process_time() - before, **found)
            part.replace(path)
            print(f"{name}, seed {seed}: {time.process_time() - before:.0f} s of a core", flush=True)


def scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Macro-F1; log loss, ECE; and log loss at the best temperature of all, which is no fair figure but compares."""
    return {
        "macro_f1": f1_score(labels, logits.argmax(1), average="macro"),
        **calibration_scores(logits, labels),
        "refined": calibration_scores(logits, labels, fit_temperature(logits, labels))["log_loss"],
    }


def line(name: str, found: list[dict[str, float]]) -> None:
    mean = {key: np.mean([each[key] for each in found]) for key in found[0]}
    each = " ".join(f"{one['macro_f1']:.3f}" for one in found)
    print(
        f"{name:>32}  macro-F1 {mean['macro_f1']:.3f} ({each})  log loss {mean['log_loss']:.3f}, at its best "
        f"temperature {mean['refined']:.3f}  ECE {mean['ece']:.3f}"
    )


def table(a: argparse.Namespace, data: Development) -> None:
    for name in VARIANTS:
        files = [np.load(path) for path in sorted(a.out.glob(f"{name} seed *.npz"))]
        if not files:
            continue
        if name == "plain":
            line("probe", [scores(file["logits"][0, 0], data.labels) for file in files])
            for epoch in range(1, files[0]["logits"].shape[0]):
                line(f"plain, epoch {epoch}", [scores(f["logits"][epoch, 0], data.labels) for f in files])
        line(name, [scores(file["logits"][-1, 0], data.labels) for file in files])
        line(f"{name}, average", [scores(file["logits"][-1, 1], data.labels) for file in files])
    for path in sorted(a.out.glob("chosen seed *.npz")):
        file = np.load(path)
        line(path.stem, [scores(file["logits"], data.labels)])
        calibrated = file["logits"] / file["temperature"][:, None]
        print(" " * 34, "calibrated:", calibration_scores(calibrated, data.labels))
        for said in json.loads(str(file["said"])):
            losses = [round(each["calibrated"], 3) for each in said["inner"]]
            print(" " * 34, said["rate"], said["rates"], f"T {said['temperature']:.2f}", losses)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tumors", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=2)
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
