"""Groups by number: map any names or numbers to 0, 1, 2, ..."""

from __future__ import annotations

import numpy as np


def numbered(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number values (n,) in order of first appearance, so that renaming them changes nothing.

    Returns:
        int (count,), index of each first appearance, ascending; and int (n,), the number of each value.
    """
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return np.sort(first), rank[inverse.reshape(-1)]
