"""`run.html`: one self-contained page that shows a run's progress, during the night and after it."""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer import __version__
from mri_transfer.datasets.store.summary.store_summary import SUMMARY, licences_in
from mri_transfer.evaluation.neighbours import nearest
from mri_transfer.machine import device
from mri_transfer.options import as_dict
from mri_transfer.pages.html_pages import data_uri, environment
from mri_transfer.pretrain.health import run_charts
from mri_transfer.pretrain.health.embedding_map import pca, tsne
from mri_transfer.pretrain.health.panel import Panel
from mri_transfer.pretrain.health.run_verdict import Verdict
from mri_transfer.pretrain.methods import METHODS
from mri_transfer.storage.files import atomic_write, object_or_none
from mri_transfer.words import hours_minutes_seconds

TEMPLATES = Path(__file__).parent / "templates"
_PAIRS, _VIEWS_EACH = 4, 4
_QUERIES, _NEIGHBOURS = 6, 4
# Runs of at least this many seconds get the slower, better map.
LONG_RUN = 1800.0
Line = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class RunSnapshot:
    """The page's content.

    Attributes:
        config: the run's settings.
        store: its slices.
        panel: the slices that are measured.
        lines: of metrics.jsonl, oldest first.
        verdict: on them.
        before: features of the panel at the start, (n, d); None if lost.
        after: features now; None if not finite.
        final: whether the run is over.
        start: origin of the weights, in words.
        derived: by name, values used for settings that were not given.
        shares: of the time, by activity.
        events: interruptions, in words.
    """

    config: Any
    store: Any
    panel: Panel
    lines: Sequence[Line]
    verdict: Verdict
    before: np.ndarray | None
    after: np.ndarray | None
    final: bool
    start: str
    derived: Mapping[str, Any]
    shares: Mapping[str, float]
    events: Sequence[str]


def write_page(path: Path, snapshot: RunSnapshot) -> None:
    """Write the page, atomically.

    Raises:
        OSError: the folder can't be written; an older page stays unchanged.
    """
    page = render(snapshot)
    with atomic_write(path) as file:
        file.write(page)


def render(snapshot: RunSnapshot) -> str:
    """The page as text."""
    config, lines = snapshot.config, snapshot.lines
    last = lines[-1] if lines else {}
    data, now = _about_the_store(snapshot.store), datetime.datetime.now()
    layout = tsne if snapshot.final and last.get("seconds", 0) >= LONG_RUN else pca
    templates = environment(TEMPLATES)
    templates.filters.update(duration=hours_minutes_seconds)
    return templates.get_template("run.html.j2").render(
        title=config.out.name or "run",
        state=snapshot.verdict.state,
        sentence=_without(snapshot.verdict.state, snapshot.verdict.sentence),
        banner=config.banner or data["banner"],
        final=snapshot.final,
        written=f"{now:%A} {now.day} {now:%B %Y, %H:%M}",
        last=last,
        config=config,
        method=METHODS[config.method].made.TITLE,
        start=snapshot.start,
        budget=_budget(config),
        drawn=run_charts.draw(lines),
        views=_views(snapshot),
        neighbours=_neighbours(snapshot),
        maps=_maps(snapshot, layout),
        layout="t-SNE" if layout is tsne else "PCA",
        dots=min(run_charts.MOST_DOTS, len(snapshot.panel.rows)),
        panel=len(snapshot.panel.rows),
        shares=[(name, share) for name, share in snapshot.shares.items() if share >= 0.0005],
        events=snapshot.events,
        hardware=_hardware(lines),
        data=data,
        settings=_settings(snapshot),
        versions=device.versions(),
        cores=device.cores(),
        version=__version__,
    )


def _without(state: str, sentence: str) -> str:
    """The sentence below the state's heading, with its options as code."""
    rest = re.sub(r"--[a-z][a-z-]*", r"`\g<0>`", sentence.removeprefix(f"{state}: "))
    return rest[:1].upper() + rest[1:]


def _settings(snapshot: RunSnapshot) -> dict[str, str]:
    """All settings in words, by name; for those not given, also the value used instead."""
    words = {}
    for key, value in as_dict(snapshot.config).items():
        if key in ("banner", "preview"):
            continue
        derived = snapshot.derived.get(key) if value is None else None
        words[key] = _setting(value) if derived is None else f"{_setting(derived)} (not given)"
    return words


def _setting(value: Any) -> str:
    if value is None or value == []:
        return "not given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _budget(config: Any) -> str:
    if config.steps is not None:
        return f"{config.steps:,} steps"
    if getattr(config, "until", None) is not None:
        return f"until {config.until}"
    return hours_minutes_seconds(config.seconds or 0)


