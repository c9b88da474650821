"""The report's figures, each drawn from entries of `report.json`."""

from __future__ import annotations

from typing import Any

from mri_transfer.finetune.arms.wording import CONTROLS, kind_of
from mri_transfer.finetune.comparison.verdict import MODES, RANK, oriented
from mri_transfer.finetune.report.charts.intervals import differences, scores
from mri_transfer.finetune.report.charts.label_fractions import efficiency
from mri_transfer.finetune.report.charts.mistakes import confusion, recall, reliability
from mri_transfer.finetune.report.charts.published import published
from mri_transfer.finetune.report.styles import Look
from mri_transfer.pages.figures import Picture, short


def draw(report: dict[str, Any], look: dict[str, Look]) -> dict[str, list[Picture]]:
    """Every figure that the report has data for, by section of the page."""
    results, pairs, classes = report["results"], report["pairs"], report["classes"]
    headline = report["verdict"]["mode"], report["verdict"]["fraction"]
    modes = [mode for mode in reversed(RANK) if any(e["mode"] == mode for e in results)]
    pictures: dict[str, list[Picture]] = {
        key: [] for key in ("hero", "scores", "pairs", "labels", "errors", "published")
    }
    pictures["confusion"] = []
    headline_entries = [e for e in results if (e["mode"], e["fraction"]) == headline]
    baseline = report["verdict"].get("baseline")
    arm = report["verdict"]["arm"]
    if baseline is not None:
        at = [p for p in pairs if (p["mode"], p["fraction"]) == headline]
        # A control far behind would squeeze the differences that matter; it appears further down.
        others = [
            e["arm"]
            for e in headline_entries
            if e["arm"] == arm or not (e["arm"] == baseline or kind_of(report, e["arm"]) in CONTROLS)
        ]
        turned = [oriented(at, other, baseline) for other in others]
        turned.sort(key=lambda pair: -(pair["difference"]["estimate"] or 0))
        names = [short(pair["a"]) for pair in turned]
        pictures["hero"].append(differences(turned, look, "headline", labels=names, baseline=baseline))
    for mode in modes:
        largest = max(e["fraction"] for e in results if e["mode"] == mode)
        cell = [e for e in results if (e["mode"], e["fraction"]) == (mode, largest)]
        pictures["scores"].append(scores(cell, look, f"scores-{mode}"))
        at = [p for p in pairs if (p["mode"], p["fraction"]) == (mode, largest)]
        if len(at) > 1:
            turned = [
                p if (p["difference"]["estimate"] or 0) >= 0 else oriented([p], p["b"], p["a"]) for p in at
            ]
            pictures["pairs"].append(differences(turned, look, f"differences-{mode}"))
        fractions = sorted({e["fraction"] for e in results if e["mode"] == mode})
        if len(fractions) > 1:
            pictures["labels"].append(efficiency(results, look, mode, f"labels-{mode}"))
    for mode in modes:
        lines = [p for p in pairs if p["mode"] == mode and {p["a"], p["b"]} == {arm, baseline}]
        if len(lines) > 1:
            lines = [oriented([pair], arm, baseline) for pair in sorted(lines, key=lambda p: p["fraction"])]
            shares = [
                "all labels" if p["fraction"] == 1 else f"{100 * p['fraction']:g}% of the labels"
                for p in lines
            ]
            pictures["labels"].append(
                differences(
                    lines,
                    look,
                    f"by-labels-{mode}",
                    labels=shares,
                    baseline=baseline,
                    what=MODES.get(mode, mode),
                )
            )
    pictures["errors"] += [
        recall(headline_entries, classes, look, "recall"),
        reliability(headline_entries, look, "reliability"),
    ]
    for i, entry in enumerate(headline_entries):
        pictures["confusion"].append(confusion(entry, classes, look[entry["arm"]].colour, f"confusion-{i}"))
    for mode in modes:
        entries = [e for e in report["published"] if e["mode"] == mode]
        largest = max(e["fraction"] for e in results if e["mode"] == mode)
        grouped = {e["arm"]: e["accuracy"] for e in results if (e["mode"], e["fraction"]) == (mode, largest)}
        if entries:
            pictures["published"].append(published(entries, grouped, look, f"published-{mode}"))
    return pictures
