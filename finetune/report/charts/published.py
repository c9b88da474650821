"""Results on the published split, with copies and near-copies of training images apart from the clean rest."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.transforms import blended_transform_factory

from mri_transfer.finetune.comparison.verdict import MODES
from mri_transfer.finetune.report.charts.intervals import ROW, Entry, rows
from mri_transfer.finetune.report.styles import Look
from mri_transfer.pages.figures import INK, PAPER, RULE, Picture, canvas, picture, short, style


def published(
    entries: Sequence[Entry], grouped: dict[str, Entry], look: dict[str, Look], name: str
) -> Picture:
    """Accuracy on published test images: copies, near-copies, the clean rest, and all, beside grouped folds.

    Args:
        grouped: each arm's out-of-fold "accuracy", for comparison.
    """
    height = ROW * len(entries) + 1.15
    kinds = [
        ("leaked", "x", "copies of training images"),
        ("all", "o", "all, as usually quoted"),
        ("near", "+", "near-copies"),
        ("clean", "o", "neither"),
    ]
    with style():
        figure, axes = canvas(height)
        across = blended_transform_factory(axes.transAxes, axes.transData)
        for y, entry in enumerate(entries):
            colour = look[entry["arm"]].colour
            axes.text(0, y - 0.36, short(entry["arm"]), transform=across, va="center")
            scores = [
                100 * entry[kind]["accuracy"] for kind, _, _ in kinds if entry[kind]["accuracy"] is not None
            ]
            axes.plot([min(scores), max(scores)], [y, y], color=RULE, linewidth=3, zorder=1)
            for kind, marker, _ in kinds:
                value = entry[kind]["accuracy"]
                if value is not None:
                    axes.plot(
                        100 * value,
                        y,
                        marker,
                        color=colour,
                        markersize=8,
                        markeredgewidth=2 if marker in "x+" else 1.6,
                        markerfacecolor=PAPER if kind == "clean" else colour,
                        clip_on=False,
                    )
            if grouped.get(entry["arm"], {}).get("estimate") is not None:
                axes.plot(
                    100 * grouped[entry["arm"]]["estimate"],
                    y,
                    "|",
                    color=INK,
                    markersize=16,
                    markeredgewidth=2,
                )
        rows(axes, len(entries), height, below=0.95)
        axes.set_xlabel("accuracy, %")
        handles = [
            axes.plot(
                [],
                [],
                m,
                color=INK,
                markerfacecolor=PAPER if kind == "clean" else INK,
                markersize=7,
                label=text,
            )[0]
            for kind, m, text in kinds
        ]
        handles.append(
            axes.plot([], [], "|", color=INK, markersize=12, markeredgewidth=2, label="this report's folds")[
                0
            ]
        )
        figure.legend(
            handles=handles, loc="lower center", ncols=2, frameon=False, handletextpad=0.3, columnspacing=1.0
        )
        alt = "Accuracy in per cent on the published split. " + " ".join(
            f"{entry['arm']}: "
            + ", ".join(
                f"{label} {100 * entry[kind]['accuracy']:.1f} ({entry[kind]['images']} images)"
                for kind, _, label in kinds
                if entry[kind]["accuracy"] is not None
            )
            + "."
            for entry in entries
        )
        title = MODES[entries[0]["mode"]].capitalize()
        return picture(name, figure, alt, f"{title}, trained and tested on the split as published.")
