"""A report's figures for papers and programs: scores and differences as CSV and LaTeX, predictions as CSV."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer.finetune.comparison.results import Predictions
from mri_transfer.finetune.comparison.verdict import MODES, headline_cell, p_in_words, points
from mri_transfer.storage.files import atomic_write
from mri_transfer.storage.tables import Table

ALL = "all images"
ONE = "one source"
SCORES = ("macro_f1", "balanced_accuracy", "accuracy", "auroc", "log_loss", "brier", "ece")
SPECIAL = re.compile(r"[\\&%$#_{}~^]")
ESCAPED = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def write_tables(
    folder: Path,
    report: Mapping[str, Any],
    predictions: Predictions,
    paths: Sequence[str],
    within: tuple[Predictions, Sequence[str]] | None = None,
) -> list[str]:
    """Write `scores.csv`, `differences.csv`, both as `.tex`, and `out_of_fold.csv`.

    Args:
        folder: created if needed.
        report: from :func:`mri_transfer.finetune.comparison.results.summarise`.
        predictions, paths: its source, and the file of each image.
        within: the same for the one-source cell.

    Returns:
        Names of the files.
    """
    folder.mkdir(exist_ok=True)
    cells = [(ALL, report), *([(ONE, report["one_source"])] if report.get("one_source") else [])]
    scores, differences = _scores(cells), _differences(cells)
    _write_csv(folder / "scores.csv", scores)
    _write_csv(folder / "differences.csv", differences)
    _write_text(folder / "scores.tex", _scores_tex(cells, report))
    _write_text(folder / "differences.tex", _differences_tex(cells, report))
    sets = [(ALL, predictions, paths), *([(ONE, *within)] if within else [])]
    _write_csv(folder / "out_of_fold.csv", _answers(sets, headline_cell(report["results"])))
    return ["scores.csv", "scores.tex", "differences.csv", "differences.tex", "out_of_fold.csv"]


def _scores(cells: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterable[dict[str, Any]]:
    """One row per arm, mode and fraction of a cell, and per floor; shares between 0 and 1."""
    for name, cell in cells:
        for entry in cell["results"]:
            row = {"cell": name, "mode": entry["mode"], "fraction": entry["fraction"], "start": entry["arm"]}
            row |= {"images": cell["images"], "groups": cell["groups"]}
            intervals = {score: entry[score] for score in SCORES}
            intervals |= {f"f1 {label}": entry["f1"].get(label) for label in cells_classes(cells)}
            yield row | _flat(intervals)
        for floor in cell["floors"]:
            row = {"cell": name, "mode": "floor", "fraction": "", "start": floor["floor"]}
            yield (
                row
                | {"images": cell["images"], "groups": cell["groups"]}
                | _flat({"macro_f1": floor["macro_f1"]})
            )


def cells_classes(cells: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Classes of all cells, each once."""
    return list(dict.fromkeys(label for _, cell in cells for label in cell["classes"]))


