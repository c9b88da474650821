"""Figures beside scores: encoders' layouts of images, and fine-tuning's learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from mri_transfer.finetune.report.insight import Curves, Insight, Layout
from mri_transfer.finetune.report.styles import Look
from mri_transfer.pages.figures import (
    COLOURS,
    INK,
    PAPER,
    RULE,
    Picture,
    canvas,
    class_label,
    picture,
    short,
    style,
)

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DRAWN_TRIALS = 15


def layout(panel: Layout, classes: Sequence[str], name: str) -> Picture:
    """Images as dots, close if the encoder finds them alike; class by colour and mark."""
    lines = (len(classes) + 1) // 2
    height = 2.75 + 0.2 * lines
    with style():
        figure, axes = canvas(height, 2.75)
        for label, class_name in enumerate(classes):
            x, y = panel.points[panel.labels == label].T
            colour = COLOURS[label % len(COLOURS)]
            axes.plot(
                x,
                y,
                MARKERS[label % len(MARKERS)],
                color=colour,
                markersize=3.4,
                markeredgewidth=0,
                alpha=0.75,
                label=short(class_label(class_name), 15),
            )
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[["left", "bottom"]].set_color(RULE)
        figure.legend(
            loc="lower center", ncols=2, frameon=False, handletextpad=0.1, columnspacing=1.0, markerscale=1.8
        )
        figure.subplots_adjust(left=0.02, right=0.98, top=0.99, bottom=(0.2 * lines + 0.1) / height)
        stage = "after fine-tuning" if panel.tuned else "as it starts"
        share = f"{100 * panel.agreement:.0f}% have a nearest neighbour of their own class"
        alt = (
            f"Map of {len(panel.points)} images by {panel.arm}, {stage}. Of the fold's images {share}, when images of "
            "the same group don't count."
        )
        return picture(name, figure, alt, f"{panel.arm}, {stage}: {share}.")


def curves(by_arm: Mapping[str, Curves], look: Mapping[str, Look], name: str) -> Picture:
    """Loss over epochs, one colour per arm: training solid, held-out dashed, means over trials."""
    with style():
        figure, axes = canvas(3.4)
        descriptions = []
        for arm, lines in by_arm.items():
            of_arm: dict[str, Any] = {"color": look[arm].colour, "marker": look[arm].marker, "markersize": 5}
            for trial in lines.training[:DRAWN_TRIALS]:
                axes.plot(_epochs(trial), trial, color=look[arm].colour, linewidth=0.7, alpha=0.3)
            training = _mean(lines.training)
            axes.plot(_epochs(training), training, markeredgecolor=PAPER, label=short(arm), **of_arm)
            descriptions.append(
                f"{arm} {training[0]:.2f} to {training[-1]:.2f} in {len(training)} epochs of training"
            )
            if lines.held_out.size:
                held_out = _mean(lines.held_out)
                axes.plot(_epochs(held_out), held_out, linestyle=(0, (4, 2)), markeredgecolor=PAPER, **of_arm)
                descriptions[-1] += f", best {held_out.min():.2f} on images held out"
        axes.set(xlabel="epoch", ylabel="loss, nats")
        axes.set_ylim(bottom=0)
        last = max(
            losses.shape[1] for lines in by_arm.values() for losses in (lines.training, lines.held_out)
        )
        axes.set_xlim(0.6, last + 0.4)
        axes.grid(axis="y", color=RULE, linewidth=0.7)
        axes.tick_params(length=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.legend(frameon=False, labelcolor=INK)
        figure.subplots_adjust(left=0.125, right=0.98, bottom=0.15, top=0.97)
        alt = f"Loss of fine-tuning in nats, mean over trials: {'; '.join(descriptions)}."
        caption = "Solid: training, with augmentation, mean over trials; thin lines are single trials."
        if any(lines.held_out.size for lines in by_arm.values()):
            caption += " Dashed: images that an inner training held out, which calibrates the probabilities."
        return picture(name, figure, alt, caption)


def _mean(rows: np.ndarray) -> np.ndarray:
    """Mean over trials that reached each epoch."""
    counts = np.isfinite(rows).sum(0)
    return np.nansum(rows, axis=0) / np.maximum(counts, 1)


def _epochs(losses: np.ndarray) -> np.ndarray:
    return np.arange(1, len(losses) + 1)


def draw(insight: Insight, classes: Sequence[str], look: Mapping[str, Look]) -> dict[str, list[Picture]]:
    """Figures by section of the page: "layouts" and "curves"."""
    layouts = [layout(panel, classes, f"layout-{i}") for i, panel in enumerate(insight.layouts)]
    learned = [curves(insight.curves, look, "learning")] if insight.curves else []
    return {"layouts": layouts, "curves": learned}
