"""Tumour images that are also pretraining slices."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.datasets.tumors.copies.duplicates import near_duplicates
from mri_transfer.datasets.tumors.copies.thumbnails import thumbnail
from mri_transfer.datasets.tumors.tumors import TumorSet
from mri_transfer.machine.device import cores
from mri_transfer.progress import bar

CHUNK = 1 << 16  # slices held in memory, as 4 KB thumbnails
READ = 1 << 10  # slices read at a time


def leaks_between(tumors: TumorSet, store: SliceStore, threshold: float | None = None) -> list[dict]:
    """Tumour images that a slice store also contains, in any flip or quarter turn.

    Args:
        tumors: the labelled images.
        store: the slices an encoder was or will be pretrained on.
        threshold: least correlation after alignment for a pair to count; None: calibrated on the images.

    Returns:
        One finding per image, with its most similar slice, worst first: {"image", "class", "slice" (row in the store's
        table), "subject", "sequence", "plane", "position_mm", "source", "correlation", "orientation"}; empty without
        leaks.
    """
    if threshold is None:
        threshold = tumors.calibration.threshold
    closest = closest_slices(tumors.thumbs, store)
    images = sorted(
        np.flatnonzero(closest["correlation"] >= threshold), key=lambda n: -closest["correlation"][n]
    )
    return [finding(tumors, store, int(image), closest[image]) for image in images]


def closest_slices(thumbs: np.ndarray, store: SliceStore) -> np.ndarray:
    """The most similar slice for each image.

    Args:
        thumbs: uint8 (n, side, side), from :func:`mri_transfer.datasets.tumors.copies.thumbnails.thumbnail`.

    Returns:
        Structured (n,): "slice" (row in the store's table), "correlation" after alignment, "orientation".
    """
    closest = np.zeros(len(thumbs), [("slice", int), ("correlation", np.float32), ("orientation", int)])
    closest["correlation"] = -1
    for start in bar(range(0, len(store), CHUNK), desc="comparing with slices", unit="chunk"):
        pairs = near_duplicates(thumbs, _thumbnails(store, start, min(start + CHUNK, len(store))))
        # Best first, so the first pair of an image is its best.
        images, first = np.unique(pairs.first, return_index=True)
        better = pairs.correlation[first] > closest["correlation"][images]
        images, first = images[better], first[better]
        closest["slice"][images] = start + pairs.second[first]
        closest["correlation"][images] = pairs.correlation[first]
        closest["orientation"][images] = pairs.orientation[first]
    return closest


def _thumbnails(store: SliceStore, start: int, stop: int) -> np.ndarray:
    with ThreadPoolExecutor(cores()) as pool:
        parts = [
            list(pool.map(thumbnail, store.images(slice(begin, min(begin + READ, stop)))))
            for begin in range(start, stop, READ)
        ]
    return np.concatenate([np.stack(batch) for batch in parts])


def finding(tumors: TumorSet, store: SliceStore, image: int, closest: np.void) -> dict:
    """An image and its most similar slice; see :func:`leaks_between`."""
    row = int(closest["slice"])
    table = store.table
    return {
        "image": tumors.paths[image],
        "class": tumors.classes[tumors.labels[image]],
        "slice": row,
        **{name: str(table[name][row]) for name in ("subject", "sequence", "plane", "source")},
        "position_mm": float(table["position_mm"][row]),
        "correlation": round(float(closest["correlation"]), 4),
        "orientation": int(closest["orientation"]),
    }
