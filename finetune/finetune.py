"""`mri-transfer finetune`: one classifier, trained on all groups but one fold and scored on that fold."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import time
from typing import Any

import numpy as np

from mri_transfer import progress
from mri_transfer.checkpoints.initialisation import Initialisation, weights_digest
from mri_transfer.datasets.tumors.images import unreadable
from mri_transfer.datasets.tumors.persons.recognised import sentences
from mri_transfer.datasets.tumors.tumors import TumorSet, load_tumors
from mri_transfer.errors import UserError
from mri_transfer.evaluation import metrics
from mri_transfer.finetune.config import RUN_KIND, FinetuneConfig, require_tumors
from mri_transfer.finetune.data.protocol import Split, grouped_splits
from mri_transfer.finetune.heads.temperature import calibration_scores
from mri_transfer.machine import device
from mri_transfer.options import as_dict
from mri_transfer.storage.files import (
    check_outside,
    claim_folder,
    read_object,
    to_json,
    write_card,
    write_json,
)
from mri_transfer.storage.locks import alone_in, require_here
from mri_transfer.storage.sums import write_sums

HELD_OUT = 0  # the fold that is scored and never trained on


def finetune(config: FinetuneConfig) -> dict[str, Any]:
    """Train the classifier; running again continues from the last finished epoch.

    Returns:
        The summary, also written to RUN/summary.json.

    Raises:
        UserError: the tumour folder, the start or the run folder can't be used, or training diverged.
    """
    require_tumors(config.tumors)
    start = Initialisation.read(config.init, config.backbone, seed=config.seed)
    check_outside(config.out, config.tumors)
    claim_folder(config.out, RUN_KIND)
    with alone_in(config.out):
        tumors = load_tumors(
            config.tumors,
            config.size,
            strict=config.strict,
            cache=config.out / "cache",
            groups_from=config.groups,
            force_groups=config.force_groups,
            labels_from=config.labels,
        )
        for line in (*unreadable(tumors.audit["skipped"]), *sentences(tumors.audit)):
            progress.say(line)
        splits = grouped_splits(
            tumors.labels, tumors.groups, folds=config.folds, seeds=(config.seed,), classes=tumors.classes
        )
        split = next(split for split in splits if split.fold == HELD_OUT)
        summary = _finished(config, start, tumors)
        if summary is not None:
            progress.say(f"{config.out}: finished before; nothing to do")
            return summary
        return _train(config, start, tumors, split)


def _key(config: FinetuneConfig, start: Initialisation, tumors: TumorSet) -> str:
    """A digest of every setting that affects the classifier."""
    settings = as_dict(config) | {
        "tumors": tumors.fingerprint,
        "start": start.identity,
    }
    for name in ("out", "init", "imagenet_weights", "strict"):
        settings.pop(name)
    settings |= {"backbone": start.backbone, "recipe": dataclasses.asdict(config.recipe())}
    return hashlib.sha256(to_json(dict(sorted(settings.items()))).encode()).hexdigest()


def _finished(config: FinetuneConfig, start: Initialisation, tumors: TumorSet) -> dict[str, Any] | None:
    """The summary of a finished run with the same settings; None if there is work to do.

    Raises:
        UserError: the folder's run has other settings or images.
    """
    card, key = config.out / "config.json", _key(config, start, tumors)
    if not card.is_file():
        write_card(card, {"key": key, "config": as_dict(config)})
        return None
    if read_object(card).get("key") != key:
        raise UserError(
            f"{config.out}: holds a run with other settings or images ({card}); choose another --out"
        )
    summary = config.out / "summary.json"
    return read_object(summary) if summary.is_file() else None


def _train(config: FinetuneConfig, start: Initialisation, tumors: TumorSet, split: Split) -> dict[str, Any]:
    from mri_transfer.finetune.heads.classifier import save_classifier
    from mri_transfer.finetune.heads.features import extract_features
    from mri_transfer.finetune.heads.tuning import Tuning
    from mri_transfer.finetune.prediction.out_of_distribution import fit, save_in_distribution

    started = time.monotonic()
    encoder, description = start.load(config.size, config.imagenet_weights)
    encoder.compile(jit_compile=device.jit_compile())
    train, test = split.train, split.test
    before = weights_digest(encoder)
    tuning = Tuning(
        encoder,
        extract_features(encoder, tumors.images[train], "features"),
        tumors.images[train],
        tumors.labels[train],
        tumors.groups[train],
        tumors.classes,
        config.recipe(),
        config.seed,
    )
    state = config.out / "state"
    if tuning.restore(state):
        progress.say(f"continuing {config.out}: {tuning.position}")
    history = tuning.run(state=state)
    if history["diverged"]:
        raise UserError(
            f"{config.out}: training diverged; use a lower --rate (it was {history['rate']:g}) and a new --out"
        )
    classifier = tuning.classifier
    features = extract_features(classifier.encoder, tumors.images[test], "held-out images")
    scores = held_out_scores(tumors, split, classifier.logits_of(features), classifier.temperature)
    distribution = fit(
        extract_features(classifier.encoder, tumors.images[train], "training images"), features
    )
    seconds = round(time.monotonic() - started, 1)
    provenance = {
        "start": description,
        "method": "fine-tuning",
        "data": {"fingerprint": tumors.fingerprint, "images": len(split.train)},
        "seconds": seconds,
        "steps": tuning.finetuning.steps * history["epochs"],
        "versions": device.versions(),
        "metrics": scores,
        "config": as_dict(config),
    }
    require_here(config.out)
    save_classifier(classifier, config.out, backbone=start.backbone, provenance=provenance)
    save_in_distribution(distribution, config.out)
    summary = {
        "run": str(config.out),
        "start": start.origin,
        "start_weights": before,
        "classes": list(tumors.classes),
        "train_images": len(split.train),
        "held_out": {
            "images": len(split.test),
            "groups": len(np.unique(tumors.groups[split.test])),
            **scores,
        },
        "training": history,
        "skipped": tumors.audit.get("skipped", []),
        "labels": tumors.audit["labels"],
        "training_seconds": seconds,
        "versions": device.versions(),
        "config": as_dict(config),
    }
    write_json(config.out / "summary.json", summary)
    shutil.rmtree(state, ignore_errors=True)  # the classifier is safe; the optimiser's state is unneeded
    write_sums(config.out)
    recall = ", ".join(f"{name} {value:.2f}" for name, value in scores["recall"].items())
    progress.say(
        f"held-out fold of {len(split.test)} images: macro-F1 {scores['macro_f1']:.3f}, balanced accuracy "
        f"{scores['balanced_accuracy']:.3f} (recall: {recall})"
    )
    progress.say(f"classifier: {config.out}; use it with `mri-transfer predict {config.out} IMAGE...`")
    return summary


def held_out_scores(tumors: TumorSet, split: Split, logits: np.ndarray, temperature: float) -> dict[str, Any]:
    """Macro-F1, balanced accuracy and per-class recall on a split's test images, all 0..1; and its confidence.

    Log loss (nats), Brier score and expected calibration error are for the fitted temperature, and under "uncalibrated"
    for a temperature of one.
    """
    truth = tumors.labels[split.test]
    counts = metrics.confusion(truth, logits.argmax(-1), len(tumors.classes))
    f1, recall = (np.nan_to_num(score(counts)) for score in (metrics.class_f1, metrics.recall))
    return {
        "macro_f1": float(f1.mean()),
        "balanced_accuracy": float(recall.mean()),
        "recall": {name: float(value) for name, value in zip(tumors.classes, recall, strict=True)},
        **calibration_scores(logits, truth, temperature),
        "uncalibrated": calibration_scores(logits, truth),
    }
