"""`report.html`: one self-contained page that gives the answer first and then its evidence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mri_transfer import __version__
from mri_transfer.finetune.arms.origins import origins, pretraining_hours
from mri_transfer.finetune.comparison.choices import in_words
from mri_transfer.finetune.comparison.results import Predictions
from mri_transfer.finetune.comparison.verdict import (
    MODES,
    describe_cell,
    headline_cell,
    outcome,
    p_in_words,
    points,
)
from mri_transfer.finetune.planning.plan import times
from mri_transfer.finetune.prediction.activation_pictures import likeness, overlay, where_strongest
from mri_transfer.finetune.report import charts, gallery
from mri_transfer.finetune.report.charts import insight_charts
from mri_transfer.finetune.report.insight import Insight
from mri_transfer.finetune.report.styles import Look, looks
from mri_transfer.pages import html_pages
from mri_transfer.pages.figures import Picture
from mri_transfer.storage.files import atomic_write

TEMPLATES = Path(__file__).parent / "templates"
GLYPHS = {"o": "●", "s": "■", "D": "◆", "^": "▲", "v": "▼", "P": "✚", "X": "✖"}


def write_report(
    folder: Path,
    report: dict[str, Any],
    predictions: Predictions,
    images: np.ndarray,
    title: str,
    banner: str | None,
    insight: Insight | None = None,
) -> Path:
    """Write `report.html` and `figures/` into a folder.

    Args:
        folder: existing.
        report: from :func:`mri_transfer.finetune.comparison.results.summarise`, plus any of "audit", "settings",
            "arms", "versions", "leaks_with_pretraining", "suspicious_labels" and "paths" (file name of each image);
            sections of missing ones are omitted.
        predictions: the source of `report`.
        images: uint8 (n, s, s), the predictions' images.
        title: of the page.
        banner: a warning for the top of the page, the title and every caption, such as "generated heads, no
            evidence".
        insight: content beside scores; see :mod:`mri_transfer.finetune.report.insight`.

    Returns:
        The path of `report.html`.

    Raises:
        OSError: the folder can't be written; an older report stays unchanged.
    """
    folder = Path(folder)
    look, insight = looks(report["arm_names"]), insight or Insight()
    sections = charts.draw(report, look) | insight_charts.draw(insight, report["classes"], look)
    galleries = _galleries(report, predictions, images, insight)
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    names = set()
    for figure in (picture for pictures in sections.values() for picture in pictures):
        names.add(f"{figure.name}.svg")
        with atomic_write(figures / f"{figure.name}.svg") as file:
            file.write(figure.svg + "\n")
    for card in (card for section in galleries for card in section["cards"] if card["strip"] is not None):
        names.add(f"gradcam-{card['index']}.png")
        with atomic_write(figures / f"gradcam-{card['index']}.png", "wb") as file:
            Image.fromarray(card["strip"]).save(file, format="PNG")
    for path in figures.iterdir():  # from an earlier report with other arms or pictures
        if path.suffix in (".svg", ".png") and path.name not in names:
            path.unlink()
    page = render(report, title, banner, look, sections, galleries, insight, images)
    with atomic_write(folder / "report.html") as file:
        file.write(page)
    return folder / "report.html"


def render(
    report: dict[str, Any],
    title: str,
    banner: str | None,
    look: dict[str, Look],
    sections: dict[str, list[Picture]],
    galleries: list[dict[str, Any]],
    insight: Insight,
    images: np.ndarray | None = None,
) -> str:
    """The page as text; see :func:`write_report`."""
    environment = html_pages.environment(TEMPLATES)
    environment.filters.update(
        points=points,
        odds=_odds,
        p_in_words=p_in_words,
        hours=_hours,
        times=times,
        cell=lambda entry: describe_cell(entry["mode"], entry["fraction"]),
    )
    mode, fraction = headline_cell(report["results"])
    verdict = report["verdict"]
    entries = {e["arm"]: e for e in report["results"] if (e["mode"], e["fraction"]) == (mode, fraction)}
    return environment.get_template("report.html.j2").render(
        report=report,
        verdict=verdict,
        here=entries,
        title=title,
        banner=banner or "",
        drawn=sections,
        galleries=galleries,
        suspects=_suspects(report.get("suspicious_labels"), images),
        fields=" or ".join(
            " × ".join(map(str, sides))
            for sides in sorted({maps.shape[1:] for maps in insight.activation.values()})
        ),
        likeness=_likeness(galleries, insight),
        cost=_cost(insight),
        audit=_audit(report.get("audit")),
        leak=_leak(report["published"]),
        arms=[_arm(arm) for arm in report.get("arms") or ()],
        pretrained=_pretrained(report.get("arms") or ()),
        settings=_settings(report.get("settings")),
        command=(report.get("settings") or {}).get("command"),
        versions=report.get("versions") or {},
        checked=report.get("leaks_with_pretraining"),
        look={arm: {"colour": style.colour, "glyph": GLYPHS[style.marker]} for arm, style in look.items()},
        outcome=outcome,
        version=__version__,
    )


def _odds(p: float) -> str:
    """A probability from a few thousand draws: never 0 or 100%."""
    return "> 99.9%" if p > 0.999 else "< 0.1%" if p < 0.001 else f"{100 * p:.1f}%"


def _hours(value: float) -> str:
    return f"{60 * value:.0f} min" if value < 2 else f"{value:.1f} h"


def _leak(entries: list[dict[str, Any]]) -> dict[str, Any] | None:
    """How many published test images are in the published training set, and its effect."""
    if not entries:
        return None
    images, leaked = entries[0]["all"]["images"], entries[0]["leaked"]["images"]
    near, clean = entries[0]["near"]["images"], entries[0]["clean"]["images"]
    return {
        "images": images,
        "leaked": leaked,
        "near": near,
        "clean": clean,
        "share": leaked / images if images else 0.0,
        "parts": [
            ("leak", "copies", leaked),
            ("near", "near-copies", near),
            ("rest", "neither", clean),
        ],
    }


def _audit(audit: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What happened to the files: rows for the picture, and other counts for the table."""
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
    known_keys = {"files", "distinct", "groups", "skipped", "label_conflicts", "conflicts", "sources"}
    return {
        "files": files,
        "distinct": distinct,
        "copies": (files - distinct - (skipped or 0)) if files and distinct is not None else None,
        "skipped": skipped or 0,
        "groups": groups,
        "groups_from": _groups_from(audit),
        "sources": audit.get("sources"),
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
            if key.split(" · ")[0] not in known_keys and isinstance(value, (int, float, str))
        },
    }


