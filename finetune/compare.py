"""`mri-transfer compare`: every arm on the same leak-free splits, then the statistics and the report."""

from __future__ import annotations

import dataclasses
import itertools
import shlex
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer import progress
from mri_transfer.datasets.synthetic.note import banner_of
from mri_transfer.datasets.tumors.class_names import class_map
from mri_transfer.datasets.tumors.persons.recognised import sentences as source_sentences
from mri_transfer.datasets.tumors.tumors import TumorSet, load_tumors
from mri_transfer.errors import UserError
from mri_transfer.finetune.arms import leakage
from mri_transfer.finetune.arms.arms import Arm, refuse_the_same, resolve_arms
from mri_transfer.finetune.comparison import feature_trials
from mri_transfer.finetune.comparison.floors import floor_jobs
from mri_transfer.finetune.comparison.gathering import (
    arm_entry,
    gather,
    gather_external,
    gather_source,
    write_trials,
)
from mri_transfer.finetune.comparison.runner import Job, Runner, duration
from mri_transfer.finetune.comparison.trials import only_one
from mri_transfer.finetune.config import CompareConfig, require_tumors
from mri_transfer.finetune.data.external import load_externals
from mri_transfer.finetune.data.one_source import FEATURE_MODES, OneSource, one_source
from mri_transfer.finetune.data.protocol import PUBLISHED, Split, grouped_splits
from mri_transfer.finetune.data.scored_images import Scored, scored_images
from mri_transfer.machine import device
from mri_transfer.options import as_dict
from mri_transfer.processes.workers import workers_for
from mri_transfer.storage.files import claim_folder, write_json

KIND = "comparison"
OF_EXTERNAL = (
    *("name", "images", "images_by_class", "caution"),
    *("dropped_identical", "dropped_near_duplicates", "dropped_persons"),
)
"""What a summary tells of an external folder."""
PROTOCOL = (
    "both splits pooled, pixel-identical copies dropped, all images of a known person in one group, near-duplicates "
    "and neighbouring slices of the others joined into groups, stratified folds of whole groups, the same for every "
    "arm; figures on the out-of-fold predictions of the images that are scored"
)


def compare(config: CompareConfig, executor: Executor | None = None) -> dict[str, Any]:
    """Compare the arms; run again, it continues.

    Args:
        config: the settings.
        executor: of `concurrent.futures`' kind, to do trials in instead of processes of its own.

    Returns:
        The summary that is also written to OUT/summary.json.

    Raises:
        UserError: the tumour folder, an arm, a store, an external folder or the output folder can't be used, or another
            process is at work in it.
    """
    for folder in (config.tumors, *config.external):
        require_tumors(folder)
    if len(config.backbone) > 1 and config.imagenet_weights is not None:
        raise UserError(
            f"--imagenet-weights {config.imagenet_weights}: is one network's; leave it out with several --backbone"
        )
    if config.external and 1.0 not in config.fractions:
        raise UserError("--external: is tested by models that had all labels; add 1 to --fractions")
    renamed = class_map(config.class_map)
    arms = () if config.target_stores else _arms(config)
    stores, unchecked = leakage.open_stores(config.against, arms)
    claim_folder(config.out, KIND)
    with (
        only_one(config.out),
        workers_for(
            config.workers, executor=executor, cluster=config.cluster, folders=[config.out, *_files_of(arms)]
        ) as workers,
    ):
        tumors = load_tumors(
            config.tumors,
            config.size,
            strict=config.strict,
            cache=config.out / "cache",
            groups_from=config.groups,
            force_groups=config.force_groups,
            labels_from=config.labels,
        )
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
        if config.target_stores:
            return _target_stores(config, tumors)
        scored = scored_images(tumors, config.scored)
        externals = load_externals(
            config.external,
            tumors,
            config.size,
            cache=config.out / "cache",
            strict=config.strict,
            class_map=renamed,
            labels_from=config.labels,
        )
        of_splits = leakage.check_splits(tumors, arms, splits)
        runner = Runner(
            config.out,
            tumors,
            config.size,
            config.recipe(),
            config.imagenet_weights,
            workers,
            externals,
        )
        # With all labels, so it is not among what was asked for where fewer are.
        published = published_splits(tumors, seeds_of(config)) if 1.0 in config.fractions else []
        jobs = plan(arms, config.modes(), splits, published)
        floors = floor_jobs(splits, max(config.fractions))
        beside = _beside(config, arms, tumors, scored, splits)
        jobs_in_all = [*jobs, *beside.jobs]
        left, floors_left = runner.pending(jobs_in_all), runner.pending([*floors, *beside.floors])
        damaged = runner.damaged
        for line in damaged:
            progress.say(f"damaged, done again: {line}")
        if config.dry_run:
            return _dry_run(runner, jobs_in_all, left)
        checked = leakage.check(tumors, stores, unchecked) | {"splits": of_splits}
        progress.say(
            f"{len(tumors)} distinct images in {len(np.unique(tumors.groups))} groups; {len(jobs_in_all)} trials, "
            f"{len(jobs_in_all) - len(left)} done before"
        )
        progress.say(scored.about["words"])
        for line in (*source_sentences(tumors.audit), beside.words):
            progress.say(line)
        if conflicts := tumors.audit["label_conflicts"]:
            first = conflicts[0]
            progress.say(
                f"{len(conflicts)} pictures carry two labels, the first {first['first']} and {first['second']}: of "
                "copies the first label counts, near-copies keep both; the report lists them"
            )
        runner.run([*left, *floors_left])
        done_before = len(jobs_in_all) - len(left)
        return _report(config, arms, scored, runner, jobs, floors, beside, checked, damaged, done_before)


