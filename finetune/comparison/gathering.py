"""Gathers finished trials: predictions for the statistics, and tables of arms and trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer.checkpoints.initialisation import SCALED
from mri_transfer.evaluation import metrics
from mri_transfer.finetune.arms.arms import Arm
from mri_transfer.finetune.arms.wording import pretraining_of
from mri_transfer.finetune.comparison.choices import choices
from mri_transfer.finetune.comparison.results import Predictions
from mri_transfer.finetune.comparison.runner import Job, Runner
from mri_transfer.finetune.data.external import External
from mri_transfer.finetune.data.one_source import OneSource
from mri_transfer.finetune.data.protocol import PUBLISHED
from mri_transfer.finetune.data.scored_images import Scored
from mri_transfer.finetune.heads.probe import log_loss
from mri_transfer.storage.files import atomic_write
from mri_transfer.storage.tables import Table

CHOSEN = ("strength", "neighbours", "rate", "epochs", "temperature")  # by a trial, on its inner splits
COLUMNS = (
    *("arm", "mode", "split", "fraction", "seed", "fold", "train_images", "train_groups"),
    *("test_images", "scored_images", "macro_f1", "balanced_accuracy", "log_loss"),
    *CHOSEN,
    *("diverged", "seconds", "file"),
)


def _arm_fields(arms: Sequence[Arm]) -> dict[str, Any]:
    """The predictions' fields that describe the arms."""
    return {
        "arms": tuple(arm.name for arm in arms),
        "kinds": {arm.name: arm.kind for arm in arms},
        "backbones": {arm.name: arm.backbone for arm in arms},
        "pretraining": {
            arm.name: pretraining_of(arm.cards) for arm in arms if arm.cards and arm.kind != SCALED
        },
    }


def gather(
    arms: Sequence[Arm],
    seeds: tuple[int, ...],
    scored: Scored,
    runner: Runner,
    jobs: Sequence[Job],
    floors: Sequence[Job] = (),
) -> Predictions:
    """Finished trials' predictions for the scored images, of floors and arms.

    The published split stays whole, to compare with figures published by others.
    """
    tumors = runner.tumors
    cross_validated = [job for job in jobs if job.split.fold != PUBLISHED]
    grouped = _tables(runner, seeds, cross_validated, _cell)
    below = _tables(runner, seeds, floors, lambda job: job.arm.name)
    published: dict[tuple[str, str], np.ndarray] = {}
    for job in jobs:
        if job.split.fold == PUBLISHED:
            probabilities = runner.trial(job).probabilities
            table = published.setdefault(
                (job.arm.name, job.mode), np.full((len(seeds), *probabilities.shape), np.nan, np.float32)
            )
            table[seeds.index(job.split.seed)] = probabilities
    trained = np.zeros(len(tumors), bool)
    trained[tumors.published_train] = True
    return Predictions(
        **_arm_fields(arms),
        floors={name: table[:, scored.images] for name, table in below.items()},
        classes=tuple(tumors.classes),
        labels=tumors.labels[scored.images],
        groups=tumors.groups[scored.images],
        sources=tuple(tumors.known.sources[image] for image in np.flatnonzero(scored.images)),
        seeds=seeds,
        probabilities={cell: table[:, scored.images] for cell, table in grouped.items()},
        published=published,
        published_labels=tumors.published_labels if published else np.zeros(0, np.int64),
        published_leaked=trained[tumors.published_test] if published else np.zeros(0, bool),
        published_near=tumors.near.beside(trained)[tumors.published_test] if published else None,
        published_groups=tumors.groups[tumors.published_test] if published else None,
    )


def _cell(job: Job) -> tuple[str, str, float]:
    return job.arm.name, job.mode, job.split.fraction


def _tables(
    runner: Runner, seeds: tuple[int, ...], jobs: Sequence[Job], key: Callable[[Job], Any]
) -> dict[Any, np.ndarray]:
    """Cross-validated trials' predictions for all distinct images, (seeds, n, classes); NaN where missing."""
    tables: dict[Any, np.ndarray] = {}
    for job in jobs:
        probabilities = runner.trial(job).probabilities
        empty = np.full((len(seeds), len(runner.tumors), probabilities.shape[1]), np.nan, np.float32)
        tables.setdefault(key(job), empty)[seeds.index(job.split.seed), job.split.test] = probabilities
    return tables


