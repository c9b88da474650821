"""One sentence that answers the question, chosen by a rule that was fixed before the figures were known.

The rule: the headline cell is fine-tuning on all labels if that was run, else fine-tuning at the largest
fraction, else the linear probe at the largest fraction, else nearest neighbours. In it, every arm that is
neither ImageNet nor a control is compared with ImageNet's weights of the same network, whole or its lower part,
whichever has the higher macro-F1; the one with the highest macro-F1 is named first, and Holm's correction over
all pairs of the report, those of other modes and fractions included, pays for the choice. Where networks
differ and an arm has no ImageNet of its own, it is compared with the best; where there is nothing but
ImageNet, the first network is what others are compared with; without ImageNet, the best arm that is no
control is compared with the best other one. A difference counts as shown when its corrected
p-value is below 0.05. All images are the headline, not the cell of one source: four classes are what was asked and what
others quote, and every folder has this cell, whatever pictures are recognised. The same two starts are also compared
within the one source, where the origin of a picture can't tell its class; where that comes out otherwise, the verdict
says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mri_transfer.checkpoints import network_of
from mri_transfer.finetune.arms.wording import (
    CONTROLS,
    IMAGENET,
    described,
    kind_of,
    network_in_words,
    subject,
)
from mri_transfer.finetune.comparison.statistics import LEAST_P

RULE = " ".join((__doc__ or "").split("The rule:")[-1].split())
# SHA-256 of rules in earlier plans that still count as this one. Before a network's lower part could be an arm, its
# ImageNet weights were read as a whole; a second reading of its weights can only raise what others must beat.
EARLIER_RULES = ("9c74c7ed78c370f6e6593ba9a8d4ef6e49e6b30ddc1bb4d34c3c6ec9042fb0f7",)
ALPHA = 0.05
HARDLY = 0.9  # of the smallest detectable difference: more seeds would gain too little for the time
MODES = {"nearest": "nearest neighbours", "probe": "linear probe", "finetune": "fine-tuning"}
RANK = list(MODES)  # from least to most informative
NEAR = 0.10  # of macro-F1: a winner with a smaller lead is reported beside the floor


def headline_cell(results: list[dict[str, Any]]) -> tuple[str, float]:
    """The verdict's (mode, fraction): see the rule at the top of this module."""
    cells = {(entry["mode"], entry["fraction"]) for entry in results}
    return max(cells, key=lambda cell: (RANK.index(cell[0]), cell[1]))


def describe_cell(mode: str, fraction: float) -> str:
    """ "fine-tuning on all labels", "linear probe on 25% of the labels"."""
    labels = "all labels" if fraction == 1 else f"{100 * fraction:g}% of the labels"
    return f"{MODES.get(mode, mode)} on {labels}"


def points(value: float, signed: bool = False) -> str:
    """A share as points (hundredths) with one decimal and a true minus sign."""
    return f"{100 * value:{'+' if signed else ''}.1f}".replace("-", "−")


def oriented(pairs: list[dict[str, Any]], a: str, b: str) -> dict[str, Any]:
    """The entry of the pair {a, b}, oriented as a - b."""
    for pair in pairs:
        if (pair["a"], pair["b"]) == (a, b):
            return pair
        if (pair["a"], pair["b"]) == (b, a):
            turned = {**pair, "a": a, "b": b}
            difference = pair["difference"]
            if difference["estimate"] is not None:
                turned["difference"] = _turned(difference)
                turned["p_a_better"] = 1 - pair["p_a_better"]
                turned["by_seed"] = [-value for value in pair.get("by_seed", ())]
                turned["by_class"] = {
                    name: _turned(interval) for name, interval in pair.get("by_class", {}).items()
                }
                if without := pair.get("without_largest_class"):
                    turned["without_largest_class"] = {
                        **without,
                        "difference": _turned(without["difference"]),
                    }
            return turned
    raise KeyError((a, b))