def _about_the_store(store: Any) -> dict[str, Any]:
    """The data's licences, and whether the data are real, from the store's own summary."""
    summary = object_or_none(store.folder / SUMMARY) or {}  # the store works without it
    return {
        "counts": {
            "slices": len(store),
            "subjects": len(set(store.table["subject"].tolist())),
            **{f"by_{name}": _counted(store.table[name]) for name in ("plane", "sequence")},
        },
        "sources": sorted({str(volume["source"]).split("/")[0] for volume in store.volumes})[:40],
        "licences": licences_in(summary),
        "banner": str(summary.get("banner") or ""),
    }


def _counted(names: np.ndarray) -> dict[str, int]:
    """How many slices each name has; from the table, because nothing vouches for the manifest's own counts."""
    return dict(sorted(Counter(names.tolist()).items()))


def _caption(table: Mapping[str, np.ndarray], row: int) -> dict[str, str]:
    plane = str(table["plane"][row])
    place = "" if plane == "unknown" else f", {float(table['position_mm'][row]):.0f} mm"
    return {
        "label": f"{table['sequence'][row] or 'unknown'}, {plane}{place}",
        "subject": str(table["subject"][row]),
    }


def _views(snapshot: RunSnapshot) -> list[dict[str, Any]]:
    """Pairs as training sees them: each slice and its views."""
    from mri_transfer.pretrain.health.preview import sample_views

    config = dataclasses.replace(snapshot.config, size=snapshot.panel.size)
    samples = sample_views(snapshot.store, config, _PAIRS, _VIEWS_EACH)
    return [
        {
            side: {
                "slice": data_uri(samples[side][i], 110),
                "views": [data_uri(view, 110) for view in samples[f"views_{side}"][i]],
                **_caption(snapshot.store.table, int(samples[f"index_{side}"][i])),
            }
            for side in "ab"
        }
        for i in range(_PAIRS)
    ]


def _neighbours(snapshot: RunSnapshot) -> list[dict[str, Any]]:
    """A few slices, each of another kind, with their nearest from other subjects: at the start, and now."""
    panel, table = snapshot.panel, snapshot.store.table
    others = panel.subject[:, None] != panel.subject[None, :]
    nearest_of = {}
    for when, features in (("start", snapshot.before), ("now", snapshot.after)):
        if features is not None:
            nearest_of[when] = nearest(features, others, _NEIGHBOURS)

    def card(index: int) -> dict[str, Any]:
        return {"image": data_uri(panel.images[index], 120), **_caption(table, int(panel.rows[index]))}

    return [
        {
            "query": card(i),
            "nearest": {
                when: [
                    card(j)
                    | {
                        "same": {
                            name: bool(question["labels"][i] == question["labels"][j])
                            for name, question in panel.labels.items()
                        }
                    }
                    for j in rows[i].tolist()
                    if j >= 0
                ]
                for when, rows in nearest_of.items()
            },
        }
        for i in range(min(_QUERIES, len(panel.rows)))
    ]


def _maps(snapshot: RunSnapshot, layout: Any) -> dict[str, Any]:
    if snapshot.after is None:
        return {}
    labels = {name: question["labels"] for name, question in snapshot.panel.labels.items()}
    labels = {name: values for name, values in labels.items() if len(set(values.tolist())) > 1}
    dots = slice(0, run_charts.MOST_DOTS)
    before = None if snapshot.before is None else layout(snapshot.before[dots])
    return run_charts.maps(
        before, layout(snapshot.after[dots]), {name: values[dots] for name, values in labels.items()}
    )


def _hardware(lines: Sequence[Line]) -> list[tuple[str, str]]:
    """Summary of the machine's readings over the run."""
    facts = []
    for key, name, unit in (
        ("temperature_c", "temperature", "°C"),
        ("cpu_mhz", "clock", "MHz"),
        ("power_w", "power", "W"),
    ):
        values = [line[key] for line in lines if isinstance(line.get(key), (int, float))]
        if values:
            facts.append((name, f"{min(values):.0f} to {max(values):.0f} {unit}"))
    throttled = [line["throttled"] for line in lines if "throttled" in line]
    if throttled:
        facts.append(("throttled", f"in {sum(map(bool, throttled))} of {len(throttled)} readings"))
    modes = sorted({str(line["power_mode"]) for line in lines if line.get("power_mode")})
    if modes:
        facts.append(("power mode", ", ".join(modes)))
    return facts
