"""`mri-transfer compare`: every arm on the same leak-free splits, then the statistics and the report."""

from __future__ import annotations

import csv
import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer import device, progress
from mri_transfer.datasets.synthetic.note import banner_of
from mri_transfer.datasets.tumors.tumors import TumorSet, load_tumors
from mri_transfer.files import atomic_write, claim_folder, write_json
from mri_transfer.finetune import leakage
from mri_transfer.finetune.arms import Arm, resolve_arms
from mri_transfer.finetune.choices import choices
from mri_transfer.finetune.config import CompareConfig, require_tumors
from mri_transfer.finetune.probe import SETTINGS, log_loss
from mri_transfer.finetune.protocol import PUBLISHED, Split, grouped_splits
from mri_transfer.finetune.runner import Job, Runner, duration
from mri_transfer.finetune.scoring import Scored, scored_images
from mri_transfer.finetune.trials import only_one
from mri_transfer.options import as_dict

KIND = "comparison"
PROTOCOL = (
    "both splits pooled, pixel-identical copies dropped, near-duplicates and neighbouring slices joined into groups, "
    "stratified folds of whole groups, the same for every arm; figures on the out-of-fold predictions of the images "
    "that are scored"
)
COLUMNS = (
    *("arm", "mode", "split", "fraction", "seed", "fold", "train_images", "train_groups"),
    *("test_images", "scored_images", "macro_f1", "balanced_accuracy", "log_loss"),
    *("strength", "rate", "epochs", "temperature", "diverged", "seconds", "file"),
)


def compare(config: CompareConfig) -> dict[str, Any]:
    """Compare the arms; run again, it continues.

    Returns:
        The summary that is also written to OUT/summary.json.

    Raises:
        UserError: the tumour folder, an arm, a store or the output folder can't be used, or another process is at
            work in it.
    """
    require_tumors(config.tumors)
    arms = resolve_arms(config.arm, backbone=config.backbone, mixed_backbones=config.mixed_backbones)
    stores, unchecked = leakage.open_stores(config.against, arms)
    claim_folder(config.out, KIND)
    with only_one(config.out):
        tumors = load_tumors(
            config.tumors,
            config.size,
            strict=config.strict,
            cache=config.out / "cache",
            groups_from=config.groups,
        )
        scored = scored_images(tumors, config.scored)
        splits = list(
            grouped_splits(
                tumors.labels,
                tumors.groups,
                folds=config.folds,
                seeds=seeds_of(config),
                fractions=config.fractions,
                classes=tumors.classes,
            )
        )
        runner = Runner(
            config.out, tumors, config.size, config.recipe(), config.imagenet_weights, config.workers
        )
        jobs = plan(arms, config.modes(), splits, published_splits(tumors, seeds_of(config)))
        left = runner.pending(jobs)
        damaged = [*runner.features.damaged, *runner.store.damaged]
        for line in damaged:
            progress.say(f"damaged, done again: {line}")
        if config.dry_run:
            return _dry_run(runner, jobs, left)
        checked = leakage.check(tumors, stores, unchecked)
        progress.say(
            f"{len(tumors)} distinct images in {len(np.unique(tumors.groups))} groups; {len(jobs)} trials, "
            f"{len(jobs) - len(left)} done before"
        )
        progress.say(scored.about["words"])
        runner.run(left)
        return _report(config, arms, tumors, scored, runner, jobs, checked, damaged, len(jobs) - len(left))


def seeds_of(config: CompareConfig) -> tuple[int, ...]:
    """The seeds themselves: as many as `--seeds` from `--seed` on."""
    return tuple(range(config.seed, config.seed + config.seeds))


def published_splits(tumors: TumorSet, seeds: Sequence[int]) -> list[Split]:
    """The published split once a seed, leaks included; none where the folder has no splits."""
    if not len(tumors.published_train) or not len(tumors.published_test):
        return []
    if len(np.unique(tumors.labels[tumors.published_train])) < len(tumors.classes):
        return []  # every training image of a class carries another label in the copy that was kept
    return [Split(seed, PUBLISHED, 1.0, tumors.published_train, tumors.published_test) for seed in seeds]


