"""One sentence that answers the question, chosen by a rule that was fixed before the figures were known.

The rule: the headline cell is fine-tuning on all labels if that was run, else fine-tuning at the largest
fraction, else the linear probe at the largest fraction, else nearest neighbours. In it, every arm that is
neither ImageNet nor a control is compared with ImageNet's weights of the same network; the one with the
highest macro-F1 is named first, and Holm's correction over all pairs pays for the choice. Where networks
differ and an arm has no ImageNet of its own, it is compared with the best; where there is nothing but
ImageNet, the first network is what others are compared with; without ImageNet, the best arm that is no
control is compared with the best other one. A difference counts as shown when its corrected
p-value is below 0.05.
"""

from __future__ import annotations

import re
from typing import Any

ALPHA = 0.05
HARDLY = (
    0.9  # of the smallest difference that could be shown: what is gained by more seeds isn't worth the time
)
IMAGENET = "imagenet"
CONTROLS = {"random", "scaled", "pixels"}
MODES = {"nearest": "nearest neighbours", "probe": "linear probe", "finetune": "fine-tuning"}
RANK = list(MODES)  # the later, the more it tells


def headline_cell(results: list[dict[str, Any]]) -> tuple[str, float]:
    """The (mode, fraction) that the verdict is about: see the rule at the top of this module."""
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
    """The entry of the pair {a, b}, turned so that the difference is a - b."""
    for pair in pairs:
        if (pair["a"], pair["b"]) == (a, b):
            return pair
        if (pair["a"], pair["b"]) == (b, a):
            turned = {**pair, "a": a, "b": b}
            difference = pair["difference"]
            if difference["estimate"] is not None:
                turned["difference"] = {
                    "estimate": -difference["estimate"],
                    "low": -difference["high"],
                    "high": -difference["low"],
                }
                turned["p_a_better"] = 1 - pair["p_a_better"]
                turned["by_seed"] = [-value for value in pair.get("by_seed", ())]
            return turned
    raise KeyError((a, b))


def outcome(pair: dict[str, Any]) -> str:
    """ "ahead", "behind", "not settled" (lost to the correction for many comparisons) or "no difference"."""
    difference = pair["difference"]["estimate"]
    if difference is None:
        return "undefined"
    if pair["p_holm"] < ALPHA:
        return "ahead" if difference > 0 else "behind"
    return "not settled" if pair["p_value"] < ALPHA else "no difference"


def _interval(pair: dict[str, Any]) -> str:
    difference = pair["difference"]
    return f"95% interval {points(difference['low'], True)} to {points(difference['high'], True)}"


def _probability(p: float) -> str:
    if p > 0.999:
        return "above 99.9%"
    return "below 0.1%" if p < 0.001 else f"{100 * p:.1f}%"


def _lead(pair: dict[str, Any]) -> str:
    """How far one arm is ahead of or behind the other, with interval and probability."""
    a, b, p = pair["a"], pair["b"], pair["p_a_better"]
    difference = pair["difference"]["estimate"]
    side = "ahead of" if difference >= 0 else "behind"
    return (
        f"{a} is {points(abs(difference))} points of macro-F1 {side} {b} "
        f"({_interval(pair)}; probability that {a} is better: {_probability(p)})"
    )


def _sentence(pair: dict[str, Any], pairs: int, subject: str) -> str:
    """The verdict on one pair of `pairs`; `subject` is what has won if the first arm has."""
    kind, b = outcome(pair), pair["b"]
    if kind == "undefined":
        return f"{pair['a']} and {b} can't be compared: a class is missing from the data."
    if kind == "ahead":
        return f"{subject} is the better start: {_lead(pair)}."
    if kind == "behind":
        return f"{_title(b)} is the better start: {_lead(pair)}."
    if kind == "not settled":
        return (
            f"Not settled: {_lead(pair)}, but among {pairs} pairs compared that can be chance "
            f"(corrected p = {pair['p_holm']:.2f})."
        )
    if pair["difference"]["estimate"] == 0 and pair["smallest_detectable"] == 0:
        return f"No difference shown: {pair['a']} and {b} give the same predictions."
    return (
        f"No difference shown: {_lead(pair)}. This data could have shown a difference of "
        f"{points(pair['smallest_detectable'])} points{_more_seeds(pair)}."
    )


