"""Forest plots: scores and differences as intervals in rows, with a tick for each seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.transforms import blended_transform_factory

from mri_transfer.finetune.comparison.verdict import describe_cell, points
from mri_transfer.finetune.report.styles import Look
from mri_transfer.pages.figures import INK, MUTED, PAPER, RULE, Picture, canvas, picture, short, style

Entry = dict[str, Any]
ROW = 0.52  # inches per row


def rows(axes: Axes, count: int, height: float, below: float = 0.55, above: float = 0.12) -> None:
    """Axes for `count` rows with labels above each, the first on top.

    Grid lines are drawn only beside marks, so that none crosses a label.
    """
    axes.set_ylim(count - 0.45, -0.75)
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0, pad=5)
    axes.spines[["left", "bottom"]].set_visible(False)
    # The width limits the number of ticks.
    axes.figure.subplots_adjust(left=0.03, right=0.97, bottom=below / height, top=1 - above / height)
    left, right = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if left <= tick <= right]
    for y in range(count):
        axes.vlines(ticks, y - 0.17, y + 0.17, color=RULE, linewidth=0.8, zorder=0)
    axes.set_xticks(ticks)
    axes.set_xlim(left, right)


def _row(
    axes: Axes,
    y: float,
    interval: Entry,
    look: Look,
    label: str,
    figure_text: str,
    seeds: Sequence[float] = (),
) -> None:
    """One interval with its label above it at the left and its figures at the right."""
    across = blended_transform_factory(axes.transAxes, axes.transData)
    axes.text(0, y - 0.38, label, transform=across, va="center", ha="left", color=INK)
    axes.text(1, y - 0.38, figure_text, transform=across, va="center", ha="right", color=MUTED)
    if interval["estimate"] is None:
        return
    low, high = 100 * interval["low"], 100 * interval["high"]
    axes.plot([low, high], [y, y], color=look.colour, linewidth=2.6, solid_capstyle="round", alpha=0.45)
    axes.plot(
        [100 * value for value in seeds],
        [y] * len(seeds),
        "|",
        color=look.colour,
        markersize=9,
        alpha=0.8,
    )
    axes.plot(
        100 * interval["estimate"], y, look.marker, color=look.colour, markersize=7.5, markeredgecolor=PAPER
    )


def interval_text(interval: Entry, signed: bool = False) -> str:
    if interval["estimate"] is None:
        return "undefined"
    low, high = points(interval["low"], signed), points(interval["high"], signed)
    return f"{points(interval['estimate'], signed)}  ({low} to {high})"


def scores(entries: Sequence[Entry], look: dict[str, Look], name: str) -> Picture:
    """Macro-F1 of every arm in one cell, with 95% intervals and a tick for each seed."""
    height = ROW * len(entries) + 0.75
    setting = describe_cell(entries[0]["mode"], entries[0]["fraction"])
    with style():
        figure, axes = canvas(height)
        for y, entry in enumerate(entries):
            _row(
                axes,
                y,
                entry["macro_f1"],
                look[entry["arm"]],
                short(entry["arm"]),
                interval_text(entry["macro_f1"]),
                entry.get("macro_f1_by_seed", ()),
            )
        axes.set_xlabel(f"macro-F1, points · {setting}")
        rows(axes, len(entries), height)
        alt = f"Macro-F1 in points, {setting}: " + "; ".join(
            f"{entry['arm']} {interval_text(entry['macro_f1'])}" for entry in entries
        )
        caption = f"{setting.capitalize()}. Mark: mean over seeds. Bar: 95% interval. Ticks: single seeds."
        return picture(name, figure, alt, caption)


def differences(
    pairs: Sequence[Entry],
    look: dict[str, Look],
    name: str,
    *,
    labels: Sequence[str] | None = None,
    baseline: str | None = None,
    what: str | None = None,
) -> Picture:
    """Differences between arms with 95% intervals around a line at zero.

    Args:
        labels: the rows'; by default the two arms' names.
        baseline: the arm that all differences refer to, named at the left end.
        what: the setting; by default the first pair's.
    """
    height = ROW * len(pairs) + (0.98 if baseline else 0.75)
    what = what or describe_cell(pairs[0]["mode"], pairs[0]["fraction"])
    labels = labels or [f"{short(pair['a'], 15)} − {short(pair['b'], 15)}" for pair in pairs]
    with style():
        figure, axes = canvas(height)
        for y, (pair, label) in enumerate(zip(pairs, labels, strict=True)):
            axes.vlines(0, y - 0.2, y + 0.2, color=INK, linewidth=1.4)
            _row(
                axes,
                y,
                pair["difference"],
                look[pair["a"]],
                label,
                interval_text(pair["difference"], signed=True),
                pair.get("by_seed", ()),
            )
        ends = [100 * (pair["difference"][end] or 0.0) for pair in pairs for end in ("low", "high")]
        ends += [100 * value for pair in pairs for value in pair.get("by_seed", ())]
        width = max(max(ends) - min(ends), max(ends), -min(ends), 0.5)
        axes.set_xlim(
            min(min(ends), -0.15 * width) - 0.05 * width, max(max(ends), 0.15 * width) + 0.05 * width
        )
        axes.set_xlabel(f"difference of macro-F1, points · {what}")
        rows(axes, len(pairs), height, above=0.35 if baseline else 0.12)
        if baseline:
            top = 1 + 0.06 / (height - 0.9)
            for x, side, text in (
                (0.0, "left", f"← {short(baseline)} better"),
                (
                    1.0,
                    "right",
                    f"{short(pairs[0]['a']) if len({p['a'] for p in pairs}) == 1 else 'this start'} better →",
                ),
            ):
                axes.text(x, top, text, ha=side, va="bottom", color=MUTED, transform=axes.transAxes)
        alt = f"Differences of macro-F1 in points, {what}: " + "; ".join(
            f"{label if baseline else ''} {pair['a']} minus {pair['b']} ".lstrip()
            + interval_text(pair["difference"], signed=True)
            for pair, label in zip(pairs, labels, strict=True)
        )
        caption = (
            f"{what[:1].upper()}{what[1:]}. Ticks: single seeds. "
            "A bar that crosses zero: the data does not tell the two apart."
        )
        return picture(name, figure, alt, caption)