def _groups_from(audit: Mapping[str, Any]) -> str | None:
    """The table that groups were read from, or None if inferred."""
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
            if not any(isinstance(item, (Mapping, list, tuple)) for item in value):
                yield name, ", ".join(str(item) for item in value)
        elif value is not None and value != "":
            yield name, value


def _settings(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in _flat(settings or {}) if key != "command"}


def _arm(arm: Mapping[str, Any]) -> dict[str, Any]:
    """An arm's provenance: a few facts for people, the rest flattened."""
    provenance = arm.get("provenance") or {}
    digests = arm.get("sha256") or ()
    digests = [digests] if isinstance(digests, str) else list(digests)
    encoders = arm.get("encoders") or {}
    hours = sum(pretraining_hours(encoder) for encoder in encoders.values()) or pretraining_hours(provenance)
    facts = [
        ("starts from", arm.get("start") or arm.get("init")),
        ("backbone", arm.get("backbone")),
        ("pretraining time", _hours(hours) if hours > 0 else None),
        ("time in this comparison", _hours(arm["trial_hours"]) if arm.get("trial_hours") else None),
        ("trials that diverged", arm.get("diverged_trials") or None),
        *((f"fine-tuning, {key}", value) for key, value in in_words(arm.get("choices") or {}).items()),
        ("weights, SHA-256", f"{digests[0][:16]}…" if len(digests) == 1 else None),
        ("weights", f"{len(digests)}, one for each {_replicate(arm)}" if len(digests) > 1 else None),
    ]
    return {
        "name": arm.get("name", "?"),
        "facts": [(key, value) for key, value in facts if value not in (None, "", {})],
        "origins": [
            step | {"hours": _hours(step["hours"]) if step["hours"] else None} for step in origins(provenance)
        ],
        "rest": ({"sha256 of the weights": ", ".join(digests)} if digests else {}) | dict(_flat(provenance)),
    }


