"""Predictions as readable columns and as CSV."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from mri_transfer.storage.tables import Table

PLACE = ("plane", "position_mm")
UNLIKE = "unlike the training images"


def write_csv(file: Any, rows: Sequence[dict[str, Any]], classes: Sequence[str]) -> None:
    """One row per image or slice: file, class, one probability per class, whether out of distribution, place.

    Args:
        file: open for writing text.
        rows: "images" of :func:`mri_transfer.finetune.prediction.predict.predict`.
    """
    table = Table(file, ["file", "class", *classes, "out_of_distribution", "distance", "why", *PLACE])
    for row in rows:
        distance, strange = row.get("distance"), row.get("out_of_distribution")
        table.write(
            [
                row["file"],
                row["class"],
                *(f"{row['probabilities'][name]:.6f}" for name in classes),
                "" if strange is None else int(strange),
                "" if distance is None else f"{distance:.4g}",
                "; ".join(row.get("why", ())),
                *(row.get(name, "") for name in PLACE),
            ]
        )


def table(
    rows: Sequence[dict[str, Any]], classes: Sequence[str], volumes: Sequence[dict[str, Any]] = ()
) -> str:
    """The rows as readable columns, as wide as the longest name; then volumes' answers."""
    names = [_name(row) for row in rows]
    width = max(len("image"), *map(len, names), *(len(volume["file"]) for volume in volumes))
    heads = [
        (name if name == "no_tumor" else name.removesuffix("_tumor")).replace("_", " ") for name in classes
    ]
    out = io.StringIO()
    print("image".ljust(width), *(head.rjust(max(10, len(head))) for head in heads), file=out)
    for name, row in zip(names, rows, strict=True):
        strange = row.get("out_of_distribution")
        mark = "?" if strange else "*"
        cells = [
            _cell(f"{row['probabilities'][label]:.3f}{mark if label == row['class'] else ' '}", head)
            for label, head in zip(classes, heads, strict=True)
        ]
        why = f"  {UNLIKE}: {'; '.join(row.get('why', ()))}" if strange else ""
        print(name.ljust(width), *cells, why, file=out)
    for volume in volumes:
        means = volume["probabilities"].values()
        cells = [
            _cell("– " if mean is None else f"{mean:.3f} ", head)
            for mean, head in zip(means, heads, strict=True)
        ]
        print(volume["file"].ljust(width), *cells, f"  {volume['words']}", file=out)
    print("* the most probable class. A research figure, not a diagnosis.", file=out)
    if any(row.get("out_of_distribution") for row in rows):
        print(
            "? unlike the training images, so its answer means nothing. That says nothing about the disease: one that "
            "was never trained on is rarely marked.",
            file=out,
        )
    return out.getvalue().rstrip("\n")


def _name(row: dict[str, Any]) -> str:
    return f"{row['file']} [{row['plane']} {row['position_mm']:+.1f} mm]" if "plane" in row else row["file"]


def _cell(text: str, head: str) -> str:
    return text.rjust(max(10, len(head)))
