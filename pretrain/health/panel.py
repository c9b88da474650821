"""The slices that health is measured on: chosen once by the seed, spread over subjects, planes and sequences."""

from __future__ import annotations

from typing import Any

import numpy as np

POSITION_BINS = 5


def choose(table: dict[str, np.ndarray], count: int, seed: int) -> np.ndarray:
    """Rows of a store's table, as evenly as it allows over (sequence, plane), and within these over subjects.

    A rare sequence is shown as often as a common one, or with all it has; subjects take turns.

    Args:
        table: of a :class:`~mri_transfer.datasets.store.store.SliceStore`.
        count: how many rows; all if the store has fewer.
        seed: of the choice among equals.

    Returns:
        int64 (count,), in the order of choice: the first m of them are what `count=m` would give.
    """
    kind = _numbered(table["sequence"], table["plane"])
    own = _numbered(kind, table["subject"])
    chance = np.random.default_rng([seed, 0x4EA1]).random(len(kind))
    # The first slice of each subject comes before the second of any.
    turn_of_subject = _turns(own, chance)
    turn_of_kind = _turns(kind, chance, turn_of_subject)
    return np.lexsort((chance, turn_of_kind))[:count].astype(np.int64)


def _numbered(*columns: np.ndarray) -> np.ndarray:
    """A number for every combination of entries."""
    numbers = [np.unique(column, return_inverse=True)[1].reshape(-1) for column in columns]
    combined = numbers[0]
    for more in numbers[1:]:
        combined = combined * (more.max() + 1) + more
    return combined


def _turns(group: np.ndarray, *keys: np.ndarray) -> np.ndarray:
    """The rank of each row within its group, sorted by the last key first, as `numpy.lexsort` does."""
    order = np.lexsort((*keys, group))
    sorted_group = group[order]
    first = np.searchsorted(sorted_group, sorted_group, side="left")
    turns = np.empty(len(group), dtype=np.int64)
    turns[order] = np.arange(len(group)) - first
    return turns


def position_bins(table: dict[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Where along the axis the rows lie, as "1" to "5": fifths of the slices of the same plane in the store.

    Fifths of the slices and not of the length: at the ends of a head few slices are kept.
    """
    plane, position = np.asarray(table["plane"]), np.asarray(table["position"], dtype=np.float64)
    bins = np.empty(len(rows), dtype="<U1")
    for name in np.unique(plane[rows]):
        here = plane[rows] == name
        edges = np.quantile(position[plane == name], np.arange(1, POSITION_BINS) / POSITION_BINS)
        bins[here] = (1 + np.searchsorted(edges, position[rows][here], side="right")).astype(str)
    return bins


def free_labels(table: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, dict[str, Any]]:
    """What is known of slices without anyone's work: how `label_agreement` is to be asked for each.

    Plane and sequence among all slices; the position among slices of the same plane, or it would tell the plane once
    more.
    """
    plane = np.asarray(table["plane"])[rows]
    return {
        "plane": {"labels": plane},
        "sequence": {"labels": np.asarray(table["sequence"])[rows]},
        "position": {"labels": position_bins(table, rows), "within": plane},
    }
