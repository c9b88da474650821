"""The figures of the audit's page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import blended_transform_factory

from mri_transfer.datasets.tumors.tumors import TumorSet
from mri_transfer.pages.figures import COLOURS, INK, MUTED, PAPER, RULE, Picture, canvas, picture, style

BLUE, ORANGE = COLOURS[0], COLOURS[1]
_TICKS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)


def _depth(correlation: Any) -> np.ndarray:
    """The figure's scale, which spreads out correlations near 1."""
    return -np.log10(np.maximum(1 - np.asarray(correlation, float), 3e-4))


def threshold(tumors: TumorSet) -> Picture:
    """Correlations of the set's own pairs and of planted copies, with the line between copies and others."""
    calibration = tumors.calibration
    edges = np.linspace(_depth(0.4), _depth(1.0), 66)
    with style():
        figure, axes = canvas(3.3)
        axes.remove()
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1, 1.35])
        rows = (
            (upper, np.asarray(calibration.planted), ORANGE, "copies planted\nto measure", 0.01),
            (lower, tumors.candidates.correlation, BLUE, "pairs of\nthis set", 0.86),
        )
        for panel, values, colour, label, place in rows:
            panel.set_facecolor("none")
            panel.hist(_depth(values), edges, color=colour)
            panel.axvline(_depth(calibration.threshold), color=INK, linewidth=1.4, linestyle=(0, (4, 2)))
            panel.text(
                place, 0.96, label, transform=panel.transAxes, va="top", color=colour, fontweight="bold"
            )
            panel.tick_params(length=0)
        if np.any(_depth(tumors.candidates.correlation) >= edges[0]):
            lower.set_yscale("log")
            lower.set_ylim(0.7, None)
            lower.yaxis.set_major_formatter("{x:.0f}")
            lower.minorticks_off()
        above = blended_transform_factory(upper.transData, upper.transAxes)
        label = f"{calibration.threshold:.3f} "
        upper.text(_depth(calibration.threshold), 1.04, label, transform=above, ha="center", color=INK)
        lower.set_xticks(_depth(_TICKS), [f"{tick:g}"[1:] for tick in _TICKS])
        lower.set_xlabel("correlation after alignment")
        figure.subplots_adjust(left=0.1, right=0.985, top=0.92, bottom=0.15, hspace=0.18)
        share = calibration.share_found
        alt = (
            f"Two histograms of correlation and a line at {calibration.threshold:.3f}. "
            f"{len(tumors.near)} of {len(tumors.candidates)} pairs lie to its right"
            + ("." if share is None else f", and {share:.0%} of the planted copies.")
        )
        caption = (
            f"Right of the line: the same picture ({len(tumors.near)} pairs). Left: other pictures, of which the most "
            "similar are neighbouring slices of one patient. The lower counts are on a logarithmic scale."
        )
        return picture("threshold", figure, alt, caption)


def _named_rows(axes: Axes, labels: Sequence[str], texts: Sequence[str], height: float) -> None:
    """Labels above each row on the left, figures on the right, the first row on top."""
    across = blended_transform_factory(axes.transAxes, axes.transData)
    for y, (label, text) in enumerate(zip(labels, texts, strict=True)):
        axes.text(0, y - 0.38, label, transform=across, va="center", ha="left", color=INK)
        axes.text(1, y - 0.38, text, transform=across, va="center", ha="right", color=MUTED)
    axes.set_ylim(len(labels) - 0.45, -0.75)
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0, pad=5)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.figure.subplots_adjust(left=0.03, right=0.97, bottom=0.5 / height, top=1 - 0.1 / height)


def shortcuts(findings: dict[str, Any], limit: int = 9) -> Picture | None:
    """How well the most predictive features identify the class, beside a guess."""
    entries = findings["features"][:limit]
    if not entries:
        return None
    height = 0.46 * len(entries) + 0.75
    with style():
        figure, axes = canvas(height)
        texts = []
        for y, entry in enumerate(entries):
            score = entry["balanced_accuracy"]
            colour = ORANGE if entry["shortcut"] else MUTED
            low, high, estimate = (100 * score[key] for key in ("low", "high", "estimate"))
            axes.plot([0, 100], [y, y], color=RULE, linewidth=0.8, zorder=0)
            axes.vlines(100 * findings["chance"], y - 0.17, y + 0.17, color=INK, linewidth=1.4)
            axes.plot([low, high], [y, y], color=colour, linewidth=2.6, alpha=0.45, solid_capstyle="round")
            axes.plot(estimate, y, "o", color=colour, markersize=7, markeredgecolor=PAPER)
            texts.append(f"{estimate:.0f}  ({low:.0f} to {high:.0f})")
        axes.set_xlim(0, 100)
        axes.set_xlabel("balanced accuracy, points; upright line: a guess")
        labels = [f"{entry['name'][0].upper()}{entry['name'][1:]}" for entry in entries]
        _named_rows(axes, labels, texts, height)
        alt = "Balanced accuracy in points: " + "; ".join(map(" ".join, zip(labels, texts, strict=True)))
        caption = "How well a small tree names the class from nothing but this. Orange: better than a guess."
        return picture("shortcuts", figure, alt, caption)


def nearest(findings: dict[str, Any]) -> Picture | None:
    """Scores of the raw-pixel nearest neighbour, part by part."""
    rows: list[tuple[str, float, str]] = []
    published = findings["published"]
    if published:
        names = {
            "all": "Test split as published",
            "copies": "its copies of training images",
            "rest": "the rest of it",
        }
        for key, name in names.items():
            if published[key]["accuracy"] is not None:
                rows.append((f"{name} ({published[key]['images']})", published[key]["accuracy"], ORANGE))
    for key, name in (("ungrouped", "Folds that ignore groups"), ("grouped", "Folds that keep groups whole")):
        if findings[key]:
            rows.append((name, findings[key]["accuracy"], BLUE))
    if not rows:
        return None
    height = 0.46 * len(rows) + 0.75
    with style():
        figure, axes = canvas(height)
        for y, (_, value, colour) in enumerate(rows):
            axes.barh(y, 100, height=0.2, color=RULE)
            axes.barh(y, 100 * value, height=0.2, color=colour)
        axes.set_xlim(0, 100)
        axes.set_xlabel("images answered correctly, per cent")
        labels, texts = [row[0] for row in rows], [f"{100 * row[1]:.1f}%" for row in rows]
        _named_rows(axes, labels, texts, height)
        alt = "Accuracy: " + "; ".join(map(" ".join, zip(labels, texts, strict=True)))
        caption = "The class of the training image that is most similar, pixel by pixel."
        return picture("nearest", figure, alt, caption)