@dataclasses.dataclass(frozen=True, eq=False)
class Beside:
    """The cell of one source and its trials; none, and why, where there is no such cell."""

    cell: OneSource | None
    words: str
    jobs: list[Job] = dataclasses.field(default_factory=list)
    floors: list[Job] = dataclasses.field(default_factory=list)


def _beside(
    config: CompareConfig, arms: Sequence[Arm], tumors: TumorSet, scored: Scored, splits: Sequence[Split]
) -> Beside:
    """Trials within one source: on the largest fraction of labels, and by fine-tuning only where that was asked for."""
    if config.one_source == "none":
        return Beside(None, "No cell of one source was asked for.")
    modes = [mode for mode in config.modes() if mode in FEATURE_MODES or config.one_source == "all"]
    if not modes:
        return Beside(
            None,
            "No cell of one source: --one-source all fine-tunes there, too, and no other mode was asked for.",
        )
    cell, words = one_source(tumors, scored, splits)
    if cell is None:
        return Beside(None, words)
    if len(modes) < len(config.modes()):
        words += " Nothing is fine-tuned there without --one-source all."
    within = cell.within([split for split in splits if split.fraction == max(config.fractions)])
    return Beside(cell, words, plan(arms, modes, within, []), floor_jobs(within, max(config.fractions)))


def _files_of(arms: Sequence[Arm]) -> list[Path]:
    """The encoders that trials read."""
    return [Path(path) for arm in arms for path in arm.cards]


def _arms(config: CompareConfig) -> tuple[Arm, ...]:
    """The arms, each of which has something to do.

    Raises:
        UserError: as of :func:`~.arms.resolve_arms`; an arm can't be compared in any of the modes, or has none to be
            compared with in one of them; or two have the same weights.
    """
    arms = resolve_arms(
        config.arm,
        backbones=config.backbone,
        mixed_backbones=config.mixed_backbones,
        splits=list(itertools.product(seeds_of(config), range(config.folds))),
    )
    for mode in config.modes():
        able = [arm.name for arm in arms if arm.can(mode)]
        if len(able) == 1:
            raise UserError(
                f"--arm {able[0]}: one start alone has nothing to be compared with"
                f"{f' by --mode {mode}' if len(arms) > 1 else ''}; name another --arm, such as imagenet"
            )
    refuse_the_same(arms)
    for arm in arms:
        if not any(arm.can(mode) for mode in config.modes()):
            raise UserError(
                f"--arm {arm.name}: has no network to fine-tune; add --mode probe or nearest, or leave it out"
            )
    return arms


