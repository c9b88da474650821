"""Groups by number: names and numbers of any kind as 0, 1, 2, ..."""

from __future__ import annotations

import numpy as np


def numbered(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values (n,) numbered in the order in which they first appear, so that renaming them changes nothing.

    Returns:
        int (count,), where each first appears, ascending; and int (n,), the number of each.
    """
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return np.sort(first), rank[inverse.reshape(-1)]