def _flat(intervals: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, interval in intervals.items():
        for bound in ("estimate", "low", "high"):
            name = key if bound == "estimate" else f"{key} {bound}"
            value = (interval or {}).get(bound)
            row[name] = "" if value is None else f"{value:.6f}"
    return row


def _differences(cells: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterable[dict[str, Any]]:
    """One row per pair, mode and fraction of a cell; differences of macro-F1 between -1 and 1, first minus second."""
    for name, cell in cells:
        for pair in cell["pairs"]:
            row = {
                "cell": name,
                "mode": pair["mode"],
                "fraction": pair["fraction"],
                "a": pair["a"],
                "b": pair["b"],
            }
            row |= _flat({"difference": pair["difference"]})
            for key in ("p_a_better", "p_value", "p_holm", "smallest_detectable"):
                row[key] = "" if pair.get(key) is None else f"{pair[key]:.6g}"
            yield row


def _answers(
    sets: Iterable[tuple[str, Predictions, Sequence[str]]], headline: tuple[str, float]
) -> Iterable[dict[str, Any]]:
    """One row per image, seed and arm of the headline's mode and fraction; the folder `trials` has the others."""
    classes = list(dict.fromkeys(label for _, predictions, _ in sets for label in predictions.classes))
    for name, predictions, paths in sets:
        cells = [cell for cell in predictions.cells() if cell[1] == headline[1]]
        if not cells:
            continue
        mode = headline[0] if headline in cells else cells[-1][0]
        for arm in predictions.arms_of(mode, headline[1]):
            for seed, answers in zip(
                predictions.seeds, predictions.probabilities[arm, mode, headline[1]], strict=True
            ):
                for image, shares in enumerate(answers):
                    row = {"cell": name, "mode": mode, "start": arm, "seed": seed, "file": paths[image]}
                    row |= {
                        "group": int(predictions.groups[image]),
                        "label": predictions.classes[predictions.labels[image]],
                    }
                    row["answer"] = predictions.classes[int(np.argmax(shares))]
                    columns = {
                        label: f"{share:.5f}"
                        for label, share in zip(predictions.classes, shares, strict=True)
                    }
                    yield row | {f"p {label}": columns.get(label, "") for label in classes}


def _write_csv(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Rows under the first one's columns; a later row's missing ones are empty."""
    with atomic_write(path) as file:
        table = None
        for row in rows:
            table = table or Table(file, row)
            table.write_named(row)


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text)


def tex(text: str) -> str:
    """Escape text for LaTeX.

    >>> tex("50% of no_tumor")
    '50\\\\% of no\\\\_tumor'
    """
    return SPECIAL.sub(lambda match: ESCAPED.get(match.group(), "\\" + match.group()), text)


def _tabular(columns: str, head: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    """A booktabs table."""
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        rf"\caption{{{tex(caption)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _span(interval: Mapping[str, Any]) -> str:
    if interval["estimate"] is None:
        return "--"
    if interval["low"] is None:
        return f"{100 * interval['estimate']:.1f}"
    return f"{100 * interval['estimate']:.1f} ({100 * interval['low']:.1f}--{100 * interval['high']:.1f})"


def _setting(name: str, entry: Mapping[str, Any]) -> str:
    share = f", {100 * entry['fraction']:g}% of labels" if entry["fraction"] != 1 else ""
    return tex(f"{name}: {MODES.get(entry['mode'], entry['mode'])}{share}")


def _scores_tex(cells: Sequence[tuple[str, Mapping[str, Any]]], report: Mapping[str, Any]) -> str:
    rows = []
    for name, cell in cells:
        for entry in cell["results"]:
            spans = [_span(entry[score]) for score in ("macro_f1", "balanced_accuracy", "auroc")]
            rows.append([_setting(name, entry), tex(entry["arm"]), *spans])
        for floor in cell["floors"]:
            rows.append(
                [
                    tex(f"{name}: floor"),
                    tex(floor["words"].split(" (")[0]),
                    _span(floor["macro_f1"]),
                    "--",
                    "--",
                ]
            )
    caption = (
        f"Out-of-fold scores in points with 95% intervals over groups of images and seeds "
        f"({report['images']:,} images in {report['groups']:,} groups, {len(report['seeds'])} seeds)."
    )
    head = ["Setting", "Start", "Macro-F1", "Balanced accuracy", "AUROC"]
    return _tabular("llrrr", head, rows, caption)


def _differences_tex(cells: Sequence[tuple[str, Mapping[str, Any]]], report: Mapping[str, Any]) -> str:
    rows = []
    for name, cell in cells:
        for pair in cell["pairs"]:
            difference = pair["difference"]
            if difference["estimate"] is None:
                continue
            spans = [
                points(difference[bound], True).replace("−", "$-$") for bound in ("estimate", "low", "high")
            ]
            p = p_in_words(pair, corrected=True).replace("≤", r"$\le$")
            rows.append(
                [
                    _setting(name, pair),
                    f"{tex(pair['a'])} $-$ {tex(pair['b'])}",
                    f"{spans[0]} ({spans[1]} to {spans[2]})",
                    p,
                ]
            )
    caption = (
        "Paired differences of macro-F1 in points with 95% intervals; p-values are two-sided and corrected by Holm's "
        f"method over {report.get('compared', len(report['pairs']))} pairs."
    )
    return _tabular("llrr", ["Setting", "Pair", "Difference", "$p$"], rows, caption)
