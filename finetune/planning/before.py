"""Settled before looking at a comparison's figures: the plan, and the number of looks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mri_transfer import progress
from mri_transfer.errors import UserError
from mri_transfer.finetune.arms.arms import Arm
from mri_transfer.finetune.comparison import feature_trials
from mri_transfer.finetune.comparison.runner import Job, Runner
from mri_transfer.finetune.comparison.verdict import RULE, headline_cell
from mri_transfer.finetune.config import CompareConfig
from mri_transfer.finetune.data.scored_images import Scored
from mri_transfer.finetune.planning.jobs import Beside, seeds_of
from mri_transfer.finetune.planning.looks import Looks
from mri_transfer.finetune.planning.plan import adherence


def before_the_look(
    config: CompareConfig,
    arms: Sequence[Arm],
    scored: Scored,
    runner: Runner,
    beside: Beside,
    jobs: Sequence[Job],
    left: Sequence[Job],
) -> tuple[dict[str, Any] | None, Looks]:
    """Write the plan, or check it against the planned run, and count how often these images were scored before.

    Raises:
        UserError: the plan can't be read or written, or was changed; or there is a hypothesis but no plan.
    """
    images = [runner.tumors.paths[image] for image in np.flatnonzero(scored.images)]
    looks = Looks(config.out, images, [runner.key(job) for job in jobs])
    if config.plan is None:
        if config.hypothesis:
            raise UserError("--hypothesis: belongs in a plan; add --plan FILE")
        return None, looks
    cells = [(job.mode, job.split.fraction) for job in jobs if job.kind_of_split == "grouped"]
    mode, fraction = headline_cell([{"mode": mode, "fraction": fraction} for mode, fraction in cells])
    planned = {
        "arms": {
            arm.name: {
                **{"start": arm.kind, "backbone": arm.backbone},
                "weights": sorted({runner.start(job).digest for job in jobs if job.arm == arm}),
            }
            for arm in arms
        },
        "modes": config.modes(),
        "cells": ["all images", *([beside.cell.source] if beside.cell else [])],
        "fractions": config.fractions,
        "folds": config.folds,
        "seeds": seeds_of(config),
        "scored": {key: scored.about[key] for key in ("which", "images", "groups")},
        "data": runner.tumors.fingerprint,
        "size": config.size,
        "draws": config.draws,
        "headline": {"cell": "all images", "mode": mode, "fraction": fraction},
        "rule": RULE,
        **({"external": sorted(folder.name for folder in config.external)} if config.external else {}),
        "settings": settings_of(config),
    }
    before = {"trials": len(jobs) - len(left), "looks": looks.before}
    against_plan = adherence(config.plan, planned, config.hypothesis, before)
    new = config.dry_run and against_plan["written_now"]
    progress.say(
        f"{config.plan}: {'written; SHA-256 ' + against_plan['sha256'] if new else against_plan['words']}"
    )
    for line in against_plan["deviations"]:
        progress.say(f"not as planned: {line}")
    return against_plan, looks


def settings_of(config: CompareConfig) -> dict[str, Any]:
    """Settings of the classifiers to fit."""
    modes = config.modes()
    return {
        "fine_tuning": dataclasses.asdict(config.recipe()) if "finetune" in modes else None,
        "linear_probe": feature_trials.SETTINGS["probe"],
        "nearest_neighbours": feature_trials.SETTINGS["nearest"] if "nearest" in modes else None,
    }
