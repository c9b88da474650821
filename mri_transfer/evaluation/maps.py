"""Features projected to two dimensions, for viewing."""

from __future__ import annotations

from typing import Any

import numpy as np


def all_alike(features: np.ndarray) -> bool:
    """Whether all rows are the same, as those of a collapsed encoder are."""
    return bool((features == features[:1]).all())


def tsne(features: np.ndarray, init: Any = "pca", perplexity: float = 30.0) -> np.ndarray:
    """Coordinates (n, 2) in which near neighbours stay near; seconds for 1,000 points.

    t-SNE of scikit-learn (van der Maaten & Hinton 2008, JMLR 9:2579-2605). Distances between groups mean little. Rows
    that are all alike, which it divides by their spread before it ends the process, are all at the origin.

    Args:
        features: (n, d).
        init: initial positions, (n, 2), or "pca".
        perplexity: roughly the number of neighbours considered.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if all_alike(features):
        return np.zeros((len(features), 2), np.float32)
    if isinstance(init, str) and features.shape[1] == 1:  # they lie on a line
        init = np.hstack([features / features.std() * 1e-4, np.zeros_like(features)])
    with threadpool_limits(1):  # a fixed summation order, so the same features give the same map
        return TSNE(perplexity=perplexity, init=init, random_state=0).fit_transform(features)