def plan(
    arms: Sequence[Arm], modes: Sequence[str], splits: Sequence[Split], published: Sequence[Split]
) -> list[Job]:
    """Every trial: split by split, so that arms keep pace with one another; the published split last."""
    return [Job(arm, mode, split) for mode in modes for split in (*splits, *published) for arm in arms]


def _dry_run(runner: Runner, jobs: list[Job], left: list[Job]) -> dict[str, Any]:
    expected = runner.expected_seconds(left) if left else 0.0
    progress.say(
        f"{len(jobs)} trials, {len(jobs) - len(left)} done before, {len(left)} left: about {duration(expected)} on "
        "this machine. Run the same command without --dry-run; what was measured here is kept."
    )
    return {
        "dry_run": True,
        "trials": len(jobs),
        "trials_left": len(left),
        "expected_seconds": round(expected, 1),
    }


def gather(
    config: CompareConfig,
    arms: Sequence[Arm],
    tumors: TumorSet,
    scored: Scored,
    runner: Runner,
    jobs: Sequence[Job],
):
    """What the finished trials say of the scored images, as one :class:`~.results.Predictions`.

    The published split stays whole, as it stands beside figures that others have published.
    """
    from mri_transfer.finetune.results import Predictions

    seeds, count = seeds_of(config), len(tumors.classes)
    grouped: dict[tuple[str, str, float], np.ndarray] = {}
    published: dict[tuple[str, str], np.ndarray] = {}
    for job in jobs:
        trial, row = runner.trial(job), seeds.index(job.split.seed)
        if job.split.fold == PUBLISHED:
            shape = (len(seeds), len(trial.test), count)
            table = published.setdefault((job.arm.name, job.mode), np.full(shape, np.nan, np.float32))
            table[row] = trial.probabilities
        else:
            cell = (job.arm.name, job.mode, job.split.fraction)
            shape = (len(seeds), len(tumors), count)
            table = grouped.setdefault(cell, np.full(shape, np.nan, np.float32))
            table[row, trial.test] = trial.probabilities
    return Predictions(
        arms=tuple(arm.name for arm in arms),
        classes=tuple(tumors.classes),
        labels=tumors.labels[scored.images],
        groups=tumors.groups[scored.images],
        seeds=seeds,
        probabilities={cell: table[:, scored.images] for cell, table in grouped.items()},
        published=published,
        published_labels=tumors.labels[tumors.published_test] if published else np.zeros(0, np.int64),
        published_leaked=np.isin(tumors.published_test, tumors.published_train)
        if published
        else np.zeros(0, bool),
    )


def command_line(config: CompareConfig) -> str:
    """The command that repeats this comparison; options at their defaults are left out."""
    words = ["mri-transfer", "compare", str(config.tumors)]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if "help" not in field.metadata or field.metadata.get("positional") or value == field.default:
            continue
        flag = "--" + field.name.replace("_", "-")
        if value is True:
            words.append(flag)
        elif field.metadata["repeat"]:
            words += [word for part in value for word in (flag, str(part))]
        else:
            text = ",".join(f"{part:g}" for part in value) if isinstance(value, tuple) else str(value)
            words += [flag, text]
    return shlex.join(words)


def _arm_entry(arm: Arm, runner: Runner, jobs: Sequence[Job]) -> dict[str, Any]:
    """What the report says about an arm: where it comes from and what it cost."""
    mine = [job for job in jobs if job.arm == arm]
    starts = {job.split.seed: runner.prepare(arm, job.split.seed) for job in mine}
    digests = list(dict.fromkeys(start.digest for start in starts.values()))
    about = next(iter(starts.values())).about
    trials = [runner.trial(job) for job in mine]
    return {
        "name": arm.name,
        "start": arm.start,
        "backbone": arm.backbone,
        "sha256": digests[0] if len(digests) == 1 else digests,
        "provenance": about.get("provenance") or {key: about[key] for key in about if key != "path"},
        "trial_hours": round(sum(trial.details.get("seconds", 0) for trial in trials) / 3600, 4),
        "diverged_trials": sum(bool(trial.details.get("diverged")) for trial in trials),
        "choices": choices([trial.details for trial in trials]),
    }