def _more_seeds(pair: dict[str, Any]) -> str:
    """Whether repeating it with other seeds would tell more, as the end of a sentence; "" if that isn't known."""
    now, doubled = pair["smallest_detectable"], pair.get("detectable_with_twice_the_seeds")
    if doubled is None:
        return ""
    if doubled > HARDLY * now:
        return "; more seeds would hardly help, more groups of images would"
    return f", twice as many seeds about {points(doubled)}"


def _title(arm: str) -> str:
    """An arm's name at the beginning of a sentence: "ImageNet", "ImageNet (mobilenet_v2)", "mri"."""
    return "ImageNet" + arm[len(IMAGENET) :] if re.match(rf"{IMAGENET}( \(|$)", arm) else arm


def kind_of(report: dict[str, Any], arm: str) -> str:
    """What an arm starts from: as the report says, or by its name."""
    return report.get("kinds", {}).get(arm) or (arm if arm in {IMAGENET, *CONTROLS} else "encoder")


def baselines(report: dict[str, Any], ranked: list[str]) -> dict[str, str]:
    """The arms that the verdict is about, best first, each with the arm that it is compared with.

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
    own = {backbones.get(arm): arm for arm in imagenet}
    others = [arm for arm in ranked if kinds[arm] != IMAGENET]
    contenders = [arm for arm in others if kinds[arm] not in CONTROLS] or others
    if contenders:
        return {arm: own.get(backbones.get(arm), imagenet[0]) for arm in contenders}
    first = next(arm for arm in report.get("arm_names", imagenet) if arm in imagenet)
    return {arm: first for arm in imagenet if arm != first}


def verdict(report: dict[str, Any]) -> dict[str, Any]:
    """What the comparison comes to.

    Args:
        report: with "results", "pairs" and, if known, "kinds" and "backbones", as
            :func:`mri_transfer.finetune.results.summarise` makes them.

    Returns:
        {"sentence", "short", "outcome", "mode", "fraction", "arm", "baseline", "pair", "reason",
        "details", "elsewhere", "rule"}.
        "outcome" says how "arm" does against "baseline": "ahead", "behind", "not settled", "no difference",
        "undefined", or "single" where there is one arm. "pair" is the entry of the two, arm minus baseline;
        "reason" is the sentence without its first words, which "short" says; "details" are sentences about
        other arms, "elsewhere" about the same two arms in other modes and fractions.
    """
    mode, fraction = headline_cell(report["results"])
    here = [e for e in report["results"] if (e["mode"], e["fraction"]) == (mode, fraction)]
    pairs = [p for p in report["pairs"] if (p["mode"], p["fraction"]) == (mode, fraction)]
    score = {entry["arm"]: entry["macro_f1"]["estimate"] or 0.0 for entry in here}
    ranked = sorted(score, key=lambda arm: -score[arm])
    rule = " ".join((__doc__ or "").split("The rule:")[-1].split())
    answer: dict[str, Any] = {"mode": mode, "fraction": fraction, "rule": rule}
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
            "details": [],
            "elsewhere": [],
        }
    (first, baseline), *others = baselines(report, ranked).items()
    subject = "MRI pretraining" if "mri" in first.lower() else _title(first)
    lead = oriented(pairs, first, baseline)
    kind = outcome(lead)
    winner = subject if kind == "ahead" else _title(baseline)
    details = [_sentence(oriented(pairs, arm, other), len(pairs), _title(arm)) for arm, other in others]
    sentence = _sentence(lead, len(pairs), subject)
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
        "pair": lead,
        "details": details,
        "elsewhere": _elsewhere(report, first, baseline, (mode, fraction)),
    }


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
            what = {"ahead": "shown", "behind": "shown"}.get(kind, "not shown")
            sentences.append(f"{describe_cell(*cell).capitalize()}: {_lead(pair)}; {what} as a difference.")
    return sentences
