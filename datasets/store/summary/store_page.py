"""`summary.html`: one self-contained page that shows a slice store's content and what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer import __version__
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.datasets.store.summary.contact_sheet import choose
from mri_transfer.datasets.store.summary.people_table import range_text
from mri_transfer.datasets.store.summary.store_charts import counts_by, draw, galleries
from mri_transfer.datasets.store.summary.store_summary import by_reason
from mri_transfer.datasets.volumes.planes import PLANES
from mri_transfer.pages.html_pages import environment
from mri_transfer.storage.files import atomic_write

TEMPLATES = Path(__file__).parent / "templates"
_SHOWN = 16  # slices of a plane
_MOST_FILES = 1000  # files named per reason; the rest are in summary.json
_MOST_SOURCES = 40


def write_page(
    store: SliceStore,
    summary: dict[str, Any],
    licences: Sequence[dict[str, str]],
    path: Path,
    banner: str = "",
) -> None:
    """Write the page.

    Args:
        store: the slices.
        summary: from the command `slices`.
        licences: from :func:`mri_transfer.datasets.extraction.licences.find_licences`.
        path: the page's.
        banner: a notice at the top, such as that the heads were generated.
    """
    limit = float(store.manifest["settings"].get("max_correlation", 1.0))
    templates = environment(TEMPLATES)
    templates.filters["range_text"] = range_text
    page = templates.get_template("collection.html.j2").render(
        summary=summary,
        people=summary["people"],
        most_rows=_MOST_SOURCES,
        banner=banner,
        megabytes=len(store) * store.size**2 / 1e6,
        limit=limit,
        drawn=draw(store, limit),
        sources=_sources(store),
        sequences=sorted(summary["by_sequence"].items(), key=lambda item: -item[1]),
        galleries=galleries(store, {plane: choose(store, plane, _SHOWN) for plane in (*PLANES, "unknown")}),
        skipped=by_reason(summary["skipped"]),
        notes=by_reason(summary["notes"], "note"),
        most_files=_MOST_FILES,
        licences=licences,
        versions=store.manifest["versions"],
        version=__version__,
    )
    with atomic_write(path) as file:
        file.write(page)


def _sources(store: SliceStore) -> dict[str, Any]:
    """Each collection with its sequences, and their numbers of scans, subjects and slices."""
    slices = np.bincount(store.table["volume"], minlength=len(store.volumes))
    totals: dict[tuple[str, str], dict[str, Any]] = {}
    for number, volume in enumerate(store.volumes):
        key = (volume["source"].split("/")[0], volume["sequence"])
        row = totals.setdefault(key, {"scans": 0, "slices": 0, "subjects": set()})
        row["scans"] += 1
        row["slices"] += int(slices[number])
        row["subjects"].add(volume["subject"])
    rows = [
        {"source": source, "sequence": sequence, **row, "subjects": len(row["subjects"])}
        for (source, sequence), row in sorted(
            totals.items(), key=lambda item: (item[0][0], -item[1]["slices"])
        )
    ]
    return {
        "rows": rows[:_MOST_SOURCES],
        "more": len(rows) - _MOST_SOURCES,
        "planes": counts_by(store, "plane", "sequence"),
    }
