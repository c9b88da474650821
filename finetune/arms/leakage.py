"""Were tumour images among an encoder's pretraining slices? Checked before any number is printed.

An encoder shared by all folds may have been pretrained on anything: tumour images among its slices are counted and
reported. A fold's own encoder was pretrained on images of this very set, so it is refused unless none of its fold's
test images is shown to be among them.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer import progress
from mri_transfer.datasets.audit.leaks import closest_slices, leaks_between
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.datasets.tumors.tumors import TumorSet
from mri_transfer.errors import UserError
from mri_transfer.finetune.arms.arms import Arm
from mri_transfer.finetune.arms.origins import chain
from mri_transfer.finetune.data.protocol import Split
from mri_transfer.storage.files import wrong_fields

READ = 1024  # slices read at a time
UNKNOWN = {
    kind: f"{noun} doesn't say what it was trained on, so its training images may be among these"
    for kind, noun in (
        ("network", "your own network"),
        ("weights", "a file of weights"),
        ("features", "a table of features"),
    )
}


def pretraining_stores(card: dict[str, Any]) -> list[tuple[Path, str | None]]:
    """Path and recorded fingerprint of every store that an encoder, or its own start, has seen."""
    return [
        (Path(store), (link.get("data") or {}).get("fingerprint"))
        for link in chain(card.get("provenance"))
        if (store := (link.get("config") or {}).get("store"))
    ]


def audited(card: dict[str, Any]) -> str:
    """A published encoder's recorded audit of its slices, which aren't included; "" for others."""
    audit: Any = ((card.get("provenance") or {}).get("published") or {}).get("audit")
    if wrong_fields(audit, {"shared": int, "pictures": int}):
        return ""
    return (
        f"its slices don't come with it; when it was published, {audit['shared'] or 'none'} of the "
        f"{audit['pictures']:,} distinct pictures of the public tumour set "
        f"{'was' if audit['shared'] < 2 else 'were'} among them"
    )


def open_stores(against: Sequence[Path], arms: Sequence[Arm]) -> tuple[dict[str, SliceStore], list[str]]:
    """The stores to check, and a sentence for each that can't be checked.

    Args:
        against: named by the user; each must open. By default, the stores in the encoders' provenance.
        arms: whose encoders are checked.

    Raises:
        UserError: a named store is missing or damaged.
    """
    if against:
        by_path = {str(path): SliceStore.open(path) for path in against}
        for store in by_path.values():
            store.check_pixels()
        return by_path, []
    stores: dict[str, SliceStore] = {}
    unchecked = []
    for arm in arms:
        if arm.kind in UNKNOWN:
            unchecked.append(f"{arm.name}: {UNKNOWN[arm.kind]}")
        if arm.kind != "encoder" or arm.per_split:  # the weights' scale contains no image
            continue
        if sentences := [sentence for card in arm.cards.values() if (sentence := audited(card))]:
            unchecked += [f"{arm.name}: {sentence}" for sentence in sentences]
            continue
        of_encoders = [pretraining_stores(card) for card in arm.cards.values()]
        if not all(of_encoders):
            unchecked.append(f"{arm.name}: its card does not say which slices it was pretrained on")
        pairs = list(dict.fromkeys(itertools.chain.from_iterable(of_encoders)))
        for path, fingerprint in pairs:
            if str(path) in stores:
                continue
            try:
                store = SliceStore.open(path)
            except UserError:
                unchecked.append(f"{arm.name}: its slice store {path} is not here (name it with --against)")
                continue
            try:
                store.check_pixels()
            except UserError as error:
                unchecked.append(f"{arm.name}: {error}")
                continue
            if fingerprint not in (None, store.fingerprint):
                unchecked.append(f"{arm.name}: its slice store {path} has changed since")
            stores[str(path)] = store
    return stores, unchecked


def check(tumors: TumorSet, stores: dict[str, SliceStore], unchecked: Sequence[str]) -> dict[str, Any]:
    """Look for every tumour image among the slices of every store.

    Returns:
        {"images", "stores": {path: {"slices", "fingerprint", "leaks": from leaks_between}}, "leaked_images",
        "not_checked": sentences}.
    """
    by_store: dict[str, dict[str, Any]] = {}
    for path, store in stores.items():
        leaks = leaks_between(tumors, store)
        by_store[path] = {"slices": len(store), "fingerprint": store.fingerprint, "leaks": leaks}
        if leaks:
            progress.say(
                f"warning: {len(leaks)} of these images are also slices of {path}; encoders pretrained on it have "
                "seen them, so their scores may be too high"
            )
    for sentence in unchecked:
        progress.say(f"not checked for leaks: {sentence}")
    leaked = {leak["image"] for entry in by_store.values() for leak in entry["leaks"]}
    return {
        "images": len(tumors),
        "stores": by_store,
        "leaked_images": len(leaked),
        "not_checked": list(unchecked),
    }


def check_splits(tumors: TumorSet, arms: Sequence[Arm], splits: Iterable[Split]) -> dict[str, dict[str, Any]]:
    """Ensure that no split's encoder has seen that split's test images.

    Args:
        tumors: the images.
        arms: all of them; only those with an encoder per split are checked.
        splits: the grouped protocol's.

    Returns:
        {name: {"encoders", "stores", "test_images_found": 0}} for each such arm.

    Raises:
        UserError: an encoder's card names no store, or the store is gone, changed, or holds a test image.
    """
    # Fractions of a fold share its test images and encoder.
    folds = list({(split.seed, split.fold): split for split in splits}.values())
    checked: dict[str, dict[str, Any]] = {}
    for arm in arms:
        if not arm.per_split:
            continue
        stores = 0
        for split in progress.bar(folds, desc=f"leaks of {arm.name}", unit="split"):
            stores += _check_split(tumors, arm, split)
        checked[arm.name] = {"encoders": len(folds), "stores": stores, "test_images_found": 0}
    return checked


def _check_split(tumors: TumorSet, arm: Arm, split: Split) -> int:
    path = arm.path(split.seed, split.fold)
    place = f"--arm {arm.name}: {path}"
    stores = pretraining_stores(arm.cards[path])
    if not stores:
        raise UserError(f"{place}: does not say what it was pretrained on, so a leak can't be ruled out")
    for folder, fingerprint in stores:
        try:
            store = SliceStore.open(folder)
            store.check_pixels()
        except UserError as error:
            raise UserError(
                f"{place}: a leak can't be ruled out without the slices it was pretrained on ({error})"
            ) from None
        if fingerprint != store.fingerprint:
            raise UserError(
                f"{place}: its slice store {folder} has changed since, so a leak can't be ruled out; pretrain again"
            )
        if leaked := test_images_in(tumors, split, store):
            raise UserError(
                f"{place}: {len(leaked)} test images of seed {split.seed}, fold {split.fold} are among its pretraining "
                f"slices in {folder}, the first {tumors.paths[leaked[0]]}; pretrain on the store of this very fold, "
                "which --target-stores writes"
            )
    return len(stores)


def test_images_in(tumors: TumorSet, split: Split, store: SliceStore) -> list[int]:
    """A split's test images in a store: identical pixels, or the same picture.

    A slice pixel-identical to a training image can't be a test image: near-duplicates are in one group, so on one side
    of the split.
    """
    number = {hashlib.sha256(image.tobytes()).digest(): n for n, image in enumerate(tumors.images)}
    image_of_slice = np.full(len(store), -1)
    for start in range(0, len(store), READ):
        rows = slice(start, min(start + READ, len(store)))
        image_of_slice[rows] = [
            number.get(hashlib.sha256(image.tobytes()).digest(), -1) for image in store.images(rows)
        ]
    leaked = set(np.intersect1d(split.test, image_of_slice).tolist())
    if (image_of_slice < 0).any():
        closest = closest_slices(tumors.thumbs[split.test], store)
        close = closest["correlation"] >= tumors.calibration.threshold
        leaked |= set(split.test[close & (image_of_slice[closest["slice"]] < 0)].tolist())
    return sorted(leaked)


def described(checked: dict[str, Any]) -> dict[str, str]:
    """The finding in words, for the report."""
    lines = {
        path: f"{len(entry['leaks'])} of {checked['images']} tumour images found among {entry['slices']} slices"
        for path, entry in checked["stores"].items()
    }
    for name, entry in checked.get("splits", {}).items():
        lines[name] = f"{entry['encoders']} encoders, none of which has seen a test image of its fold"
    if not lines and not checked["not_checked"]:
        return {"pretraining data": "no arm was pretrained on slices, so there was nothing to check"}
    return lines | {f"not checked {n}": text for n, text in enumerate(checked["not_checked"], 1)}
