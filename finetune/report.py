"""`report.html`: one self-contained page that gives the answer first and then everything it rests on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer import __version__, pages
from mri_transfer.figures import Picture
from mri_transfer.files import atomic_write
from mri_transfer.finetune import charts, gallery
from mri_transfer.finetune.choices import in_words
from mri_transfer.finetune.looks import Look, looks
from mri_transfer.finetune.results import Predictions
from mri_transfer.finetune.verdict import describe_cell, headline_cell, outcome, points

TEMPLATES = Path(__file__).parent / "templates"
GLYPHS = {"o": "●", "s": "■", "D": "◆", "^": "▲", "v": "▼", "P": "✚", "X": "✖"}


def write_report(
    folder: Path,
    report: dict[str, Any],
    predictions: Predictions,
    images: np.ndarray,
    title: str,
    banner: str | None,
) -> Path:
    """Write `report.html` and `figures/*.svg` into a folder.

    Args:
        folder: exists.
        report: of :func:`mri_transfer.finetune.results.summarise`, and any of "audit", "settings", "arms",
            "versions", "leaks_with_pretraining" and "paths" (file name of each image); a missing one leaves its
            section out.
        predictions: what `report` was made from.
        images: uint8 (n, s, s), the images of the predictions.
        title: of the page.
        banner: a warning for the top of the page, the title and every caption, such as "generated heads, no
            evidence".

    Returns:
        The path of `report.html`.

    Raises:
        OSError: the folder can't be written; an older report stays as it was.
    """
    folder = Path(folder)
    look = looks(report["arm_names"])
    drawn = charts.draw(report, look)
    (folder / "figures").mkdir(exist_ok=True)
    for figures in drawn.values():
        for figure in figures:
            with atomic_write(folder / "figures" / f"{figure.name}.svg") as file:
                file.write(figure.svg + "\n")
    page = render(report, predictions, images, title, banner, look, drawn)
    with atomic_write(folder / "report.html") as file:
        file.write(page)
    return folder / "report.html"


def render(
    report: dict[str, Any],
    predictions: Predictions,
    images: np.ndarray,
    title: str,
    banner: str | None,
    look: dict[str, Look],
    drawn: dict[str, list[Picture]],
) -> str:
    """The page as text; see :func:`write_report`."""
    environment = pages.environment(TEMPLATES)
    environment.filters.update(
        points=points,
        odds=_odds,
        hours=_hours,
        cell=lambda entry: describe_cell(entry["mode"], entry["fraction"]),
    )
    mode, fraction = headline_cell(report["results"])
    verdict = report["verdict"]
    here = {e["arm"]: e for e in report["results"] if (e["mode"], e["fraction"]) == (mode, fraction)}
    galleries = []
    if images is not None and len(images) == predictions.labels.size:
        galleries = _galleries(report, predictions, images, mode, fraction)
    return environment.get_template("report.html.j2").render(
        report=report,
        verdict=verdict,
        here=here,
        title=title,
        banner=banner or "",
        drawn=drawn,
        galleries=galleries,
        audit=_audit(report.get("audit")),
        leak=_leak(report["published"]),
        arms=[_arm(arm) for arm in report.get("arms") or ()],
        settings=_settings(report.get("settings")),
        command=(report.get("settings") or {}).get("command"),
        versions=report.get("versions") or {},
        checked=report.get("leaks_with_pretraining"),
        look={arm: {"colour": each.colour, "glyph": GLYPHS[each.marker]} for arm, each in look.items()},
        outcome=outcome,
        version=__version__,
    )


def _odds(p: float) -> str:
    """A probability from a few thousand draws: never 0 or 100%."""
    return "> 99.9%" if p > 0.999 else "< 0.1%" if p < 0.001 else f"{100 * p:.1f}%"


def _hours(value: float) -> str:
    return f"{60 * value:.0f} min" if value < 2 else f"{value:.1f} h"


def _leak(entries: list[dict[str, Any]]) -> dict[str, Any] | None:
    """How many of the published test images are in the published training set, and what that is worth."""
    if not entries:
        return None
    images, leaked = entries[0]["all"]["images"], entries[0]["leaked"]["images"]
    return {"images": images, "leaked": leaked, "share": leaked / images if images else 0.0}


def _audit(audit: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What happened to the files, as rows for the picture, and the rest of the counts for the table."""
    if not audit:
        return None

    def number(*keys: str) -> int | None:
        for key in keys:
            value = audit.get(key)
            if isinstance(value, Mapping):
                value = value.get("number", value.get("count"))
            if isinstance(value, (list, tuple)):
                value = len(value)
            if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
                return int(value)
        return None

    files, distinct, groups = number("files"), number("distinct"), number("groups")
    skipped, conflicts = number("skipped", "skipped_files"), number("label_conflicts", "conflicts")
    steps = []
    if files and distinct is not None:
        copies = files - distinct - (skipped or 0)
        steps.append(("files in the folder", files, "as published"))
        if skipped:
            steps.append(("unreadable", skipped, "skipped"))
        steps.append(("pixel-identical copies", copies, "dropped: a copy in training and test is a leak"))
        steps.append(("distinct images", distinct, "kept"))
    if groups:
        steps.append(
            (
                "groups",
                groups,
                "near-duplicates and neighbouring slices, never split between training and test",
            )
        )
    known = {"files", "distinct", "groups", "skipped", "label_conflicts", "conflicts"}
    return {
        "files": files,
        "distinct": distinct,
        "copies": (files - distinct - (skipped or 0)) if files and distinct is not None else None,
        "skipped": skipped or 0,
        "groups": groups,
        "groups_from": _groups_from(audit),
        "identical": number("test_identical", "identical_test_images"),
        "test": number("test_files"),
        "near": number("test_near_duplicate", "near_duplicates"),
        "conflicts": conflicts,
        "conflict_list": [c for c in audit.get("label_conflicts") or () if isinstance(c, Mapping)][:12]
        if isinstance(audit.get("label_conflicts"), (list, tuple))
        else [],
        "steps": steps,
        "rest": {
            key: value
            for key, value in _flat(audit)
            if key.split(" · ")[0] not in known and isinstance(value, (int, float, str))
        },
    }


