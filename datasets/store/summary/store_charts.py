"""The figures of a store's summary page."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from mri_transfer.datasets.slices.redundancy import neighbour_correlations, of_planes, thumbnails
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.pages.figures import COLOURS, INK, MUTED, PAPER, Picture, canvas, picture, short, style

_SLICES = 300  # per sequence, whose grey levels are counted
_VOLUMES = 200  # whose neighbours are compared
_MOST_ROWS = 12


def draw(store: SliceStore, max_correlation: float) -> dict[str, list[Picture]]:
    """All figures, by section; the same bytes for the same store."""
    with style():
        return {
            "composition": [_planes(store)],
            "subjects": _subjects(store),
            "intensities": _intensities(store),
            "neighbours": _neighbours(store, max_correlation),
        }


def counts_by(store: SliceStore, row: str, column: str) -> dict[str, dict[str, int]]:
    """Slices by two columns of the table, rows with the most slices first."""
    rows, row_index = np.unique(store.table[row], return_inverse=True)
    columns, column_index = np.unique(store.table[column], return_inverse=True)
    table = np.zeros((len(rows), len(columns)), dtype=np.int64)
    np.add.at(table, (row_index.reshape(-1), column_index.reshape(-1)), 1)
    order = np.argsort(-table.sum(axis=1), kind="stable")
    return {
        str(rows[index]): {
            str(name): int(count) for name, count in zip(columns, table[index], strict=True) if count
        }
        for index in order
    }


def _planes(store: SliceStore) -> Picture:
    table = counts_by(store, "sequence", "plane")
    planes = sorted({plane for counts in table.values() for plane in counts})
    height = 0.75 + 0.42 * len(table)
    figure, axes = canvas(height)
    left = np.zeros(len(table))
    for plane, colour in zip(planes, COLOURS, strict=False):
        widths = np.array([counts.get(plane, 0) for counts in table.values()])
        axes.barh(
            range(len(table)),
            widths,
            left=left,
            color=colour,
            height=0.62,
            label=plane,
            edgecolor=PAPER,
            linewidth=0.5,
        )
        left += widths
    axes.set_yticks(range(len(table)), [short(name) for name in table])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.invert_yaxis()
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("slices")
    figure.legend(loc="upper center", ncols=4, frameon=False, handlelength=1, fontsize=9.5)
    figure.subplots_adjust(left=0.2, right=0.97, top=1 - 0.38 / height, bottom=0.5 / height)
    alt = "; ".join(
        f"{name}: {', '.join(f'{count} {plane}' for plane, count in counts.items())}"
        for name, counts in table.items()
    )
    return picture("planes", figure, f"Slices by sequence and plane. {alt}.", "Slices by sequence and plane.")


def _subjects(store: SliceStore) -> list[Picture]:
    slices = np.unique(store.table["subject"], return_counts=True)[1]
    scans = np.unique([volume["subject"] for volume in store.volumes], return_counts=True)[1]
    pictures = []
    for name, values, unit in (("per-subject", slices, "slices"), ("scans", scans, "scans")):
        figure, axes = canvas(2.3)
        low, high = int(values.min()), int(values.max())
        edges = np.linspace(low - 0.5, high + 0.5, min(high - low + 1, 24) + 1)
        axes.hist(values, bins=edges.tolist(), color=COLOURS[0], edgecolor=PAPER)
        axes.set_xlabel(f"{unit} of a subject")
        axes.set_ylabel("subjects")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        figure.subplots_adjust(left=0.14, right=0.97, top=0.95, bottom=0.25)
        middle = float(np.median(values))
        text = f"{unit.capitalize()} of a subject: {low} to {high}, half of the subjects at most {middle:g}."
        pictures.append(picture(name, figure, text, text))
    return pictures


def _intensities(store: SliceStore) -> list[Picture]:
    pictures = []
    for number, sequence in enumerate(counts_by(store, "sequence", "plane")):
        if number == _MOST_ROWS:
            break
        slices = np.flatnonzero(store.table["sequence"] == sequence)
        sample = slices[np.linspace(0, len(slices) - 1, min(len(slices), _SLICES)).round().astype(int)]
        counts = np.zeros(256, dtype=np.int64)
        for start in range(0, len(sample), 64):
            counts += np.bincount(store.images(sample[start : start + 64]).reshape(-1), minlength=256)
        inside = counts[1:] / max(int(counts[1:].sum()), 1)
        share = inside.reshape(-1, 5).sum(axis=1)
        figure, axes = canvas(1.7, 2.3)
        edges = np.arange(1, 257, 5)
        axes.stairs(100 * share, edges, fill=True, color=COLOURS[0], alpha=0.85)
        axes.set_xlim(0, 256)
        axes.set_xticks([0, 128, 255])
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_title(short(sequence), fontsize=10, color=INK, loc="left")
        figure.subplots_adjust(left=0.05, right=0.95, top=0.84, bottom=0.2)
        black, white = counts[0] / counts.sum(), inside[-1]
        text = (
            f"{sequence}: grey levels 1 to 255; {100 * black:.0f}% of all pixels are 0 (air, padding), "
            f"{100 * white:.1f}% of the others 255."
        )
        pictures.append(picture(f"intensity-{number}", figure, text, text))
    return pictures


def neighbour_likeness(store: SliceStore) -> np.ndarray:
    """Correlations of adjacent slices in a volume and plane, in up to 200 volumes."""
    volumes = np.unique(np.linspace(0, len(store.volumes) - 1, _VOLUMES).round().astype(int))
    first = np.searchsorted(store.table["volume"], volumes, side="left")
    last = np.searchsorted(store.table["volume"], volumes, side="right")
    correlations = []
    for start, stop in zip(first.tolist(), last.tolist(), strict=True):
        pictures = thumbnails(store.images(slice(start, stop)))
        for rows in of_planes(store.table["plane"][start:stop].tolist()).values():
            correlations.append(neighbour_correlations(pictures[rows]))
    return np.concatenate(correlations)


def _neighbours(store: SliceStore, max_correlation: float) -> list[Picture]:
    values = neighbour_likeness(store)
    if len(values) < 10:
        return []
    figure, axes = canvas(2.3)
    low = max(0.0, float(np.floor(20 * np.quantile(values, 0.02)) / 20))
    axes.hist(
        np.clip(values, low, 1), bins=np.linspace(low, 1, 41).tolist(), color=COLOURS[0], edgecolor=PAPER
    )
    if max_correlation < 1:
        axes.set_ylim(0, 1.2 * axes.get_ylim()[1])
        axes.axvline(max_correlation, color=COLOURS[1], linewidth=1.4)
        axes.text(
            max_correlation,
            axes.get_ylim()[1],
            f"{max_correlation:g} ",
            color=COLOURS[1],
            ha="right",
            va="top",
        )
    axes.set_xlabel("correlation of neighbours")
    axes.set_ylabel("pairs", color=MUTED)
    axes.set_xlim(low, 1)
    figure.subplots_adjust(left=0.16, right=0.97, top=0.95, bottom=0.25)
    text = (
        f"How similar neighbouring kept slices are: half of the pairs correlate at {np.median(values):.2f} "
        "or less."
    )
    if max_correlation < 1:
        text += f" Above {max_correlation:g}, the second one was left out."
    return [picture("neighbours", figure, text, text)]


def galleries(store: SliceStore, indices_of: dict[str, list[int]]) -> dict[str, list[dict[str, Any]]]:
    """What to show for each plane: picture and description."""
    from mri_transfer.pages.html_pages import data_uri

    return {
        plane: [
            {
                "image": data_uri(pixels, 160),
                "sequence": str(store.table["sequence"][index]),
                "subject": str(store.table["subject"][index]),
                "mm": float(store.table["position_mm"][index]),
            }
            for index, pixels in zip(indices, store.images(indices), strict=True)
        ]
        for plane, indices in indices_of.items()
        if indices
    }
