"""The jobs to run: trials of all images, of the published split, and of the one-source cell."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from mri_transfer.datasets.tumors.tumors import TumorSet
from mri_transfer.finetune.arms.arms import Arm
from mri_transfer.finetune.comparison.floors import floor_jobs
from mri_transfer.finetune.comparison.runner import Job
from mri_transfer.finetune.config import CompareConfig
from mri_transfer.finetune.data.one_source import FEATURE_MODES, OneSource, one_source
from mri_transfer.finetune.data.protocol import PUBLISHED, Split
from mri_transfer.finetune.data.scored_images import Scored


def seeds_of(config: CompareConfig) -> tuple[int, ...]:
    """The seeds: `--seeds` of them from `--seed` on."""
    return tuple(range(config.seed, config.seed + config.seeds))


def published_splits(tumors: TumorSet, seeds: Sequence[int]) -> list[Split]:
    """The published split once per seed, leaks included; none if the folder has no splits."""
    if not len(tumors.published_train) or not len(tumors.published_test):
        return []
    if len(np.unique(tumors.folder_labels[tumors.published_train])) < len(tumors.classes):
        return []  # every training image of a class has another label in the copy that was kept
    return [Split(seed, PUBLISHED, 1.0, tumors.published_train, tumors.published_test) for seed in seeds]


def jobs_of(
    arms: Sequence[Arm], modes: Sequence[str], splits: Sequence[Split], published: Sequence[Split]
) -> list[Job]:
    """Every trial, split by split, so that arms keep pace; the published split last.

    An encoder pretrained on one fold's training images has no place in the published split.
    """
    return [
        Job(arm, mode, split)
        for mode in modes
        for split in (*splits, *published)
        for arm in arms
        if arm.can(mode) and not (arm.per_split and split.fold == PUBLISHED)
    ]


@dataclasses.dataclass(frozen=True, eq=False)
class Beside:
    """The one-source cell and its trials; or none, and why."""

    cell: OneSource | None
    words: str
    jobs: list[Job] = dataclasses.field(default_factory=list)
    floors: list[Job] = dataclasses.field(default_factory=list)


def beside_of(
    config: CompareConfig, arms: Sequence[Arm], tumors: TumorSet, scored: Scored, splits: Sequence[Split]
) -> Beside:
    """Trials within one source: on the largest label fraction, and by fine-tuning only on request."""
    if config.one_source == "none":
        return Beside(None, "A comparison within one source was not asked for.")
    modes = [mode for mode in config.modes() if mode in FEATURE_MODES or config.one_source == "all"]
    if not modes:
        return Beside(
            None,
            "Not compared within one source: only fine-tuning was asked for, which needs --one-source all there.",
        )
    cell, words = one_source(tumors, scored, splits)
    if cell is None:
        return Beside(None, words)
    if len(modes) < len(config.modes()):
        words += " Nothing is fine-tuned there without --one-source all."
    within = cell.within([split for split in splits if split.fraction == max(config.fractions)])
    return Beside(cell, words, jobs_of(arms, modes, within, []), floor_jobs(within, max(config.fractions)))