def _groups_from(audit: Mapping[str, Any]) -> str | None:
    """The table that groups were read from, or None where they were inferred."""
    groups = audit.get("groups")
    source = groups.get("from") if isinstance(groups, Mapping) else None
    return None if source in (None, "inferred") else str(source)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Nested dictionaries as "outer · inner" pairs; lists of plain values as text."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name} · ")
        elif isinstance(value, (list, tuple)):
            if not any(isinstance(each, (Mapping, list, tuple)) for each in value):
                yield name, ", ".join(str(each) for each in value)
        elif value is not None and value != "":
            yield name, value


def _settings(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in _flat(settings or {}) if key != "command"}


def _arm(arm: Mapping[str, Any]) -> dict[str, Any]:
    """An arm's provenance: a few facts for people, the rest flattened."""
    provenance = arm.get("provenance") or {}
    data = provenance.get("data") or {}
    digests = arm.get("sha256") or ()
    digests = [digests] if isinstance(digests, str) else list(digests)
    hours = arm.get("hours", _pretraining_seconds(provenance) / 3600)
    facts = [
        ("starts from", arm.get("start") or arm.get("init")),
        ("backbone", arm.get("backbone")),
        ("method", provenance.get("method")),
        ("pretraining slices", data.get("slices")),
        ("pretraining subjects", data.get("subjects")),
        ("steps", provenance.get("steps")),
        ("pretraining time", _hours(hours) if isinstance(hours, (int, float)) and hours > 0 else None),
        ("time in this comparison", _hours(arm["trial_hours"]) if arm.get("trial_hours") else None),
        ("trials that diverged", arm.get("diverged_trials") or None),
        *((f"fine-tuning, {key}", value) for key, value in in_words(arm.get("choices") or {}).items()),
        ("licence", provenance.get("licence") or arm.get("licence")),
        ("weights, SHA-256", f"{digests[0][:16]}…" if len(digests) == 1 else None),
        ("weights", f"{len(digests)}, one for each seed" if len(digests) > 1 else None),
    ]
    return {
        "name": arm.get("name", "?"),
        "facts": [(key, value) for key, value in facts if value not in (None, "", {})],
        "rest": ({"sha256 of the weights": ", ".join(digests)} if digests else {}) | dict(_flat(provenance)),
    }


def _pretraining_seconds(provenance: Mapping[str, Any]) -> float:
    """What an encoder cost, with that of every encoder it started from."""
    total, link = 0.0, provenance
    while isinstance(link, Mapping) and link:
        seconds = link.get("seconds")
        total += seconds if isinstance(seconds, (int, float)) else 0.0
        start = link.get("start")
        link = (start.get("provenance") or {}) if isinstance(start, Mapping) else {}
    return total


def _galleries(
    report: dict[str, Any], predictions: Predictions, images: np.ndarray, mode: str, fraction: float
) -> list[dict[str, Any]]:
    """The images to show, with what every arm said of each."""
    paths = report.get("paths") or ()

    def cards(chosen: list[int]) -> list[dict[str, Any]]:
        return [
            {
                "image": pages.data_uri(images[i]),
                "label": predictions.classes[predictions.labels[i]],
                "name": paths[i] if i < len(paths) else f"image {i}",
                "answers": gallery.answers(predictions, mode, fraction, i),
            }
            for i in chosen
        ]

    found = [
        {
            "title": "Sure, and wrong",
            "text": "The images whose wrong answer was given with the most confidence, averaged over all starts. "
            "What every start gets wrong may be hard, or carry a wrong label.",
            "cards": cards(gallery.mistakes(predictions, mode, fraction)),
        }
    ]
    arm, baseline = report["verdict"]["arm"], report["verdict"].get("baseline")
    if baseline is not None:
        for better, worse in ((arm, baseline), (baseline, arm)):
            found.append(
                {
                    "title": f"{better} right, {worse} wrong",
                    "text": "The clearest cases, at most one from a group.",
                    "cards": cards(gallery.disagreements(predictions, mode, fraction, better, worse)),
                }
            )
    return [each for each in found if each["cards"]]
