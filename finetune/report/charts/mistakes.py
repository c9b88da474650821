"""The starts' mistakes: confusion matrices, recall by class, reliability diagrams."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.transforms import blended_transform_factory

from mri_transfer.finetune.report.charts.intervals import Entry, interval_text
from mri_transfer.finetune.report.styles import Look
from mri_transfer.pages.figures import (
    MUTED,
    PAPER,
    RULE,
    Picture,
    canvas,
    class_label,
    ink_on,
    picture,
    short,
    style,
)

DARKEST = 1.15  # share of a row that would have an arm's full colour


def confusion(entry: Entry, classes: Sequence[str], colour: str, name: str) -> Picture:
    """Confusion of true classes (rows) and predictions (columns), in per cent of the row."""
    counts = np.asarray(entry["confusion"])
    totals = counts.sum(1, keepdims=True)
    share = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    labels = [short(class_label(label), 13) for label in classes]
    with style():
        figure, axes = canvas(2.45, 2.75)
        shades = LinearSegmentedColormap.from_list("shades", [PAPER, colour])
        axes.pcolormesh(share[::-1], cmap=shades, vmin=0, vmax=DARKEST, edgecolors=RULE, linewidth=0.8)
        size = 10 if len(classes) < 6 else 7
        for row, column in np.ndindex(*counts.shape):
            ink = ink_on(shades(share[row, column] / DARKEST))
            axes.text(
                column + 0.5,
                len(counts) - row - 0.5,
                f"{100 * share[row, column]:.0f}%",
                ha="center",
                va="center",
                color=ink,
                fontsize=size,
                fontweight="bold" if row == column else "normal",
            )
        middles = np.arange(len(classes)) + 0.5
        axes.set_xticks(middles, labels, rotation=30, ha="right", rotation_mode="anchor")
        axes.set_yticks(middles, labels[::-1])
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_aspect("equal")
        figure.subplots_adjust(left=0.33, right=0.99, bottom=0.29, top=0.99)
        alt = f"Confusion matrix of {entry['arm']}, rows true class: " + "; ".join(
            f"{class_label(label)}: "
            + ", ".join(f"{100 * p:.0f}% {class_label(other)}" for p, other in zip(row, classes, strict=True))
            for label, row in zip(classes, share, strict=True)
        )
        return picture(name, figure, alt, entry["arm"])


def _key(axes: Axes, entries: Sequence[Entry], look: dict[str, Look], height: float, bottom: float) -> None:
    """Legend of arms below the axes, which keep `bottom` inches for ticks and label."""
    handles = []
    for entry in entries:
        arm = look[entry["arm"]]
        handles += axes.plot([], [], arm.marker, color=arm.colour, markersize=6.5, label=short(entry["arm"]))
    axes.figure.legend(
        handles=handles, loc="lower center", ncols=2, frameon=False, handletextpad=0.2, columnspacing=1.5
    )
    lines = (len(entries) + 1) // 2
    axes.figure.subplots_adjust(bottom=(bottom + 0.1 + 0.19 * lines) / height)


def recall(entries: Sequence[Entry], classes: Sequence[str], look: dict[str, Look], name: str) -> Picture:
    """Recall of each class, by arm, with 95% intervals."""
    step = 0.19
    height = len(classes) * (0.38 + step * len(entries)) + 0.65 + 0.1 * (len(entries) + 1)
    with style():
        figure, axes = canvas(height)
        y = 0.0
        across = blended_transform_factory(axes.transAxes, axes.transData)
        for label in classes:
            axes.text(0, y, short(class_label(label), 30), transform=across, va="center", fontweight="bold")
            y += 0.21
            for entry in entries:
                value = entry["recall"][label]
                if value["estimate"] is not None:
                    colour = look[entry["arm"]].colour
                    low, high = 100 * value["low"], 100 * value["high"]
                    axes.plot(
                        [low, high], [y, y], color=colour, linewidth=2.4, alpha=0.45, solid_capstyle="round"
                    )
                    axes.plot(
                        100 * value["estimate"],
                        y,
                        look[entry["arm"]].marker,
                        color=colour,
                        markersize=6.5,
                        markeredgecolor=PAPER,
                    )
                y += step
            y += 0.17
        axes.set_ylim(y - 0.1, -0.15)
        axes.set_xlim(right=101)
        axes.set_yticks([])
        axes.grid(axis="x", color=RULE, linewidth=0.7)
        axes.tick_params(length=0)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.set_xlabel("recall: share of the class that is found, %")
        figure.subplots_adjust(left=0.03, right=0.97, top=1 - 0.05 / height)
        _key(axes, entries, look, height, 0.5)
        alt = "Recall in per cent. " + " ".join(
            f"{class_label(label)}: "
            + ", ".join(f"{entry['arm']} {interval_text(entry['recall'][label])}" for entry in entries)
            + "."
            for label in classes
        )
        return picture(name, figure, alt, "How much of each class every start finds.")


def reliability(entries: Sequence[Entry], look: dict[str, Look], name: str) -> Picture:
    """Accuracy against confidence; probabilities on the diagonal are calibrated."""
    with style():
        height = 3.6 + 0.1 * (len(entries) + 1)
        figure, axes = canvas(height)
        axes.plot([0, 100], [0, 100], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for entry in entries:
            images, confidence, right = np.asarray(entry["reliability"]).T
            full = images >= max(15.0, 0.01 * images.sum())
            axes.plot(
                100 * confidence[full] / images[full],
                100 * right[full] / images[full],
                color=look[entry["arm"]].colour,
                marker=look[entry["arm"]].marker,
                markersize=5.5,
                markeredgecolor=PAPER,
            )
        axes.set(xlabel="confidence in the predicted class, %", ylabel="images classified correctly, %")
        axes.set(xlim=(20, 102), ylim=(0, 104))
        axes.grid(color=RULE, linewidth=0.7)
        axes.tick_params(length=0)
        figure.subplots_adjust(left=0.14, right=0.98, top=0.98)
        _key(axes, entries, look, height, 0.52)
        errors = ", ".join(f"{entry['arm']} {100 * entry['ece']['estimate']:.1f}" for entry in entries)
        alt = f"Reliability diagram. Expected calibration error in points: {errors}."
        caption = f"Below the dashed line a start is surer than it should be. Mean gap, points: {errors}."
        return picture(name, figure, alt, caption)
