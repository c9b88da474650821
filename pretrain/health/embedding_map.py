"""Features in two dimensions, for display."""

from __future__ import annotations

import numpy as np

from mri_transfer.evaluation import maps
from mri_transfer.evaluation.neighbours import unit_rows

FEWEST_FOR_TSNE = 100


def pca(features: np.ndarray) -> np.ndarray:
    """Coordinates (n, 2) along the two directions in which the unit-length features vary most.

    The arbitrary signs make the point farthest out on each axis positive.
    """
    z = unit_rows(features)
    z = z - z.mean(axis=0)
    # The Gram matrix's eigenvectors are the coordinates, up to scale.
    values, vectors = np.linalg.eigh(z @ z.T)
    points = np.zeros((len(z), 2))
    projection = (vectors * np.sqrt(np.maximum(values, 0)))[:, ::-1][:, :2]
    points[:, : projection.shape[1]] = projection
    farthest = np.abs(points).argmax(axis=0)
    signs = np.sign(points[farthest, [0, 1]])
    return points * np.where(signs == 0, 1, signs)


def tsne(features: np.ndarray) -> np.ndarray:
    """:func:`~mri_transfer.evaluation.maps.tsne` of unit-length features; for few points, :func:`pca`."""
    if len(features) < FEWEST_FOR_TSNE:
        return pca(features)
    start = pca(features)
    start = 1e-4 * start / max(float(start.std()), 1e-12)
    return maps.tsne(unit_rows(features), start)