def gather_source(
    arms: Sequence[Arm],
    seeds: tuple[int, ...],
    scored: Scored,
    runner: Runner,
    cell: OneSource,
    jobs: Sequence[Job],
    floors: Sequence[Job],
) -> Predictions:
    """Predictions of one source's models for its scored images."""
    mask = scored.images & cell.images
    return Predictions(
        **_arm_fields(arms),
        floors={
            name: table[:, mask]
            for name, table in _tables(runner, seeds, floors, lambda job: job.arm.name).items()
        },
        classes=cell.classes,
        labels=cell.labels[mask],
        groups=runner.tumors.groups[mask],
        seeds=seeds,
        probabilities={key: table[:, mask] for key, table in _tables(runner, seeds, jobs, _cell).items()},
    )


def gather_external(
    arms: Sequence[Arm], external: External, runner: Runner, jobs: Sequence[Job]
) -> Predictions:
    """Predictions for external images of models of all seeds and folds, trained on all labels.

    Each model takes the place of a seed: a figure is the mean over models, as one of them would be used. With five
    folds, two folds' training sets share three quarters of their images, and two seeds' four fifths, so models of one
    seed are no more alike than those of two.
    """
    tables: dict[tuple[str, str, float], list[np.ndarray]] = {}
    for job in jobs:
        if job.goes_out:
            cell = (job.arm.name, job.mode, job.split.fraction)
            tables.setdefault(cell, []).append(runner.trial(job, external).probabilities)
    models = max(len(table) for table in tables.values())
    return Predictions(
        **_arm_fields(arms),
        classes=tuple(runner.tumors.classes),
        labels=external.labels,
        groups=external.groups,
        seeds=tuple(range(models)),
        probabilities={cell: np.stack(table) for cell, table in tables.items()},
    )


def arm_entry(arm: Arm, runner: Runner, jobs: Sequence[Job]) -> dict[str, Any]:
    """The report's entry for an arm: its origin and cost."""
    arm_jobs = [job for job in jobs if job.arm == arm]
    starts = [runner.start(job) for job in arm_jobs]
    digests = list(dict.fromkeys(start.digest for start in starts))
    facts: Mapping[str, Any] = starts[0].about if starts else {}
    trials = [runner.trial(job) for job in arm_jobs]
    return {
        "name": arm.name,
        "start": arm.start,
        "kind": arm.kind,
        "backbone": arm.backbone,
        "sha256": digests[0] if len(digests) == 1 else digests,
        "provenance": facts.get("provenance") or {key: facts[key] for key in facts if key != "path"},
        # With several encoders, the first one's.
        "encoders": {path: card.get("provenance") for path, card in arm.cards.items() if arm.repeated},
        "trial_hours": round(sum(trial.details.get("seconds", 0) for trial in trials) / 3600, 4),
        "diverged_trials": sum(bool(trial.details.get("diverged")) for trial in trials),
        "choices": choices([trial.details for trial in trials]),
    }


def write_trials(path: Path, scored: Scored, runner: Runner, jobs: Sequence[Job]) -> None:
    """One row per trial, with scores on its scored test images."""
    tumors = runner.tumors
    with atomic_write(path) as file:
        table = Table(file, COLUMNS)
        for job in jobs:
            trial, split = runner.trial(job), job.split
            published = split.fold == PUBLISHED
            mask = np.ones(len(split.test), bool) if published else scored.images[split.test]
            labels = tumors.labels if split.source is None else split.source.labels
            truth = tumors.published_labels if published else labels[split.test]
            table.write(
                [
                    job.arm.name,
                    job.mode,
                    job.kind_of_split,
                    f"{split.fraction:g}",
                    split.seed,
                    "" if published else split.fold,
                    len(split.train),
                    len(np.unique(tumors.groups[split.train])),
                    len(split.test),
                    int(mask.sum()),
                    *_scores(truth[mask], trial.probabilities[mask]),
                    *(trial.details.get(key, "") for key in CHOSEN),
                    int(bool(trial.details.get("diverged"))),
                    trial.details.get("seconds", ""),
                    runner.key(job),
                ]
            )


def _scores(truth: np.ndarray, probabilities: np.ndarray) -> list[str]:
    """One trial's macro-F1, balanced accuracy and log loss over the classes present; empty without images."""
    if not len(truth):
        return ["", "", ""]
    counts = metrics.confusion(truth, probabilities.argmax(-1), probabilities.shape[-1])
    scores = (metrics.macro_f1_of_present(counts), metrics.balanced_accuracy(counts))
    return [f"{value:.6f}" for value in (*scores, log_loss(probabilities, truth))]
