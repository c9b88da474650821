"""Are tumour images among the slices that an encoder was pretrained on? Asked before any number is printed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mri_transfer import progress
from mri_transfer.datasets.audit.leaks import leaks_between
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.datasets.tumors.tumors import TumorSet
from mri_transfer.errors import UserError
from mri_transfer.finetune.arms import Arm


def pretraining_stores(arm: Arm) -> list[tuple[Path, str | None]]:
    """Path and recorded fingerprint of every store that an arm's encoder has seen, its own start's included."""
    found, provenance = [], arm.card.get("provenance")
    while isinstance(provenance, dict) and provenance:
        store = (provenance.get("config") or {}).get("store")
        if store:
            found.append((Path(store), (provenance.get("data") or {}).get("fingerprint")))
        provenance = (provenance.get("start") or {}).get("provenance")
    return found


def open_stores(against: Sequence[Path], arms: Sequence[Arm]) -> tuple[dict[str, SliceStore], list[str]]:
    """The stores to check, and a sentence for each that can't be.

    Args:
        against: named by the user; each must open. Without any, the stores that the encoders' provenance names.
        arms: whose encoders are asked.

    Raises:
        UserError: a named store is missing or damaged.
    """
    if against:
        return {str(path): SliceStore.open(path) for path in against}, []
    stores: dict[str, SliceStore] = {}
    unchecked = []
    for arm in arms:
        seen = pretraining_stores(arm)
        if arm.card and not seen:
            unchecked.append(f"{arm.name}: its card does not say which slices it was pretrained on")
        for path, fingerprint in seen:
            if str(path) in stores:
                continue
            try:
                store = SliceStore.open(path)
            except UserError:
                unchecked.append(f"{arm.name}: its slice store {path} is not here (name it with --against)")
                continue
            if fingerprint not in (None, store.fingerprint):
                unchecked.append(f"{arm.name}: its slice store {path} has changed since")
            stores[str(path)] = store
    return stores, unchecked


def check(tumors: TumorSet, stores: dict[str, SliceStore], unchecked: Sequence[str]) -> dict[str, Any]:
    """Look for every tumour image among the slices of every store.

    Returns:
        {"images", "stores": {path: {"slices", "fingerprint", "leaks": as of leaks_between}}, "leaked_images",
        "not_checked": sentences}.
    """
    found: dict[str, dict[str, Any]] = {}
    for path, store in stores.items():
        leaks = leaks_between(tumors, store)
        found[path] = {"slices": len(store), "fingerprint": store.fingerprint, "leaks": leaks}
        if leaks:
            progress.say(
                f"warning: {len(leaks)} tumour images are also slices of {path}; encoders pretrained on it have "
                "seen them, so their scores may be too high"
            )
    for sentence in unchecked:
        progress.say(f"not checked for leaks: {sentence}")
    leaked = {leak["image"] for entry in found.values() for leak in entry["leaks"]}
    return {
        "images": len(tumors),
        "stores": found,
        "leaked_images": len(leaked),
        "not_checked": list(unchecked),
    }


def described(checked: dict[str, Any]) -> dict[str, str]:
    """The finding in words, for the report's page."""
    lines = {
        path: f"{len(entry['leaks'])} of {checked['images']} tumour images found among {entry['slices']} slices"
        for path, entry in checked["stores"].items()
    }
    if not lines and not checked["not_checked"]:
        return {"pretraining data": "no arm was pretrained on slices, so there was nothing to check"}
    return lines | {f"not checked {n}": text for n, text in enumerate(checked["not_checked"], 1)}
