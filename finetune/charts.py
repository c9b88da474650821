"""The figures of the report, each drawn from the entries of `report.json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.transforms import ScaledTranslation, blended_transform_factory

from mri_transfer.figures import (
    INK,
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
from mri_transfer.finetune.looks import Look
from mri_transfer.finetune.verdict import CONTROLS, MODES, RANK, describe_cell, kind_of, oriented, points

Entry = dict[str, Any]
ROW = 0.52  # inches a row
DARKEST = 1.15  # share of a row that would be drawn in an arm's full colour


def _rows(axes: Axes, count: int, height: float, below: float = 0.55, above: float = 0.12) -> None:
    """Axes for `count` rows with their labels written above each, the first on top.

    Grid lines are drawn beside the marks only, so that no line crosses a label.
    """
    axes.set_ylim(count - 0.45, -0.75)
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0, pad=5)
    axes.spines[["left", "bottom"]].set_visible(False)
    left, right = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if left <= tick <= right]
    for y in range(count):
        axes.vlines(ticks, y - 0.17, y + 0.17, color=RULE, linewidth=0.8, zorder=0)
    axes.set_xlim(left, right)
    axes.figure.subplots_adjust(left=0.03, right=0.97, bottom=below / height, top=1 - above / height)


def _row(
    axes: Axes,
    y: float,
    interval: Entry,
    look: Look,
    label: str,
    figure_text: str,
    seeds: Sequence[float] = (),
) -> None:
    """One interval with its label at the left above it and its figures at the right."""
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


def _span(interval: Entry, signed: bool = False) -> str:
    if interval["estimate"] is None:
        return "undefined"
    low, high = points(interval["low"], signed), points(interval["high"], signed)
    return f"{points(interval['estimate'], signed)}  ({low} to {high})"


def scores(entries: Sequence[Entry], look: dict[str, Look], name: str) -> Picture:
    """Macro-F1 of every arm in one cell, with 95% intervals and a tick for each seed."""
    height = ROW * len(entries) + 0.75
    what = describe_cell(entries[0]["mode"], entries[0]["fraction"])
    with style():
        figure, axes = canvas(height)
        for y, entry in enumerate(entries):
            _row(
                axes,
                y,
                entry["macro_f1"],
                look[entry["arm"]],
                short(entry["arm"]),
                _span(entry["macro_f1"]),
                entry.get("macro_f1_by_seed", ()),
            )
        axes.set_xlabel(f"macro-F1, points · {what}")
        _rows(axes, len(entries), height)
        alt = f"Macro-F1 in points, {what}: " + "; ".join(
            f"{entry['arm']} {_span(entry['macro_f1'])}" for entry in entries
        )
        caption = f"{what.capitalize()}. Mark: mean over seeds. Bar: 95% interval. Ticks: single seeds."
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
        labels: of the rows; by default the two arms' names.
        baseline: the arm that all differences are measured from, to be named at the left end.
        what: the setting; by default that of the first pair.
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
                _span(pair["difference"], signed=True),
                pair.get("by_seed", ()),
            )
        ends = [100 * (pair["difference"][end] or 0.0) for pair in pairs for end in ("low", "high")]
        ends += [100 * value for pair in pairs for value in pair.get("by_seed", ())]
        span = max(max(ends) - min(ends), max(ends), -min(ends), 0.5)
        axes.set_xlim(min(min(ends), -0.15 * span) - 0.05 * span, max(max(ends), 0.15 * span) + 0.05 * span)
        axes.set_xlabel(f"difference of macro-F1, points · {what}")
        _rows(axes, len(pairs), height, above=0.35 if baseline else 0.12)
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
            f"{label if baseline else ''} {pair['a']} minus {pair['b']} {_span(pair['difference'], True)}".strip()
            for pair, label in zip(pairs, labels, strict=True)
        )
        caption = (
            f"{what[:1].upper()}{what[1:]}. Ticks: single seeds. "
            "A bar that crosses zero: the data does not tell the two apart."
        )
        return picture(name, figure, alt, caption)


def apart(values: Sequence[float], gap: float, top: float) -> list[float]:
    """Where to write labels of ascending values: at least `gap` from one another, none above `top`, moved little."""
    places: list[float] = []
    for value in values:
        places.append(max(value, places[-1] + gap) if places else value)
    ceiling = top
    for number in reversed(range(len(places))):
        places[number] = min(places[number], ceiling)
        ceiling = places[number] - gap
    return places


def efficiency(entries: Sequence[Entry], look: dict[str, Look], mode: str, name: str) -> Picture:
    """Macro-F1 against the share of labelled training groups, one line an arm, bands of 95%."""
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
                [100 * entry["macro_f1"][part] for entry in line] for part in ("low", "estimate", "high")
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
            moved = abs(place - y) > 1e-9
            beside: Any = {"textcoords": "offset points", "va": "center", "annotation_clip": False}
            # The name in ink, for some colours are too light to read; where it had to move, its mark goes along.
            axes.annotate(short(arm, 13), (x_end, place), xytext=(19 if moved else 9, 0), color=INK, **beside)
            if moved:
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
        what = MODES.get(mode, mode).capitalize()
        alt = f"{what}, macro-F1 in points against the share of labels: " + "; ".join(
            f"{entry['arm']} at {100 * entry['fraction']:g}%: {_span(entry['macro_f1'])}"
            for entry in entries
            if entry["mode"] == mode
        )
        return picture(name, figure, alt, f"{what}. Bands are 95% intervals.")


def confusion(entry: Entry, classes: Sequence[str], colour: str, name: str) -> Picture:
    """How images of each class (rows) were classified (columns), in per cent of the row."""
    counts = np.asarray(entry["confusion"])
    totals = counts.sum(1, keepdims=True)
    share = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    labels = [short(class_label(each), 13) for each in classes]
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
            f"{class_label(each)}: "
            + ", ".join(f"{100 * p:.0f}% {class_label(other)}" for p, other in zip(row, classes, strict=True))
            for each, row in zip(classes, share, strict=True)
        )
        return picture(name, figure, alt, entry["arm"])


def _key(axes: Axes, entries: Sequence[Entry], look: dict[str, Look], height: float, bottom: float) -> None:
    """Which mark is which arm, below the axes, which keep `bottom` inches for their ticks and label."""
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
    """Share of each class that is found, by arm, with 95% intervals."""
    step = 0.19
    height = len(classes) * (0.38 + step * len(entries)) + 0.65 + 0.1 * (len(entries) + 1)
    with style():
        figure, axes = canvas(height)
        y = 0.0
        across = blended_transform_factory(axes.transAxes, axes.transData)
        for each in classes:
            axes.text(0, y, short(class_label(each), 30), transform=across, va="center", fontweight="bold")
            y += 0.21
            for entry in entries:
                value = entry["recall"][each]
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
            f"{class_label(each)}: "
            + ", ".join(f"{entry['arm']} {_span(entry['recall'][each])}" for entry in entries)
            + "."
            for each in classes
        )
        return picture(name, figure, alt, "How much of each class every start finds.")


def reliability(entries: Sequence[Entry], look: dict[str, Look], name: str) -> Picture:
    """Accuracy against confidence; on the diagonal, a probability means what it says."""
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
        axes.set(xlabel="confidence in the predicted class, %", ylabel="images classified rightly, %")
        axes.set(xlim=(20, 102), ylim=(0, 104))
        axes.grid(color=RULE, linewidth=0.7)
        axes.tick_params(length=0)
        figure.subplots_adjust(left=0.14, right=0.98, top=0.98)
        _key(axes, entries, look, height, 0.52)
        errors = ", ".join(f"{entry['arm']} {100 * entry['ece']['estimate']:.1f}" for entry in entries)
        alt = f"Reliability diagram. Expected calibration error in points: {errors}."
        caption = f"Below the dashed line a start is surer than it should be. Mean gap, points: {errors}."
        return picture(name, figure, alt, caption)


def published(
    entries: Sequence[Entry], grouped: dict[str, Entry], look: dict[str, Look], name: str
) -> Picture:
    """Accuracy on the published test images: leaked copies, the rest, and all, beside that of grouped folds.

    Args:
        grouped: the "accuracy" of each arm out of fold, for comparison.
    """
    height = ROW * len(entries) + 1.15
    kinds = [
        ("leaked", "x", "copies of training images"),
        ("all", "o", "all, as usually quoted"),
        ("rest", "o", "the rest"),
    ]
    with style():
        figure, axes = canvas(height)
        across = blended_transform_factory(axes.transAxes, axes.transData)
        for y, entry in enumerate(entries):
            colour = look[entry["arm"]].colour
            axes.text(0, y - 0.36, short(entry["arm"]), transform=across, va="center")
            found = [
                100 * entry[kind]["accuracy"] for kind, _, _ in kinds if entry[kind]["accuracy"] is not None
            ]
            axes.plot([min(found), max(found)], [y, y], color=RULE, linewidth=3, zorder=1)
            for kind, marker, _ in kinds:
                value = entry[kind]["accuracy"]
                if value is not None:
                    axes.plot(
                        100 * value,
                        y,
                        marker,
                        color=colour,
                        markersize=8,
                        markeredgewidth=2 if marker == "x" else 1.6,
                        markerfacecolor=PAPER if kind == "rest" else colour,
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
        _rows(axes, len(entries), height, below=0.95)
        axes.set_xlabel("accuracy, %")
        handles = [
            axes.plot(
                [],
                [],
                m,
                color=INK,
                markerfacecolor=PAPER if kind == "rest" else INK,
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
        what = MODES[entries[0]["mode"]].capitalize()
        return picture(name, figure, alt, f"{what}, trained and tested on the split as published.")


def draw(report: dict[str, Any], look: dict[str, Look]) -> dict[str, list[Picture]]:
    """Every figure that the report's entries allow, by section of the page."""
    results, pairs, classes = report["results"], report["pairs"], report["classes"]
    headline = report["verdict"]["mode"], report["verdict"]["fraction"]
    modes = [mode for mode in reversed(RANK) if any(e["mode"] == mode for e in results)]
    drawn: dict[str, list[Picture]] = {
        key: [] for key in ("hero", "scores", "pairs", "labels", "errors", "published")
    }
    drawn["confusion"] = []
    here = [e for e in results if (e["mode"], e["fraction"]) == headline]
    baseline = report["verdict"].get("baseline")
    arm = report["verdict"]["arm"]
    if baseline is not None:
        at = [p for p in pairs if (p["mode"], p["fraction"]) == headline]
        # A control far behind would squeeze the differences that matter; it has its place further down.
        others = [
            e["arm"]
            for e in here
            if e["arm"] == arm or not (e["arm"] == baseline or kind_of(report, e["arm"]) in CONTROLS)
        ]
        turned = [oriented(at, other, baseline) for other in others]
        turned.sort(key=lambda pair: -(pair["difference"]["estimate"] or 0))
        names = [short(pair["a"]) for pair in turned]
        drawn["hero"].append(differences(turned, look, "headline", labels=names, baseline=baseline))
    for mode in modes:
        most = max(e["fraction"] for e in results if e["mode"] == mode)
        cell = [e for e in results if (e["mode"], e["fraction"]) == (mode, most)]
        drawn["scores"].append(scores(cell, look, f"scores-{mode}"))
        at = [p for p in pairs if (p["mode"], p["fraction"]) == (mode, most)]
        if len(at) > 1:
            turned = [
                p if (p["difference"]["estimate"] or 0) >= 0 else oriented([p], p["b"], p["a"]) for p in at
            ]
            drawn["pairs"].append(differences(turned, look, f"differences-{mode}"))
        fractions = sorted({e["fraction"] for e in results if e["mode"] == mode})
        if len(fractions) > 1:
            drawn["labels"].append(efficiency(results, look, mode, f"labels-{mode}"))
    for mode in modes:
        lines = [p for p in pairs if p["mode"] == mode and {p["a"], p["b"]} == {arm, baseline}]
        if len(lines) > 1:
            lines = [oriented([pair], arm, baseline) for pair in sorted(lines, key=lambda p: p["fraction"])]
            shares = [
                "all labels" if p["fraction"] == 1 else f"{100 * p['fraction']:g}% of the labels"
                for p in lines
            ]
            drawn["labels"].append(
                differences(
                    lines,
                    look,
                    f"by-labels-{mode}",
                    labels=shares,
                    baseline=baseline,
                    what=MODES.get(mode, mode),
                )
            )
    drawn["errors"] += [recall(here, classes, look, "recall"), reliability(here, look, "reliability")]
    for i, entry in enumerate(here):
        drawn["confusion"].append(confusion(entry, classes, look[entry["arm"]].colour, f"confusion-{i}"))
    for mode in modes:
        entries = [e for e in report["published"] if e["mode"] == mode]
        most = max(e["fraction"] for e in results if e["mode"] == mode)
        grouped = {e["arm"]: e["accuracy"] for e in results if (e["mode"], e["fraction"]) == (mode, most)}
        if entries:
            drawn["published"].append(published(entries, grouped, look, f"published-{mode}"))
    return drawn
