"""`mri-transfer compare`: every arm on the same leak-free splits, then the statistics and the report."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer import progress
from mri_transfer.checkpoints.initialisation import folder_of
from mri_transfer.datasets.tumors.class_names import class_map
from mri_transfer.datasets.tumors.images import unreadable
from mri_transfer.datasets.tumors.persons.recognised import sentences as source_sentences
from mri_transfer.datasets.tumors.tumors import TumorSet, load_tumors
from mri_transfer.errors import UserError
from mri_transfer.finetune.arms import leakage
from mri_transfer.finetune.arms.arms import Arm, refuse_the_same, resolve_arms
from mri_transfer.finetune.comparison.floors import floor_jobs
from mri_transfer.finetune.comparison.runner import Job, Runner
from mri_transfer.finetune.config import CompareConfig, require_tumors
from mri_transfer.finetune.data.external import load_externals
from mri_transfer.finetune.data.protocol import grouped_splits
from mri_transfer.finetune.data.scored_images import scored_images
from mri_transfer.finetune.planning.before import before_the_look
from mri_transfer.finetune.planning.jobs import beside_of, jobs_of, published_splits, seeds_of
from mri_transfer.finetune.reporting import report_comparison
from mri_transfer.processes.workers import workers_for
from mri_transfer.storage.files import check_outside, claim_folder
from mri_transfer.storage.locks import alone_in
from mri_transfer.storage.sums import signed
from mri_transfer.words import duration

KIND = "comparison"


def compare(config: CompareConfig, executor: Executor | None = None) -> dict[str, Any]:
    """Compare the arms; running it again continues.

    Args:
        config: the settings.
        executor: a `concurrent.futures` executor for trials, instead of its own processes.

    Returns:
        The summary, also written to OUT/summary.json.

    Raises:
        UserError: the tumour folder, an arm, a store, an external folder or the output folder can't be used, or another
            process is working in it.
    """
    for folder in (config.tumors, *config.external):
        require_tumors(folder)
    if len(config.backbone) > 1 and config.imagenet_weights is not None:
        raise UserError(
            f"--imagenet-weights {config.imagenet_weights}: fits one network; leave it out with several --backbone"
        )
    if config.external and 1.0 not in config.fractions:
        raise UserError("--external: needs models trained on all labels; add 1 to --fractions")
    renamed = class_map(config.class_map)
    arms = () if config.target_stores else _arms(config)
    stores, unchecked = leakage.open_stores(config.against, arms)
    for folder in (config.tumors, *config.external):
        check_outside(config.out, folder)
    claim_folder(config.out, KIND)
    with (
        alone_in(config.out),
        signed(config.out, KIND),
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
        runner.check_tables(arms)
        # With all labels, so it wasn't requested if fewer were.
        published = published_splits(tumors, seeds_of(config)) if 1.0 in config.fractions else []
        jobs = jobs_of(arms, config.modes(), splits, published)
        floors = floor_jobs(splits, max(config.fractions))
        beside = beside_of(config, arms, tumors, scored, splits)
        jobs_in_all = [*jobs, *beside.jobs]
        left, floors_left = runner.pending(jobs_in_all), runner.pending([*floors, *beside.floors])
        damaged = runner.damaged
        for line in damaged:
            progress.say(f"damaged, done again: {line}")
        planned, looks = before_the_look(config, arms, scored, runner, beside, jobs_in_all, left)
        if config.dry_run:
            return _dry_run(runner, jobs_in_all, left)
        checked = leakage.check(tumors, stores, unchecked) | {"splits": of_splits}
        progress.say(
            f"{len(tumors)} distinct images in {len(np.unique(tumors.groups))} groups; {len(jobs_in_all)} trials, "
            f"{len(jobs_in_all) - len(left)} done before"
        )
        progress.say(scored.about["words"])
        for line in (*unreadable(tumors.audit["skipped"]), *source_sentences(tumors.audit), beside.words):
            progress.say(line)
        if conflicts := tumors.audit["label_conflicts"]:
            first = conflicts[0]
            progress.say(
                f"{len(conflicts)} pictures carry two labels, the first {first['first']} and {first['second']}: of "
                "copies the first label counts, near-copies keep both; the report lists them"
            )
        runner.run([*left, *floors_left])
        done_before = len(jobs_in_all) - len(left)
        looks.add({"which": scored.which, "plan": planned and planned["sha256"]}, [arm.name for arm in arms])
        facts = {"plan": planned, "looks_before": looks.before}
        return report_comparison(
            config, arms, scored, runner, jobs, floors, beside, checked, damaged, done_before, facts
        )


def _files_of(arms: Sequence[Arm]) -> list[Path]:
    """The encoders used by trials."""
    return [folder for arm in arms for path in arm.cards if (folder := folder_of(path))]


def _arms(config: CompareConfig) -> tuple[Arm, ...]:
    """The arms, checked to have work.

    Raises:
        UserError: as in :func:`~.arms.resolve_arms`; an arm can't be compared in any mode, or lacks a counterpart in
            one; or two have the same weights.
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