def _turned(interval: dict[str, Any]) -> dict[str, Any]:
    """The interval of b - a from that of a - b."""
    if interval["estimate"] is None:
        return interval
    return {"estimate": -interval["estimate"], "low": -interval["high"], "high": -interval["low"]}


def outcome(pair: dict[str, Any]) -> str:
    """ "ahead", "behind", "not settled" (lost to the correction for many comparisons) or "no difference"."""
    difference = pair["difference"]["estimate"]
    if difference is None:
        return "undefined"
    if pair["p_holm"] < ALPHA:
        return "ahead" if difference > 0 else "behind"
    return "not settled" if pair["p_value"] < ALPHA else "no difference"


def p_in_words(pair: dict[str, Any], corrected: bool = False) -> str:
    """A pair's p-value; "≤ 0.0011" at the smallest reportable value, where it may be any smaller."""
    value = pair["p_holm" if corrected else "p_value"]
    if value is None:
        return "–"
    digits = 4 if value >= 0.001 else 6
    if pair["p_value"] > LEAST_P:
        return f"{value:.{digits}f}"
    return f"≤ {math.ceil(value * 10**digits - 1e-9) / 10**digits:.{digits}f}"


def _interval(pair: dict[str, Any]) -> str:
    difference = pair["difference"]
    return f"95% interval {points(difference['low'], True)} to {points(difference['high'], True)}"


def _probability(p: float) -> str:
    if p > 0.999:
        return "above 99.9%"
    return "below 0.1%" if p < 0.001 else f"{100 * p:.1f}%"


def lead(pair: dict[str, Any]) -> str:
    """One arm's lead over the other, with interval and probability."""
    a, b, p = pair["a"], pair["b"], pair["p_a_better"]
    difference = pair["difference"]["estimate"]
    side = "ahead of" if difference >= 0 else "behind"
    return (
        f"{a} is {points(abs(difference))} points of macro-F1 {side} {b} "
        f"({_interval(pair)}; probability that {a} is better: {_probability(p)})"
    )


def _sentence(pair: dict[str, Any], report: dict[str, Any]) -> str:
    """The verdict on one of the report's pairs."""
    kind, b = outcome(pair), pair["b"]
    if kind == "undefined":
        return f"{pair['a']} and {b} can't be compared: a class is missing from the data."
    if kind == "ahead":
        return f"{subject(report, pair['a'])} is the better start: {lead(pair)}."
    if kind == "behind":
        return f"{subject(report, b)} is the better start: {lead(pair)}."
    if kind == "not settled":
        compared = report.get("compared", len(report["pairs"]))
        return (
            f"Not settled: {lead(pair)}, but over {compared} pairs that may be chance "
            f"(corrected p = {pair['p_holm']:.2f})."
        )
    if pair["difference"]["estimate"] == 0 and pair["smallest_detectable"] == 0:
        return f"No difference shown: {pair['a']} and {b} give the same predictions."
    if pair["smallest_detectable"] >= 1:
        return (
            f"No difference shown: {lead(pair)}. With so little data and so few seeds, none could be shown."
        )
    return (
        f"No difference shown: {lead(pair)}. With this data, only a difference of about "
        f"{points(pair['smallest_detectable'])} points or more would show{_more_seeds(pair)}."
    )


def _more_seeds(pair: dict[str, Any]) -> str:
    """Whether more seeds would help, as the end of a sentence; "" if unknown."""
    now, doubled = pair["smallest_detectable"], pair.get("detectable_with_twice_the_seeds")
    if doubled is None:
        return ""
    if doubled > HARDLY * now:
        return "; more groups of images would help, more seeds hardly"
    return f"; with twice as many seeds, one of about {points(doubled)}"


