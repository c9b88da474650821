"""The verdict on the one-source cell, by a rule fixed before the figures were known.

All images stay the headline: four classes are the question and what others quote, and every folder has this cell,
whether or not its pictures are recognised, so the rule depends on no figure. But a lead there may be skill at
recognising a picture's origin. So the same two starts are compared within one source, in the headline's mode if done
there, else in the best mode that was; if the outcomes differ, the verdict's sentence and title say so.
"""

from __future__ import annotations

from typing import Any

from mri_transfer.finetune.arms.wording import subject
from mri_transfer.finetune.comparison.verdict import RANK, describe_cell, lead, oriented, outcome, points

SHOWN = ("ahead", "behind")


def with_one_source(report: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """The verdict on all images, with that of the one source.

    Args:
        report: with "one_source", from :func:`mri_transfer.finetune.comparison.results.summarise`.
        answer: from :func:`mri_transfer.finetune.comparison.verdict.verdict`.

    Returns:
        The verdict with "one_source" added: None, or {"sentence", "agrees", "outcome", "mode", "fraction", "pair"}.
        If outcomes differ, "sentence" and "short" are longer.
    """
    cell = report.get("one_source")
    first, baseline = answer["arm"], answer["baseline"]
    pairs = [pair for pair in (cell or {}).get("pairs", ()) if {pair["a"], pair["b"]} == {first, baseline}]
    if cell is None or not pairs:
        return {**answer, "one_source": None}
    best = max(
        pairs, key=lambda pair: (pair["mode"] == answer["mode"], RANK.index(pair["mode"]), pair["fraction"])
    )
    pair = oriented([best], first, baseline)
    kind = outcome(pair)
    agrees = kind == answer["outcome"] or not {kind, answer["outcome"]} & set(SHOWN)
    context = (
        f"Within one source ({cell['images']:,} images of {cell['groups']:,} persons, {len(cell['classes'])} classes; "
        f"{describe_cell(pair['mode'], pair['fraction'])})"
    )
    if kind == "undefined":
        sentence = f"{context} the two can't be compared: a class is missing."
    elif kind in SHOWN:
        agreement = "the same is shown" if agrees else "a difference is shown"
        sentence = f"{context} {agreement}: {lead(pair)}."
    else:
        text = "no difference is shown" if kind == "no difference" else "nothing is settled"
        sentence = (
            f"{context} {text}: {lead(pair)}; only a difference of about "
            f"{points(min(1.0, pair['smallest_detectable']))} points or more would show."
        )
    floors = [floor for floor in cell.get("floors", ()) if floor["macro_f1"]["estimate"] is not None]
    if floors:
        highest = floors[0]
        sentence += (
            f" Without any network, {highest['words'].split(' (')[0]} reach {points(highest['macro_f1']['estimate'])} "
            "points there."
        )
    addition = {
        "sentence": sentence,
        "agrees": agrees,
        "outcome": kind,
        **{key: pair[key] for key in ("mode", "fraction")},
        "pair": pair,
    }
    if agrees:
        return {**answer, "one_source": addition}
    if kind in SHOWN:
        winner = subject(report, first if kind == "ahead" else baseline)
        short = f"{answer['short']} on all images; within one source {winner} is"
        if answer["outcome"] not in SHOWN:
            short += " the better start"
    else:
        short = f"{answer['short']} on all images, but that is not shown within one source"
    return {**answer, "short": short, "sentence": f"{answer['sentence']} {sentence}", "one_source": addition}