def _replicate(arm: Mapping[str, Any]) -> str:
    """What an arm has one encoder per: seed or split."""
    return "fold" if "{fold}" in str(arm.get("start")) else "seed"


def _pretrained(arms: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Names of arms pretrained "once" and of those pretrained "anew" for each seed; "" for none."""
    of_runs = [arm for arm in arms if arm.get("kind") == "encoder" and "{fold}" not in str(arm.get("start"))]
    several = {str(arm.get("name")): len(arm.get("encoders") or ()) > 1 for arm in of_runs}
    return {
        "once": ", ".join(name for name, anew in several.items() if not anew),
        "anew": ", ".join(name for name, anew in several.items() if anew),
    }


def _cost(insight: Insight) -> dict[str, Any] | None:
    """Table of every arm's hours: modes in columns, and the sum."""
    if not insight.cost:
        return None
    modes = list(dict.fromkeys(mode for entry in insight.cost for mode in entry["hours"]))
    rows = []
    for entry in insight.cost:
        pretraining, hours = entry["pretraining_hours"], [entry["hours"].get(mode) for mode in modes]
        total = pretraining + sum(value or 0.0 for value in hours)
        cells = [None if value is None else _hours(value) for value in (pretraining or None, *hours, total)]
        rows.append({"arm": entry["arm"], "cells": cells})
    return {"modes": [MODES.get(mode, mode) for mode in modes], "rows": rows}


def _galleries(
    report: dict[str, Any], predictions: Predictions, images: np.ndarray | None, insight: Insight
) -> list[dict[str, Any]]:
    """The images to show, with every arm's answer and class activation map."""
    if images is None or len(images) != predictions.labels.size:
        return []
    paths, verdict = report.get("paths") or (), report["verdict"]
    mode, fraction = verdict["mode"], verdict["fraction"]

    def card(index: int) -> dict[str, Any]:
        answers, strip = gallery.answers(predictions, mode, fraction, index), [images[index]]
        for answer in answers:
            activation = insight.activation.get((answer["arm"], index))
            answer |= {"image": None, "place": None}
            if activation is not None:
                overlaid = overlay(images[index], activation[answer["class"]])
                strip.append(overlaid)
                answer |= {
                    "image": html_pages.data_uri(overlaid, 160),
                    "place": where_strongest(activation[answer["class"]]),
                }
        return {
            "index": index,
            "image": html_pages.data_uri(images[index]),
            "label": predictions.classes[predictions.labels[index]],
            "name": paths[index] if index < len(paths) else f"image {index}",
            "answers": answers,
            "strip": np.concatenate([_coloured(picture) for picture in strip], axis=1)
            if len(strip) > 1
            else None,
        }

    return [
        {"title": section.title, "text": section.text, "cards": [card(index) for index in section.images]}
        for section in gallery.sections(predictions, mode, fraction, verdict["arm"], verdict.get("baseline"))
    ]


def _likeness(galleries: list[dict[str, Any]], insight: Insight) -> float | None:
    """Similarity of the page's maps; see :func:`~.activation_pictures.likeness`."""
    cards = {
        (answer["arm"], card["index"]): answer["class"]
        for section in galleries
        for card in section["cards"]
        for answer in card["answers"]
    }
    return likeness(
        (start, answer, insight.activation[start, index][answer])
        for (start, index), answer in cards.items()
        if (start, index) in insight.activation
    )


def _suspects(suspects: dict[str, Any] | None, images: np.ndarray | None) -> dict[str, Any] | None:
    """Pictures with suspicious labels, for the page, or None."""
    if not suspects or not suspects["shown"] or images is None:
        return None
    first = [suspects["first"][place - 1] for place in suspects["shown"]]
    cards = [entry | {"image": html_pages.data_uri(images[entry["index"]])} for entry in first]
    return {**suspects, "cards": cards, "setting": describe_cell(suspects["mode"], suspects["fraction"])}


def _coloured(image: np.ndarray) -> np.ndarray:
    return np.repeat(image[..., None], 3, axis=-1) if image.ndim == 2 else image