def baselines(report: dict[str, Any], ranked: list[str]) -> dict[str, str]:
    """The verdict's arms, best first, each with the arm it is compared with.

    Args:
        report: with "kinds" and "backbones" by arm, if known.
        ranked: at least two arms, best first.
    """
    backbones = report.get("backbones", {})
    kinds = {arm: kind_of(report, arm) for arm in ranked}
    imagenet = [arm for arm in ranked if kinds[arm] == IMAGENET]
    if not imagenet:
        first = next((arm for arm in ranked if kinds[arm] not in CONTROLS), ranked[0])
        return {first: next(arm for arm in ranked if arm != first)}
    by_network: dict[str, str] = {}  # the better of ImageNet's whole network and its lower part
    for arm in imagenet:
        by_network.setdefault(network_of(backbones.get(arm) or ""), arm)
    others = [arm for arm in ranked if kinds[arm] != IMAGENET]
    contenders = [arm for arm in others if kinds[arm] not in CONTROLS] or others
    if contenders:
        return {arm: by_network.get(network_of(backbones.get(arm) or ""), imagenet[0]) for arm in contenders}
    first = next(arm for arm in report.get("arm_names", imagenet) if arm in imagenet)
    return {arm: first for arm in imagenet if arm != first}


def verdict(report: dict[str, Any]) -> dict[str, Any]:
    """The comparison's verdict.

    Args:
        report: with "results", "pairs" and, if known, "kinds", "backbones" and "pretraining", from
            :func:`mri_transfer.finetune.comparison.results.summarise`.

    Returns:
        {"sentence", "short", "outcome", "mode", "fraction", "arm", "baseline", "pair", "reason",
        "about", "floors", "one_class", "details", "elsewhere", "rule"}.
        "outcome" says how "arm" does against "baseline": "ahead", "behind", "not settled", "no difference",
        "undefined", or "single" for a single arm. "pair" is their entry, arm minus baseline; "reason" is the sentence
        without its first words, which are "short"; "about" are sentences on the two arms' provenance, "floors" on arms
        near a floor, "one_class" on a lead due to one class or "", "details" about other arms, "elsewhere" about the
        same two arms in other modes and fractions.
    """
    mode, fraction = headline_cell(report["results"])
    entries = [e for e in report["results"] if (e["mode"], e["fraction"]) == (mode, fraction)]
    pairs = [p for p in report["pairs"] if (p["mode"], p["fraction"]) == (mode, fraction)]
    score = {entry["arm"]: entry["macro_f1"]["estimate"] or 0.0 for entry in entries}
    ranked = sorted(score, key=lambda arm: -score[arm])
    answer: dict[str, Any] = {"mode": mode, "fraction": fraction, "rule": RULE}
    if len(ranked) < 2:
        sentence = (
            f"Nothing to compare: {ranked[0]} alone, with {points(score[ranked[0]])} points of macro-F1."
        )
        return answer | {
            "sentence": sentence,
            "short": "Nothing to compare",
            "outcome": "single",
            "arm": ranked[0],
            "baseline": None,
            "pair": None,
            "reason": sentence,
            "about": [],
            "floors": _floors(report, ranked[0]),
            "one_class": "",
            "details": [],
            "elsewhere": [],
        }
    (first, baseline), *others = baselines(report, ranked).items()
    pair = oriented(pairs, first, baseline)
    kind = outcome(pair)
    winner = subject(report, first if kind == "ahead" else baseline)
    details = [_sentence(oriented(pairs, arm, other), report) for arm, other in others]
    sentence = _sentence(pair, report)
    reason = sentence.split(": ", 1)[1] if kind != "undefined" else sentence
    return answer | {
        "sentence": sentence,
        "reason": reason,
        "short": {
            "not settled": "Not settled",
            "no difference": "No difference shown",
            "undefined": "Can't be compared",
        }.get(kind, f"{winner} is the better start"),
        "outcome": kind,
        "arm": first,
        "baseline": baseline,
        "pair": pair,
        "about": [
            *(text for text in (described(report, arm) for arm in (first, baseline)) if text),
            *_last_map(report, mode, (first, baseline)),
        ],
        "floors": _floors(report, baseline if kind == "behind" else first),
        "one_class": _one_class(pair) if kind in ("ahead", "behind") else "",
        "details": details,
        "elsewhere": _elsewhere(report, first, baseline, (mode, fraction)),
    }


