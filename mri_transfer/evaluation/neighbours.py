"""Nearest rows by cosine."""

from __future__ import annotations

import numpy as np


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Rows (n, d) of unit length, float64; a row of zeros stays as it is."""
    features = np.asarray(features, dtype=np.float64)
    # Scale first: the square of a large float32 is finite in float64, but that of a large float64 is not. Scaling by a
    # power of two is exact.
    _, exponent = np.frexp(np.abs(features).max(axis=1, keepdims=True, initial=0.0))
    features = np.ldexp(features, -exponent)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.divide(features, length, out=np.zeros_like(features), where=length > 0)


def nearest(features: np.ndarray, allowed: np.ndarray, k: int) -> np.ndarray:
    """The k nearest rows to each row by cosine, nearest first.

    Args:
        features: (n, d).
        allowed: bool (n, n); whether column j may be a neighbour of row i.
        k: how many.

    Returns:
        int (n, min(k, n)); -1 where a row has fewer allowed neighbours. Ties go to the lower row index.
    """
    z = unit_rows(features)
    # Rounded, so that copies of a slice tie on every machine regardless of the last bit.
    similarity = np.where(allowed, np.round(z @ z.T, 9), -np.inf)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return np.where(np.take_along_axis(similarity, order, axis=1) == -np.inf, -1, order)
