"""All findings of the audit, as one dictionary for `audit.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer.datasets.audit.leaks import closest_slices, finding
from mri_transfer.datasets.audit.markings import find_markings
from mri_transfer.datasets.audit.measure import measure
from mri_transfer.datasets.audit.modality import find_others
from mri_transfer.datasets.audit.nearest_pixels import leak_alarm
from mri_transfer.datasets.audit.shortcuts import find_shortcuts
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.datasets.tumors.tumors import TumorSet

CLOSEST = 12  # pairs below the threshold, and slices of a store, listed although not the same picture


def examine(folder: Path, tumors: TumorSet) -> dict[str, Any]:
    """The faults of a set of images, including copies and groups.

    Args:
        folder: the images' folder.
        tumors: as loaded from it.

    Returns:
        JSON-able: what `tumors.audit` holds, "folder", "classes", "fingerprint", "copies", "pairs" (of the same
        picture), "next_pairs" (the most similar that are not), "shortcuts", "markings", "others" and "nearest", each as
        its module describes.
    """
    files, image_of = tumors.files, tumors.image_of
    labels = np.array([file.label for file in files], dtype=int)
    splits = np.array([file.split for file in files])
    groups = tumors.groups[image_of]
    measurements = measure(folder, files)
    below = np.flatnonzero(tumors.candidates.correlation < tumors.calibration.threshold)
    return {
        "folder": str(folder),
        "classes": list(tumors.classes),
        **tumors.audit,
        "fingerprint": tumors.fingerprint,
        "copies": _copies(tumors),
        "pairs": _pairs(tumors, slice(len(tumors.near))),  # candidates come best first
        "next_pairs": _pairs(tumors, below[:CLOSEST]),
        "shortcuts": find_shortcuts(measurements, labels, groups, splits, tumors.classes),
        "markings": find_markings(measurements, files, tumors.classes),
        "others": find_others(measurements, files, tumors.classes),
        "nearest": leak_alarm(measurements.small, labels, image_of, groups, splits, tumors.classes),
    }


def _copies(tumors: TumorSet) -> list[dict[str, Any]]:
    """Files dropped because another has the same pixels; those across splits first.

    Classes are those of the folders: the source's labels would make copies look contradictory.
    """
    copies = []
    for file, image in zip(tumors.files, tumors.image_of, strict=True):
        if file.path != tumors.paths[image]:
            first_class = tumors.classes[tumors.folder_labels[image]]
            original = {"first": tumors.paths[image], "first_class": first_class}
            copy = {"second": file.path, "second_class": tumors.classes[file.label]}
            copies.append(original | copy | {"across": bool(file.split != tumors.split[image])})
    return sorted(copies, key=lambda pair: not pair["across"])


def _pairs(tumors: TumorSet, positions: Any) -> list[dict[str, Any]]:
    pairs = []
    for first, second, correlation, orientation in zip(
        *(field[positions] for field in tumors.candidates.fields()), strict=True
    ):
        pairs.append(
            {
                "first": tumors.paths[first],
                "first_class": tumors.classes[tumors.folder_labels[first]],
                "second": tumors.paths[second],
                "second_class": tumors.classes[tumors.folder_labels[second]],
                "correlation": round(float(correlation), 4),
                "orientation": int(orientation),
                "across": bool(tumors.split[first] != tumors.split[second]),
                "one_group": bool(tumors.groups[first] == tumors.groups[second]),
            }
        )
    return pairs


def examine_against(tumors: TumorSet, store: SliceStore) -> dict[str, Any]:
    """The images that a slice store contains, and those closest to it without being in it.

    Returns:
        JSON-able: "store", "fingerprint", "slices", "leaks" and "closest" (of the others), each a list of findings as
        from :func:`mri_transfer.datasets.audit.leaks.leaks_between`.
    """
    closest = closest_slices(tumors.thumbs, store)
    order = np.argsort(-closest["correlation"], kind="stable")
    leaking = closest["correlation"][order] >= tumors.calibration.threshold
    return {
        "store": str(store.folder),
        "fingerprint": store.fingerprint,
        "slices": len(store),
        "leaks": [finding(tumors, store, int(n), closest[n]) for n in order[leaking]],
        "closest": [finding(tumors, store, int(n), closest[n]) for n in order[~leaking][:CLOSEST]],
    }