def _last_map(report: dict[str, Any], mode: str, arms: Sequence[str]) -> list[str]:
    """Which feature map was read, if not the last; or advice to read ImageNet's weights at an earlier one, too."""
    backbones = report.get("backbones", {})
    read = {backbones.get(arm) for arm in arms} - {None, ""}
    if mode == "finetune" or not read:
        return []
    if any("/" in backbone for backbone in read):
        starts = "Both starts were" if len(read) == 1 else "Starts were"
        return [f"{starts} read from {' and from '.join(network_in_words(name) for name in sorted(read))}."]
    networks = [backbones[arm] for arm in arms if kind_of(report, arm) == IMAGENET and backbones.get(arm)]
    if not networks or any("/" in backbone for backbone in backbones.values() if backbone):
        return []
    return [
        "Starts were probed at the last feature map, where ImageNet’s weights are most specialised. The map probed can "
        "matter more than the start: "
        f"--backbone {networks[0]} --backbone {networks[0]}/16 compares both."
    ]


def _floors(report: dict[str, Any], winner: str) -> list[str]:
    """Sentences on the highest floor, if the winner is near it, and on arms not shown to be above a floor."""
    entries = [entry for entry in report.get("floors", ()) if entry["macro_f1"]["estimate"] is not None]
    if not entries:
        return []
    sentences = []
    highest = entries[0]
    lead = highest["arms"].get(winner, {}).get("difference", {}).get("estimate")
    if lead is not None and lead < NEAR and kind_of(report, winner) != highest["floor"]:
        comparison = highest["arms"][winner]
        difference = comparison["difference"]
        basis = (
            f"{winner} is {points(abs(difference['estimate']))} points {'above' if lead >= 0 else 'below'} that"
            f" (95% interval {points(difference['low'], True)} to {points(difference['high'], True)})"
        )
        sentences.append(
            f"Without any network, {highest['words']} reach {points(highest['macro_f1']['estimate'])} points of "
            f"macro-F1 on the same folds; {basis}{'' if comparison['above'] else ', so it is not shown to be above'}."
        )
    below: dict[str, list[str]] = {}
    for entry in entries:
        for arm, comparison in entry["arms"].items():
            mentioned = arm == winner and entry is highest and bool(sentences)
            if (
                not comparison["above"]
                and not mentioned
                and kind_of(report, arm) not in ("pixels", "figures")
            ):
                below.setdefault(arm, []).append(entry["words"].split(" (")[0])
    for arm, names in below.items():
        sentences.append(f"{arm} is not shown to be above {' or '.join(names)}.")
    return sentences


def _one_class(pair: dict[str, Any]) -> str:
    """A sentence if the lead isn't significant without the class that contributes most; else ""."""
    rest = pair.get("without_largest_class")
    if not rest or rest["difference"]["low"] is None:
        return ""
    difference = rest["difference"]
    if not difference["low"] <= 0 <= difference["high"]:
        return ""
    return (
        f"The lead comes from one class, {rest['class'].replace('_', ' ')}: over the others the difference is "
        f"{points(difference['estimate'], True)} points (95% interval {points(difference['low'], True)} to "
        f"{points(difference['high'], True)})."
    )


def _elsewhere(report: dict[str, Any], arm: str, baseline: str, headline: tuple[str, float]) -> list[str]:
    """How the same two arms compare in the other modes and fractions, one sentence each."""
    sentences = []
    for entry in report["pairs"]:
        cell = (entry["mode"], entry["fraction"])
        if cell == headline or {entry["a"], entry["b"]} != {arm, baseline}:
            continue
        pair = oriented([entry], arm, baseline)
        kind = outcome(pair)
        if kind != "undefined":
            word = {"ahead": "shown", "behind": "shown"}.get(kind, "not shown")
            sentences.append(f"{describe_cell(*cell).capitalize()}: {lead(pair)}; {word} as a difference.")
    return sentences
