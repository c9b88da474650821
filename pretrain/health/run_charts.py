"""The figures of a run's page: curves over time, and a map of the features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator

from mri_transfer.pages.figures import COLOURS, INK, MUTED, Picture, canvas, picture, short, style

Line = Mapping[str, Any]
MOST_POINTS = 300  # per curve; more are averaged
MOST_DOTS = 400  # per map
LABELS = ("plane", "sequence", "position")


class Curve(NamedTuple):
    """A line of a figure: its label, and its key in metrics.jsonl."""

    label: str
    key: str
    scale: float = 1.0
    chance: str = ""  # key of the chance level


class Axis(NamedTuple):
    """Time of the run, in a suitable unit."""

    unit: str
    seconds: float


def draw(lines: Sequence[Line]) -> dict[str, list[Picture]]:
    """All curves that metrics.jsonl has data for, by section of the page."""
    lines = [line for line in lines if isinstance(line.get("seconds"), (int, float))]
    longest = max((line["seconds"] for line in lines), default=0.0)
    axis = Axis("hours", 3600.0) if longest > 5400 else Axis("minutes", 60.0)
    with style():
        by_section = {
            "loss": [_loss(lines, axis)],
            "health": [
                _curves(
                    "neighbours",
                    lines,
                    axis,
                    [Curve(name, f"knn_{name}", 100, f"knn_{name}_chance") for name in LABELS],
                    "share the label, %",
                    "Nearest neighbours of other subjects that share a slice's label, balanced over labels. Dotted: "
                    "by chance. Thin: at the start, here and below.",
                    start_line=True,
                ),
                _curves(
                    "rank",
                    lines,
                    axis,
                    [Curve("effective rank", "rankme")],
                    "effective rank",
                    "Effective rank of the features (RankMe): about how many directions they use. A fall to a few is "
                    "collapse.",
                    low=0,
                    start_line=True,
                ),
                _curves(
                    "spread",
                    lines,
                    axis,
                    [Curve("encoder", "spread"), Curve("embedding", "embedding_spread")],
                    "spread",
                    "Spread of the features and of the embeddings that the loss compares: 1 is even over all "
                    "directions, 0 is all the same.",
                    low=0,
                    start_line=True,
                ),
                _curves(
                    "pairs",
                    lines,
                    axis,
                    [Curve("pairs", "alignment_ratio")],
                    "distance of pairs",
                    "Distance of the two views of a pair, as a share of that of any two: 1 is no closer, 0 is the "
                    "same.",
                    low=0,
                    start_line=True,
                ),
                _curves(
                    "alignment",
                    lines,
                    axis,
                    [Curve("alignment", "alignment")],
                    "alignment",
                    "Alignment of the embeddings of pairs (Wang & Isola 2020): their squared distance, 0 to 4. Lower "
                    "is better only while uniformity stays.",
                    low=0,
                    start_line=True,
                ),
                _curves(
                    "uniformity",
                    lines,
                    axis,
                    [Curve("uniformity", "uniformity")],
                    "uniformity",
                    "Uniformity of the features (Wang & Isola 2020): lower is more even, 0 is all the same.",
                    start_line=True,
                ),
            ],
            "machine": [
                _curves(
                    "rate",
                    lines,
                    axis,
                    [Curve("learning rate", "learning_rate")],
                    "learning rate",
                    "The learning rate.",
                    low=0,
                ),
                _curves(
                    "speed",
                    lines,
                    axis,
                    [Curve("views per second", "views_per_second")],
                    "views/s",
                    "Views trained on per second.",
                    low=0,
                ),
                _curves(
                    "waiting",
                    lines,
                    axis,
                    [Curve("waiting", "data_wait", 100)],
                    "waiting, %",
                    "Share of the time that training waited for slices from the disk.",
                    low=0,
                ),
                _curves(
                    "temperature",
                    lines,
                    axis,
                    [Curve("hottest sensor", "temperature_c")],
                    "°C",
                    "Temperature of the hottest sensor that the kernel shows.",
                ),
                _curves(
                    "clock",
                    lines,
                    axis,
                    [Curve("clock", "cpu_mhz")],
                    "MHz",
                    "Clock of the processor, mean of its cores. A fall at steady work is throttling.",
                    low=0,
                ),
                _curves(
                    "power",
                    lines,
                    axis,
                    [Curve("power", "power_w")],
                    "W",
                    "Power that the module draws.",
                    low=0,
                ),
            ],
        }
    return {section: [chart for chart in pictures if chart] for section, pictures in by_section.items()}


def series(lines: Sequence[Line], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Seconds and values of a key; too many are averaged over as many runs as a figure can show."""
    points = [(line["seconds"], line[key]) for line in lines if isinstance(line.get(key), (int, float))]
    if not points:
        return np.empty(0), np.empty(0)
    seconds, values = np.array(points, dtype=np.float64).T
    if len(points) > MOST_POINTS:
        edges = np.linspace(0, len(points), MOST_POINTS + 1).astype(int)[:-1]
        counts = np.diff([*edges, len(points)])
        seconds, values = (np.add.reduceat(column, edges) / counts for column in (seconds, values))
    return seconds, values


