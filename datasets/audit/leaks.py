"""Tumour images that are also pretraining slices."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mri_transfer.datasets.duplicates import (
    CANDIDATE,
    NEAR_DUPLICATE,
    near_duplicates,
    similar_pairs,
    thumbnails,
)
from mri_transfer.datasets.store import SliceStore
from mri_transfer.datasets.tumors import TumorSet
from mri_transfer.device import cores
from mri_transfer.progress import bar

CHUNK = 2048  # slices held at a time


def leaks_between(tumors: TumorSet, store: SliceStore, threshold: float = NEAR_DUPLICATE) -> list[dict]:
    """Tumour images of which a slice store holds the same picture, in any flip or quarter turn.

    Args:
        tumors: the labelled images.
        store: the slices an encoder was or will be pretrained on.
        threshold: correlation after alignment from which on a pair counts.

    Returns:
        One finding an image, its most alike slice, worst first: {"image", "class", "slice" (row in the store's
        table), "subject", "sequence", "plane", "position_mm", "source", "correlation"}; empty if there is no leak.
    """
    found: dict[int, tuple[float, int]] = {}
    starts = range(0, len(store), CHUNK)
    with ThreadPoolExecutor(cores()) as pool:
        for start in bar(starts, desc="comparing with slices", unit="chunk"):
            slices = store.images(slice(start, min(start + CHUNK, len(store))))
            thumbs = np.stack(list(pool.map(thumbnails, slices)))
            candidates = similar_pairs(tumors.thumbs, min(CANDIDATE, threshold), thumbs)
            pairs = near_duplicates(tumors.thumbs, candidates, thumbs, threshold)
            for image, other, correlation in zip(pairs.first, pairs.second, pairs.correlation, strict=True):
                if correlation > found.get(int(image), (-1.0, -1))[0]:
                    found[int(image)] = float(correlation), start + int(other)
    table = store.table
    return [
        {
            "image": tumors.paths[image],
            "class": tumors.classes[tumors.labels[image]],
            "slice": row,
            **{name: str(table[name][row]) for name in ("subject", "sequence", "plane", "source")},
            "position_mm": float(table["position_mm"][row]),
            "correlation": round(correlation, 4),
        }
        for image, (correlation, row) in sorted(found.items(), key=lambda item: (-item[1][0], item[0]))
    ]
