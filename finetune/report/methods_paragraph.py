"""A methods paragraph to paste into a paper, made from what was run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mri_transfer.finetune.arms.wording import described, kind_of, network_in_words
from mri_transfer.finetune.comparison.verdict import describe_cell
from mri_transfer.words import counted


def methods(report: Mapping[str, Any]) -> str:
    """A comparison's methods in sentences, omitting what the report doesn't know.

    Args:
        report: content of `report.json`.
    """
    settings = report.get("settings") or {}
    options = settings.get("options") or {}
    audit, verdict = report.get("audit") or {}, report["verdict"]
    parts = [*_starts(report), *_images(report, audit), *_folds(report, options)]
    modes = list(dict.fromkeys(entry["mode"] for entry in report["results"]))
    if "probe" in modes:
        parts.append(
            "Linear probes were multinomial logistic regressions on standardised, frozen features; the strength of the "
            "L2 penalty was chosen by log loss in a cross-validation over groups within each training set."
        )
    if "nearest" in modes:
        parts.append("Nearest-neighbour classifiers chose the number of neighbours in the same way.")
    if "finetune" in modes and (recipe := settings.get("fine_tuning")):
        parts.append(
            "Fine-tuning began with the probe's solution as the head and trained the upper "
            f"{100 * recipe['unfreeze']:g}% of the encoder with AdamW in batches of {recipe['batch']}; every start had "
            "the same recipe."
        )
    fractions = sorted({entry["fraction"] for entry in report["results"]})
    if fractions != [1]:
        shares = ", ".join(f"{100 * fraction:g}%" for fraction in fractions)
        parts.append(
            f"Starts were also compared on shares of the training groups ({shares}), the same for every start."
        )
    parts += _statistics(report)
    floors = [floor["words"] for floor in report.get("floors") or ()]
    if floors:
        parts.append(
            f"As floors without a network, the same folds were classified from {' and from '.join(floors)}."
        )
    if report.get("one_source"):
        cell = report["one_source"]
        parts.append(
            "Because a picture's origin partly reveals its class, models were also trained and tested within one "
            f"source ({cell['images']:,} images of {cell['groups']:,} persons, {len(cell['classes'])} classes, labels "
            "by the source)."
        )
    parts.append(
        f"The headline was fixed beforehand as all images, {describe_cell(verdict['mode'], verdict['fraction'])}."
    )
    parts.append(_plan(report))
    if versions := report.get("versions"):
        names = ("mri-transfer", "python", "tensorflow", "jax", "keras", "scikit-learn", "numpy")
        software = ", ".join(f"{name} {versions[name]}" for name in names if versions.get(name))
        parts.append(f"Software: {software}.")
    return " ".join(sentence for sentence in parts if sentence)


def _starts(report: Mapping[str, Any]) -> list[str]:
    names = report["arm_names"]
    values = {
        backbone for arm, backbone in report.get("backbones", {}).items() if kind_of(report, arm) != "network"
    }
    backbones = sorted(filter(None, values))
    network = f" of {', '.join(map(network_in_words, backbones))}" if backbones else ""
    descriptions = [text for text in (described(report, arm) for arm in names) if text]
    imagenet = [arm for arm in names if kind_of(report, arm) == "imagenet"]
    descriptions += [f"{arm}: weights trained on ImageNet." for arm in imagenet]
    return [f"We compared {len(names)} starts{network}: {', '.join(names)}.", *descriptions]


def _images(report: Mapping[str, Any], audit: Mapping[str, Any]) -> list[str]:
    if not audit.get("distinct"):
        return []
    classes = ", ".join(
        f"{number:,} {name.replace('_', ' ')}"
        for name, number in zip(report["classes"], report["class_images"], strict=True)
    )
    sentences = [
        f"Of {audit['files']:,} files {audit['distinct']:,} distinct images remained after pixel-identical copies were "
        "dropped and both published splits pooled."
    ]
    sources = audit.get("sources") or {}
    if sources.get("images_with_person"):
        sentences.append(
            f"Groups were persons for the {sources['images_with_person']:,} images whose person is known "
            f"({sources['persons']:,} persons); the others were grouped by near-duplicates, similarity and "
            "file numbers."
        )
    else:
        sentences.append("Groups were inferred from near-duplicates, similarity and file numbers.")
    sentences.append(
        f"{report['images']:,} images in {report['groups']:,} groups were scored ({classes})"
        + (
            "; development groups, set apart for choosing methods, were trained on and not scored."
            if (report.get("scored") or {}).get("which") == "headline"
            else "."
        )
    )
    return sentences


def _folds(report: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    if not options:
        return []
    seeds = len(report["seeds"])
    return [
        f"We used stratified {options['folds']}-fold cross-validation over whole groups, repeated with "
        f"{counted(seeds, 'seed')}, with the same folds for every start; images were {options['size']} pixels a side."
    ]


def _statistics(report: Mapping[str, Any]) -> list[str]:
    many = len(report["seeds"]) > 1
    variance = " and the variance between seeds, drawn from its posterior," if many else ""
    return [
        "The primary score is macro-F1 of the out-of-fold predictions, averaged over seeds. "
        f"Intervals (95%) are from a paired cluster bootstrap over groups{variance} with {report['draws']:,} draws. "
        f"Two-sided p-values of differences were corrected by Holm's method over all "
        f"{report.get('compared', len(report['pairs']))} pairs."
    ]


def _plan(report: Mapping[str, Any]) -> str:
    plan, looks = report.get("plan"), report.get("looks_before") or 0
    before = (
        f" These images had been scored {counted(looks, 'time')} before with other starts or settings."
        if looks
        else ""
    )
    if not plan:
        return f"The comparison was not planned in writing.{before}" if "plan" in report else before.strip()
    outcome = (
        "was followed"
        if plan["followed"]
        else f"was not followed in {counted(len(plan['deviations']), 'point')} "
        f"({' '.join(plan['deviations'])})"
    )
    count = (plan.get("before") or {}).get("trials", 0)
    late = f", when {count} of its trials had been done already," if count else ""
    return f"A plan written at {plan['written']}{late} (SHA-256 {plan['sha256']}) {outcome}.{before}"