def _write_trials(path: Path, tumors: TumorSet, scored: Scored, runner: Runner, jobs: Sequence[Job]) -> None:
    """One row a trial, with scores of those of its own test images that are scored."""
    with atomic_write(path) as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for job in jobs:
            trial, split = runner.trial(job), job.split
            published = split.fold == PUBLISHED
            mine = np.ones(len(split.test), bool) if published else scored.images[split.test]
            writer.writerow(
                [
                    job.arm.name,
                    job.mode,
                    "published" if published else "grouped",
                    f"{split.fraction:g}",
                    split.seed,
                    "" if published else split.fold,
                    len(split.train),
                    len(np.unique(tumors.groups[split.train])),
                    len(split.test),
                    int(mine.sum()),
                    *_scores(tumors.labels[split.test][mine], trial.probabilities[mine]),
                    *(trial.details.get(key, "") for key in ("strength", "rate", "epochs", "temperature")),
                    int(bool(trial.details.get("diverged"))),
                    trial.details.get("seconds", ""),
                    runner.key(job),
                ]
            )


def _scores(truth: np.ndarray, probabilities: np.ndarray) -> list[str]:
    """Macro-F1, balanced accuracy and log loss of one trial, over the classes there are; empty without images."""
    from sklearn.metrics import f1_score, recall_score

    if not len(truth):
        return ["", "", ""]
    answer, present = probabilities.argmax(-1), np.unique(truth)
    found = [
        score(truth, answer, labels=present, average="macro", zero_division=0)
        for score in (f1_score, recall_score)
    ]
    return [f"{value:.6f}" for value in (*found, log_loss(probabilities, truth))]


def _report(
    config: CompareConfig,
    arms: Sequence[Arm],
    tumors: TumorSet,
    scored: Scored,
    runner: Runner,
    jobs: list[Job],
    checked: dict[str, Any],
    damaged: list[str],
    done_before: int,
) -> dict[str, Any]:
    from mri_transfer.finetune import insight
    from mri_transfer.finetune.report import write_report
    from mri_transfer.finetune.results import summarise

    predictions = gather(config, arms, tumors, scored, runner, jobs)
    entries = [_arm_entry(arm, runner, jobs) for arm in arms]
    report = {
        **summarise(predictions, draws=config.draws, seed=config.seed),
        "scored": scored.about,
        "audit": tumors.audit,
        "settings": {
            "command": command_line(config),
            "options": {key: value for key, value in as_dict(config).items() if key != "banner"},
            "protocol": PROTOCOL,
            "data_fingerprint": tumors.fingerprint,
            "fine_tuning": dataclasses.asdict(config.recipe()) if "finetune" in config.modes() else None,
            "linear_probe": SETTINGS,
        },
        "arms": entries,
        "versions": device.versions(),
        "leaks": checked,
        "leaks_with_pretraining": leakage.described(checked),
        "paths": [tumors.paths[image] for image in np.flatnonzero(scored.images)],
    }
    if banner := config.banner or banner_of(config.tumors):
        report["banner"] = banner
    _write_trials(config.out / "trials.csv", tumors, scored, runner, jobs)
    rows = np.flatnonzero(scored.images)
    seen = insight.gather(runner, jobs, predictions, rows, report["verdict"])
    page = write_report(
        config.out, report, predictions, tumors.images[rows], config.title, banner or None, seen
    )
    write_json(config.out / "report.json", report)
    summary = {
        "report": str(page),
        "verdict": report["verdict"]["sentence"],
        "outcome": report["verdict"]["outcome"],
        "results": [
            {key: entry[key] for key in ("arm", "mode", "fraction", "macro_f1", "balanced_accuracy")}
            for entry in report["results"]
        ],
        "scored": scored.about,
        "trials": len(jobs),
        "trials_done_before": done_before,
        "damaged": damaged,
        "diverged_trials": sum(entry["diverged_trials"] for entry in entries),
        "skipped": tumors.audit.get("skipped", []),
        "images_leaked_by_pretraining": checked["leaked_images"],
    }
    write_json(config.out / "summary.json", summary)
    for entry in report["results"]:
        score = entry["macro_f1"]
        progress.say(
            f"{entry['arm']:>16}  {entry['mode']}, {entry['fraction']:.0%} of labels: macro-F1 "
            f"{score['estimate']:.3f} ({score['low']:.3f} to {score['high']:.3f})"
        )
    progress.say(report["verdict"]["sentence"])
    progress.say(f"report: {page}")
    return summary
