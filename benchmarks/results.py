"""The tables of RESULTS.md, from the report of a comparison: `python benchmarks/results.py REPORT`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mri_transfer.finetune.comparison.verdict import oriented, p_in_words
from mri_transfer.storage.files import read_json

MODE = "probe"
PAIRS = (("imagenet-mri", "imagenet"), ("mri", "imagenet"), ("mri", "random"), ("imagenet", "random"))


def interval(entry: dict[str, float], sign: str = "") -> str:
    """ "80.1 (77.2 to 82.5)", in points."""
    value, low, high = (
        f"{100 * entry[key]:{sign}.1f}".replace("-", "−") for key in ("estimate", "low", "high")
    )
    return f"{value} ({low} to {high})"


def table(cell: dict[str, Any], arms: list[str]) -> list[str]:
    """Scores, floors and differences of all images or of one source, as Markdown."""
    entries = {(e["arm"], e["fraction"]): e["macro_f1"] for e in cell["results"] if e["mode"] == MODE}
    fractions = sorted({fraction for _, fraction in entries})
    shares = " | ".join(f"{100 * fraction:g}%" for fraction in fractions)
    lines = [f"| macro-F1, labels used: | {shares} |", "|---" * (len(fractions) + 1) + "|"]
    for arm in arms:
        lines.append(
            f"| {arm} | " + " | ".join(interval(entries[arm, fraction]) for fraction in fractions) + " |"
        )
    for floor in cell["floors"]:
        lines.append(
            f"| floor: {floor['words']} |" + " |" * (len(fractions) - 1) + f" {interval(floor['macro_f1'])} |"
        )
    lines += [
        "",
        f"| points of macro-F1 | {shares} | corrected p, all labels |",
        "|---" * (len(fractions) + 2) + "|",
    ]
    for a, b in PAIRS:
        if not {a, b} <= set(arms):
            continue
        pairs = [
            oriented([p for p in cell["pairs"] if (p["mode"], p["fraction"]) == (MODE, fraction)], a, b)
            for fraction in fractions
        ]
        cells = " | ".join(interval(pair["difference"], "+") for pair in pairs)
        lines.append(f"| {a} less {b} | {cells} | {p_in_words(pairs[-1], corrected=True)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    report = read_json(parser.parse_args().report / "report.json")
    assert isinstance(report, dict)
    verdict, plan = report["verdict"], report["plan"] or {"words": "No plan.", "deviations": []}
    one_source = verdict["one_source"] or {}
    for line in (
        *(
            verdict["sentence"],
            one_source.get("sentence", ""),
            *verdict["about"],
            *verdict["floors"],
            *verdict["details"],
        ),
        *(plan["words"], *plan["deviations"]),
        f"{report['compared']} pairs; {report['images']} images in {report['groups']} groups; looks before in this "
        f"folder: {report['looks_before']}",
    ):
        print(line)
    print("\n".join(["", *table(report, report["arm_names"])]))
    if cell := report["one_source"]:
        print(f"\nwithin one source: {cell['images']} images of {cell['groups']} persons\n")
        print("\n".join(table(cell, report["arm_names"])))
    for entry in report["published"]:
        accuracies = [
            f"{part} ({entry[part]['images']} images) {interval(entry[part]['intervals']['accuracy'])}"
            for part in ("all", "leaked", "near", "clean")
        ]
        print(f"published split, {entry['arm']}, accuracy: {', '.join(accuracies)}")


if __name__ == "__main__":
    main()