def _loss(lines: Sequence[Line], axis: Axis) -> Picture | None:
    seconds, values = series(lines, "loss")
    if not len(values):
        return None
    figure, axes = canvas(2.9)
    x = seconds / axis.seconds
    axes.plot(x, values, color=COLOURS[0], linewidth=0.8, alpha=0.35 if len(values) > 20 else 1.0)
    if len(values) > 20:
        axes.plot(x, _smooth(values), color=COLOURS[0], linewidth=1.8)
    chance = next(
        (
            line["loss_chance"]
            for line in reversed(lines)
            if isinstance(line.get("loss_chance"), (int, float))
        ),
        None,
    )
    text = f"The loss, from {values[0]:.3g} to {values[-1]:.3g}."
    if chance is not None:
        axes.axhline(chance, color=MUTED, linewidth=1.1, linestyle=(0, (1, 2)))
        axes.annotate(
            "by chance", (1, chance), xycoords=("axes fraction", "data"), xytext=(0, 3),
            textcoords="offset points", ha="right", color=MUTED,
        )  # fmt: skip
        text += f" Dotted: {chance:.3g}, what embeddings that know nothing would give."
    _finish(figure, axes, axis, "loss")
    return picture("loss", figure, text, text)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Mean over a window of a twentieth, truncated at the ends."""
    half = max(1, len(values) // 40)
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    first, last = np.maximum(0, at - half), np.minimum(len(values), at + half + 1)
    return (total[last] - total[first]) / (last - first)


def _curves(
    name: str,
    lines: Sequence[Line],
    axis: Axis,
    curves: Sequence[Curve],
    ylabel: str,
    caption: str,
    low: float | None = None,
    start_line: bool = False,
) -> Picture | None:
    """A figure of the curves with points, or None."""
    present = [(curve, *series(lines, curve.key)) for curve in curves]
    present = [curve for curve in present if len(curve[1])]
    if not present:
        return None
    figure, axes = canvas(2.5)
    descriptions = []
    for (curve, seconds, values), colour in zip(present, COLOURS, strict=False):
        x, y = seconds / axis.seconds, curve.scale * values
        few = len(y) <= 40
        axes.plot(
            x, y, color=colour, linewidth=1.6, marker="o" if few else "", markersize=3.5, label=curve.label
        )
        if start_line and len(y) > 1:
            axes.axhline(y[0], color=colour, linewidth=0.8, alpha=0.6)
        if curve.chance:
            chance = series(lines, curve.chance)[1]
            if len(chance):
                axes.axhline(curve.scale * chance[-1], color=colour, linewidth=1.1, linestyle=(0, (1, 2)))
        descriptions.append(f"{curve.label} from {y[0]:.3g} to {y[-1]:.3g}")
    if len(present) > 1:
        figure.legend(loc="upper center", ncols=3, frameon=False, handlelength=1.2, fontsize=9.5)
    if low is not None:
        axes.set_ylim(low, max(1.08 * axes.get_ylim()[1], low + 1e-9))
    _finish(figure, axes, axis, ylabel, legend=len(present) > 1)
    return picture(name, figure, f"{caption} {'; '.join(descriptions)}.", caption)


def _finish(figure: Any, axes: Any, axis: Axis, ylabel: str, legend: bool = False) -> None:
    axes.set_xlabel(axis.unit)
    axes.set_ylabel(ylabel)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    figure.subplots_adjust(left=0.17, right=0.97, top=0.86 if legend else 0.95, bottom=0.22)


def maps(
    before: np.ndarray | None, after: np.ndarray, labels: Mapping[str, np.ndarray]
) -> dict[str, list[Picture]]:
    """Both maps, once per label.

    Args:
        before, after: coordinates (n, 2) of the same slices; before may be None.
        labels: (n,) strings each, by name.
    """
    pictures: dict[str, list[Picture]] = {}
    with style():
        for name, values in labels.items():
            panels = []
            for when, points in (("start", before), ("now", after)):
                if points is not None:
                    panels.append(_map(f"map-{name}-{when}", points, np.asarray(values), name, when))
            pictures[name] = panels
    return pictures


def _map(name: str, points: np.ndarray, values: np.ndarray, label: str, when: str) -> Picture:
    figure, axes = canvas(4.1)
    names = sorted(set(values.tolist()))
    ordered = label == "position"
    for number, value in enumerate(names):
        members = points[values == value]
        # Positions are ordered along the head, so colours go from light to dark.
        colour = (
            ("#9ecae9", "#6aa9d8", "#3c86c0", "#1c619d", "#0b3c6f")[number % 5]
            if ordered
            else COLOURS[number % len(COLOURS)]
        )
        axes.plot(
            members[:, 0], members[:, 1], "o", color=colour, markersize=4, markeredgewidth=0, alpha=0.8,
            label=short(value or "unknown", 14),
        )  # fmt: skip
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", adjustable="datalim")
    axes.spines[["left", "bottom"]].set_visible(False)
    figure.legend(
        loc="lower center", ncols=min(5, len(names)), frameon=False, handletextpad=0.1, columnspacing=0.9,
        fontsize=9.5, labelcolor=INK,
    )  # fmt: skip
    rows = -(-len(names) // 5)
    figure.subplots_adjust(left=0.02, right=0.98, top=0.98, bottom=0.05 + 0.05 * rows)
    moment = {"start": "At the start", "now": "Now"}[when]
    fifths = ": fifths of the slices of each plane, 1 the lowest" if ordered else ""
    text = f"{moment}, coloured by {label}{fifths}."
    return picture(name, figure, f"Map of the features. {text}", text)