def seeds_of(config: CompareConfig) -> tuple[int, ...]:
    """The seeds themselves: as many as `--seeds` from `--seed` on."""
    return tuple(range(config.seed, config.seed + config.seeds))


def published_splits(tumors: TumorSet, seeds: Sequence[int]) -> list[Split]:
    """The published split once a seed, leaks included; none where the folder has no splits."""
    if not len(tumors.published_train) or not len(tumors.published_test):
        return []
    if len(np.unique(tumors.folder_labels[tumors.published_train])) < len(tumors.classes):
        return []  # every training image of a class carries another label in the copy that was kept
    return [Split(seed, PUBLISHED, 1.0, tumors.published_train, tumors.published_test) for seed in seeds]


def plan(
    arms: Sequence[Arm], modes: Sequence[str], splits: Sequence[Split], published: Sequence[Split]
) -> list[Job]:
    """Every trial: split by split, so that arms keep pace with one another; the published split last.

    An encoder that was pretrained on the training images of one fold has no place in the published split.
    """
    return [
        Job(arm, mode, split)
        for mode in modes
        for split in (*splits, *published)
        for arm in arms
        if arm.can(mode) and not (arm.per_split and split.fold == PUBLISHED)
    ]


def _target_stores(config: CompareConfig, tumors: TumorSet) -> dict[str, Any]:
    from mri_transfer.finetune.data.targets import next_commands, write_target_stores

    folder = config.target_stores
    assert folder is not None
    seeds = seeds_of(config)
    splits = grouped_splits(
        tumors.labels, tumors.groups, folds=config.folds, seeds=seeds, classes=tumors.classes
    )
    stores = write_target_stores(folder, tumors, config.size, splits)
    progress.say(f"{len(stores)} stores of training images, without labels: {folder}")
    for line in next_commands(stores, config.tumors, len(seeds) > 1):
        progress.say(line)
    return {"target_stores": [str(store) for store in stores]}


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


