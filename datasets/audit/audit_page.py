"""`audit.html`: what is wrong with a set of images, shown with the images themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer import __version__
from mri_transfer.datasets.audit import audit_charts
from mri_transfer.datasets.image_files import read_grey, square
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.datasets.tumors.copies.thumbnails import turned
from mri_transfer.datasets.tumors.layout import published
from mri_transfer.datasets.tumors.persons.originals import figshare_originals
from mri_transfer.datasets.tumors.persons.recognised import origin_tells_class, sentences
from mri_transfer.datasets.tumors.tumors import TumorSet
from mri_transfer.machine.device import versions
from mri_transfer.pages import html_pages
from mri_transfer.storage.files import atomic_write

TEMPLATES = Path(__file__).parent / "templates"
SIDE = 200  # pixels of a picture on the page
PAIRS = 12  # shown of each kind
MARKED = 12  # pictures shown with markings, and of those that look like something else


def write_page(
    path: Path,
    findings: dict[str, Any],
    tumors: TumorSet,
    store: SliceStore | None = None,
    command: str = "",
    banner: str = "",
) -> None:
    """Write the page.

    Args:
        path: the page's.
        findings: from :func:`mri_transfer.datasets.audit.examination.examine`, with "advice" and, given a store,
            "against".
        tumors: the images.
        store: the slices that `findings["against"]` refers to.
        command: the one that made it.
        banner: a warning for the top of the page.
    """
    charts = {
        "threshold": audit_charts.threshold(tumors) if len(tumors.candidates) else None,
        "shortcuts": audit_charts.shortcuts(findings["shortcuts"]),
        "nearest": audit_charts.nearest(findings["nearest"]),
    }
    page = (
        html_pages.environment(TEMPLATES)
        .get_template("audit.html.j2")
        .render(
            findings=findings,
            drawn=charts,
            classes=findings["classes"],
            rows=_by_class(findings, tumors),
            sources=sentences(findings),
            origin=origin_tells_class(findings["sources"]),
            source_conflicts=_source_conflicts(Path(findings["folder"]), findings),
            galleries=_galleries(Path(findings["folder"]), findings),
            marked=_cards(findings, "markings"),
            others=_cards(findings, "others"),
            group=_one_group(Path(findings["folder"]), tumors),
            against=_against(Path(findings["folder"]), findings.get("against"), store),
            command=command,
            banner=banner,
            versions=versions(),
            version=__version__,
        )
    )
    with atomic_write(path) as file:
        file.write(page)


def _by_class(findings: dict[str, Any], tumors: TumorSet) -> list[dict[str, Any]]:
    """One row per class: files, distinct images, and test images that repeat training images."""
    files = Counter(file.label for file in tumors.files)
    _, test = published([file.split for file in tumors.files])
    return [
        {
            "class": name,
            "files": files[label],
            "distinct": findings["distinct_by_class"][name],
            "groups": findings["groups"]["by_class"][name],
            "test": sum(
                file.label == label and tested for file, tested in zip(tumors.files, test, strict=True)
            ),
            "identical": findings["test_identical_by_class"][name],
        }
        for label, name in enumerate(tumors.classes)
    ]


def _picture(folder: Path, name: str, orientation: int = 0) -> str:
    return html_pages.data_uri(
        np.ascontiguousarray(turned(square(read_grey(folder / name), SIDE), orientation))
    )


def _pair(folder: Path, pair: dict[str, Any]) -> dict[str, Any]:
    orientation = pair.get("orientation", 0)
    return {
        **pair,
        "conflict": pair["first_class"] != pair["second_class"],
        "left": _picture(folder, pair["first"]),
        "right": _picture(folder, pair["second"], orientation),
        "turned": orientation != 0,
    }


def _spread(pairs: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """A few evenly spaced items of the list, including the first and the last."""
    if len(pairs) <= count:
        return list(pairs)
    return [pairs[place] for place in np.linspace(0, len(pairs) - 1, count).round().astype(int)]


def _galleries(folder: Path, findings: dict[str, Any]) -> list[dict[str, Any]]:
    """Pairs to inspect, worst first."""
    conflicts = [pair for pair in findings["pairs"] if pair["first_class"] != pair["second_class"]]
    conflicts += [pair for pair in findings["copies"] if pair["first_class"] != pair["second_class"]]
    across = [pair for pair in findings["copies"] if pair["across"]]
    near = sorted(findings["pairs"], key=lambda pair: pair["correlation"])
    parts = [
        (
            "One picture, two labels",
            "At least one of the labels is wrong, or the picture does not show what the class says.",
            conflicts[:PAIRS],
            len(conflicts),
        ),
        (
            "The same file in training and test",
            "Pixel for pixel. A model that remembers the left picture knows the answer for the right one.",
            _spread(across, 6),
            len(across),
        ),
        (
            "Not the same file, but the same picture",
            "Copies that were cropped, resized, compressed, brightened or turned; the least similar first.",
            [*near[: PAIRS // 2], *_spread(near[PAIRS // 2 :], PAIRS // 2)],
            len(near),
        ),
        (
            "Just below the line: not counted as the same",
            "The most similar of the other pairs. If these look like the same picture to you, the line is too high; if "
            "those above do not, it is too low.",
            findings["next_pairs"][: PAIRS // 2],
            None,
        ),
    ]
    return [
        {"title": title, "text": text, "number": number, "pairs": [_pair(folder, pair) for pair in pairs]}
        for title, text, pairs, number in parts
        if pairs
    ]


def _source_conflicts(folder: Path, findings: dict[str, Any]) -> list[dict[str, Any]]:
    """Pictures whose source gives another label, each once, with what the package knows about the original."""
    originals = figshare_originals()
    place = {f"{originals.source} {name}": n for n, name in enumerate(originals.names)}
    cards: dict[str, dict[str, Any]] = {}
    for conflict in findings["source_conflicts"]:
        card = cards.setdefault(
            conflict["source"], conflict | {"files": [], "image": _picture(folder, conflict["file"])}
        )
        card["files"].append(conflict["file"])
        if conflict["source"] in place:
            small = originals.signatures[place[conflict["source"]]]
            card["original"] = html_pages.data_uri(np.kron(small, np.ones((12, 12), np.uint8)))
    return list(cards.values())


def _cards(findings: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Pictures that were flagged, some of every kind, each once."""
    folder, entries = Path(findings["folder"]), findings[key]["files"]
    by_file: dict[str, dict[str, Any]] = {}
    kinds = list(dict.fromkeys(kind for entry in entries for kind in entry["kinds"]))
    for kind in kinds:
        of_kind = [entry for entry in entries if kind in entry["kinds"]]
        for entry in of_kind[: max(2, MARKED // len(kinds))]:
            by_file.setdefault(entry["file"], entry)
    return [{**entry, "image": _picture(folder, entry["file"])} for entry in by_file.values()]


def _one_group(folder: Path, tumors: TumorSet) -> dict[str, Any]:
    """A medium-sized group as an example of images that must stay together."""
    sizes = np.bincount(tumors.groups)
    group = int(np.argmin(np.abs(sizes - 8) + (sizes < 2) * 1000))
    members = np.flatnonzero(tumors.groups == group)[:10]
    return {
        "size": int(sizes[group]),
        "cards": [
            {
                "image": _picture(folder, tumors.paths[n]),
                "file": tumors.paths[n],
                "class": tumors.classes[tumors.labels[n]],
            }
            for n in members
        ],
    }


def _against(folder: Path, against: dict[str, Any] | None, store: SliceStore | None) -> list[dict[str, Any]]:
    """Images beside the most similar slices of a store."""
    if against is None or store is None:
        return []
    entries = [*against["leaks"][: 2 * PAIRS], *against["closest"][: PAIRS // 2]]
    return [
        {
            **entry,
            "leak": place < len(against["leaks"]),
            "left": _picture(folder, entry["image"]),
            "right": html_pages.data_uri(
                np.ascontiguousarray(turned(store.images([entry["slice"]])[0], entry["orientation"])), SIDE
            ),
        }
        for place, entry in enumerate(entries)
    ]
