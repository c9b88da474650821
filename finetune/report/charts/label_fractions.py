"""Macro-F1 against the share of labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.transforms import ScaledTranslation

from mri_transfer.finetune.comparison.verdict import MODES
from mri_transfer.finetune.report.charts.intervals import Entry, interval_text
from mri_transfer.finetune.report.styles import Look
from mri_transfer.pages.figures import INK, PAPER, RULE, Picture, canvas, picture, short, style


def apart(values: Sequence[float], gap: float, top: float) -> list[float]:
    """Positions for labels of ascending values: at least `gap` apart, none above `top`, moved little."""
    places: list[float] = []
    for value in values:
        places.append(max(value, places[-1] + gap) if places else value)
    ceiling = top
    for number in reversed(range(len(places))):
        places[number] = min(places[number], ceiling)
        ceiling = places[number] - gap
    return places


def efficiency(entries: Sequence[Entry], look: dict[str, Look], mode: str, name: str) -> Picture:
    """Macro-F1 against the share of labelled training groups, one line per arm, with 95% bands."""
    with style():
        figure, axes = canvas(3.3)
        ends = []
        for arm in look:
            line = sorted(
                (e for e in entries if e["arm"] == arm and e["mode"] == mode), key=lambda e: e["fraction"]
            )
            line = [entry for entry in line if entry["macro_f1"]["estimate"] is not None]
            if not line:
                continue
            x = [entry["fraction"] for entry in line]
            low, middle, high = (
                [100 * entry["macro_f1"][key] for entry in line] for key in ("low", "estimate", "high")
            )
            axes.fill_between(x, low, high, color=look[arm].colour, alpha=0.13, linewidth=0)
            axes.plot(
                x,
                middle,
                color=look[arm].colour,
                marker=look[arm].marker,
                markersize=6.5,
                markeredgecolor=PAPER,
            )
            ends.append((middle[-1], x[-1], arm))
        fractions = sorted({entry["fraction"] for entry in entries if entry["mode"] == mode})
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_xticks(fractions, [f"{100 * fraction:g}%" for fraction in fractions])
        axes.set_xlabel("share of the training groups whose labels were used")
        axes.set_ylabel("macro-F1, points")
        axes.grid(axis="y", color=RULE, linewidth=0.7)
        axes.tick_params(length=0)
        axes.figure.subplots_adjust(left=0.125, right=0.74, bottom=0.16, top=0.97)
        bottom, top = axes.get_ylim()
        ends.sort()
        places = apart([y for y, _, _ in ends], (top - bottom) * 0.075, top)
        for (y, x_end, arm), place in zip(ends, places, strict=True):
            is_moved = abs(place - y) > 1e-9
            text_style: Any = {"textcoords": "offset points", "va": "center", "annotation_clip": False}
            # The name is in ink, as some colours are too light to read; if it moves, its mark moves along.
            axes.annotate(
                short(arm, 13), (x_end, place), xytext=(19 if is_moved else 9, 0), color=INK, **text_style
            )
            if is_moved:
                axes.plot(
                    x_end,
                    place,
                    look[arm].marker,
                    color=look[arm].colour,
                    markersize=6.5,
                    markeredgecolor=PAPER,
                    clip_on=False,
                    transform=axes.transData + ScaledTranslation(12 / 72, 0, axes.figure.dpi_scale_trans),
                )
        title = MODES.get(mode, mode).capitalize()
        alt = f"{title}, macro-F1 in points against the share of labels: " + "; ".join(
            f"{entry['arm']} at {100 * entry['fraction']:g}%: {interval_text(entry['macro_f1'])}"
            for entry in entries
            if entry["mode"] == mode
        )
        return picture(name, figure, alt, f"{title}. Bands are 95% intervals.")