def _report(
    config: CompareConfig,
    arms: Sequence[Arm],
    scored: Scored,
    runner: Runner,
    jobs: list[Job],
    floors: list[Job],
    beside: Beside,
    checked: dict[str, Any],
    damaged: list[str],
    done_before: int,
) -> dict[str, Any]:
    from mri_transfer.finetune.comparison import suspects
    from mri_transfer.finetune.comparison.results import summarise
    from mri_transfer.finetune.report import insight
    from mri_transfer.finetune.report.report import write_report

    tumors = runner.tumors
    predictions = gather(arms, seeds_of(config), scored, runner, jobs, floors)
    within = (
        gather_source(arms, seeds_of(config), scored, runner, beside.cell, beside.jobs, beside.floors)
        if beside.cell is not None
        else None
    )
    entries = [arm_entry(arm, runner, jobs) for arm in arms]
    report = {
        **summarise(predictions, draws=config.draws, seed=config.seed, one_source=within),
        "about_one_source": beside.words,
        "scored": scored.about,
        "external": _external(config, arms, runner, jobs),
        "audit": tumors.audit,
        "settings": {
            "command": command_line(config),
            "options": {key: value for key, value in as_dict(config).items() if key != "banner"},
            "protocol": PROTOCOL,
            "data_fingerprint": tumors.fingerprint,
            "fine_tuning": dataclasses.asdict(config.recipe()) if "finetune" in config.modes() else None,
            "linear_probe": feature_trials.SETTINGS["probe"],
            "nearest_neighbours": feature_trials.SETTINGS["nearest"] if "nearest" in config.modes() else None,
        },
        "arms": entries,
        "versions": device.versions(),
        "leaks": checked,
        "leaks_with_pretraining": leakage.described(checked),
        "paths": [tumors.paths[image] for image in np.flatnonzero(scored.images)],
    }
    report["suspicious_labels"] = suspects.find(
        predictions, report["paths"], config.out / "suspicious_labels.csv"
    )
    if banner := config.banner or banner_of(config.tumors):
        report["banner"] = banner
    write_trials(config.out / "trials.csv", scored, runner, [*jobs, *beside.jobs])
    rows = np.flatnonzero(scored.images)
    seen = insight.gather(runner, jobs, predictions, rows, report["verdict"])
    report |= seen.summary()
    page = write_report(
        config.out, report, predictions, tumors.images[rows], config.title, banner or None, seen
    )
    write_json(config.out / "report.json", report)
    summary = {
        "report": str(page),
        "verdict": report["verdict"]["sentence"],
        "outcome": report["verdict"]["outcome"],
        "results": _scores(report),
        "one_source": _scores(report["one_source"]) if report["one_source"] else [],
        "scored": scored.about,
        "external": [
            {key: each[key] for key in OF_EXTERNAL} | {"results": _scores(each)}
            for each in report["external"]
        ],
        "trials": len(jobs) + len(beside.jobs),
        "trials_done_before": done_before,
        "damaged": damaged,
        "diverged_trials": sum(entry["diverged_trials"] for entry in entries),
        "skipped": tumors.audit.get("skipped", []),
        "label_conflicts": len(tumors.audit["label_conflicts"]),
        "sources": tumors.audit["sources"],
        "labels": tumors.audit["labels"],
        "suspicious_labels": report["suspicious_labels"]["issues"],
        "images_leaked_by_pretraining": checked["leaked_images"],
    }
    write_json(config.out / "summary.json", summary)
    for entry in report["results"]:
        score = entry["macro_f1"]
        progress.say(
            f"{entry['arm']:>16}  {entry['mode']}, {entry['fraction']:.0%} of labels: macro-F1 "
            f"{score['estimate']:.3f} ({score['low']:.3f} to {score['high']:.3f})"
        )
    for entry in report["one_source"]["results"] if report["one_source"] else ():
        score = entry["macro_f1"]
        progress.say(
            f"{entry['arm']:>16}  {entry['mode']}, within one source: macro-F1 "
            f"{score['estimate']:.3f} ({score['low']:.3f} to {score['high']:.3f})"
        )
    for each in report["external"]:
        for entry in each["results"]:
            score = entry["macro_f1"]
            progress.say(
                f"{entry['arm']:>16}  {entry['mode']}, on {each['images']} images of {each['name']}: macro-F1 "
                f"{score['estimate']:.3f} ({score['low']:.3f} to {score['high']:.3f})"
            )
        for line in each["caution"]:
            progress.say(f"{each['name']}: {line}")
    verdict = report["verdict"]
    agreeing = verdict["one_source"]["sentence"] if (verdict["one_source"] or {}).get("agrees") else ""
    for sentence in (
        *(verdict["sentence"], agreeing, verdict["one_class"]),
        *(*verdict["about"], *verdict["floors"]),
    ):
        if sentence:
            progress.say(sentence)
    progress.say(f"report: {page}")
    return summary


def _scores(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What a summary tells of a report's results."""
    told = ("arm", "mode", "fraction", "macro_f1", "balanced_accuracy")
    return [{key: entry[key] for key in told} for entry in report["results"]]


def _external(
    config: CompareConfig, arms: Sequence[Arm], runner: Runner, jobs: Sequence[Job]
) -> list[dict[str, Any]]:
    """Figures on each external folder; none where no model had all labels."""
    from mri_transfer.finetune.comparison.results import summarise

    if not any(job.goes_out for job in jobs):
        return []
    found = []
    for external in runner.externals:
        predictions = gather_external(arms, external, runner, jobs)
        scored = summarise(predictions, draws=config.draws, seed=config.seed)
        parts = {key: scored[key] for key in ("results", "pairs", "classes")}
        found.append({**external.about, "models": len(predictions.seeds), **parts})
    return found
