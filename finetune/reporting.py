"""From finished trials to the report's folder, the summary and the final messages."""

from __future__ import annotations

import dataclasses
import shlex
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from mri_transfer import progress
from mri_transfer.datasets.synthetic.note import banner_of
from mri_transfer.finetune.arms import leakage
from mri_transfer.finetune.arms.arms import Arm
from mri_transfer.finetune.comparison.gathering import (
    arm_entry,
    gather,
    gather_external,
    gather_source,
    write_trials,
)
from mri_transfer.finetune.comparison.runner import Job, Runner
from mri_transfer.finetune.config import CompareConfig
from mri_transfer.finetune.data.scored_images import Scored
from mri_transfer.finetune.planning.before import settings_of
from mri_transfer.finetune.planning.jobs import Beside, seeds_of
from mri_transfer.machine import device
from mri_transfer.options import as_dict
from mri_transfer.storage.files import atomic_write, write_json

OF_EXTERNAL = (
    *("name", "images", "images_by_class", "caution"),
    *("dropped_identical", "dropped_near_duplicates", "dropped_persons"),
)
"""A summary's entries for an external folder."""
PROTOCOL = (
    "both splits pooled, pixel-identical copies dropped, all images of a known person in one group, near-duplicates "
    "and neighbouring slices of the others joined into groups, stratified folds of whole groups, the same for every "
    "arm; figures on the out-of-fold predictions of the images that are scored"
)


def command_line(config: CompareConfig) -> str:
    """The command that repeats this comparison, without options at their defaults."""
    words = ["mri-transfer", "compare", str(config.tumors)]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if "help" not in field.metadata or field.metadata.get("positional") or value == field.default:
            continue
        flag = "--" + field.name.replace("_", "-")
        if value is True:
            words.append(flag)
        elif field.metadata["repeat"]:
            words += [word for item in value for word in (flag, str(item))]
        else:
            text = ",".join(f"{item:g}" for item in value) if isinstance(value, tuple) else str(value)
            words += [flag, text]
    return shlex.join(words)


def report_comparison(
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
    about: dict[str, Any],
) -> dict[str, Any]:
    from mri_transfer.finetune.comparison import suspects
    from mri_transfer.finetune.comparison.results import summarise
    from mri_transfer.finetune.report import insight
    from mri_transfer.finetune.report.methods_paragraph import methods
    from mri_transfer.finetune.report.report import write_report
    from mri_transfer.finetune.report.tables import write_tables

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
        **about,
        "scored": scored.about,
        "external": _external(config, arms, runner, jobs),
        "audit": tumors.audit,
        "settings": {
            "command": command_line(config),
            "options": {key: value for key, value in as_dict(config).items() if key != "banner"},
            "protocol": PROTOCOL,
            "data_fingerprint": tumors.fingerprint,
            **settings_of(config),
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
    insights = insight.gather(runner, jobs, predictions, rows, report["verdict"])
    report |= insights.summary()
    report["methods"] = methods(report)
    with atomic_write(config.out / "methods.txt") as file:
        file.write(textwrap.fill(report["methods"], 120) + "\n")
    inside = None
    if within is not None and beside.cell is not None:
        scored_rows = np.flatnonzero(scored.images & beside.cell.images)
        inside = within, [tumors.paths[image] for image in scored_rows]
    write_tables(config.out / "tables", report, predictions, report["paths"], inside)
    page = write_report(
        config.out, report, predictions, tumors.images[rows], config.title, banner or None, insights
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
            {key: external[key] for key in OF_EXTERNAL} | {"results": _scores(external)}
            for external in report["external"]
        ],
        **about,
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
    for external in report["external"]:
        for entry in external["results"]:
            score = entry["macro_f1"]
            progress.say(
                f"{entry['arm']:>16}  {entry['mode']}, on {external['images']} images of {external['name']}: macro-F1 "
                f"{score['estimate']:.3f} ({score['low']:.3f} to {score['high']:.3f})"
            )
        for line in external["caution"]:
            progress.say(f"{external['name']}: {line}")
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
    """A summary's entries for a report's results."""
    keys = ("arm", "mode", "fraction", "macro_f1", "balanced_accuracy")
    return [{key: entry[key] for key in keys} for entry in report["results"]]


def _external(
    config: CompareConfig, arms: Sequence[Arm], runner: Runner, jobs: Sequence[Job]
) -> list[dict[str, Any]]:
    """Figures on each external folder; none if no model had all labels."""
    from mri_transfer.finetune.comparison.results import summarise

    if not any(job.goes_out for job in jobs):
        return []
    entries = []
    for external in runner.externals:
        predictions = gather_external(arms, external, runner, jobs)
        scored = summarise(predictions, draws=config.draws, seed=config.seed)
        parts = {key: scored[key] for key in ("results", "pairs", "classes")}
        entries.append({**external.about, "models": len(predictions.seeds), **parts})
    return entries
