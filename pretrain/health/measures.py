"""Label-free figures of a set of features: spread, alignment, uniformity, effective rank.

All take finite features (n, d) and compute in float64. Rows are scaled to unit length first, except for the effective
rank, as in the papers.
"""

from __future__ import annotations

import numpy as np

from mri_transfer.evaluation.neighbours import unit_rows


def feature_spread(features: np.ndarray) -> float:
    """Standard deviation of each unit-length feature over the rows, averaged and times sqrt(d).

    About 1 for directions spread evenly over the sphere, 0 for features that are all the same: Chen & He, "Exploring
    Simple Siamese Representation Learning", CVPR 2021, section 4.1. Non-negative features, as after a ReLU, have a
    non-zero mean and stay below 1.
    """
    z = unit_rows(features)
    return float(z.std(axis=0).mean() * np.sqrt(z.shape[1]))


def alignment(a: np.ndarray, b: np.ndarray) -> float:
    """Mean squared distance of the unit-length features of positive pairs, 0 (the same) to 4.

    Wang & Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere", ICML 2020, section 4.1, with alpha = 2. Lower is better, unless uniformity suffers.

    Args:
        a, b: features (n, d); row i of both is one pair.
    """
    return float(((unit_rows(a) - unit_rows(b)) ** 2).sum(axis=1).mean())


def uniformity(features: np.ndarray) -> float:
    """log of the mean of exp(-2 |x - y|^2) over all pairs of different rows, of unit length; 0 to about -4.

    Wang & Isola 2020, section 4.1, with t = 2. Lower is better: 0 is collapse, and points spread evenly over a
    high-dimensional sphere come near -4.
    """
    z = unit_rows(features)
    distances = _squared_distances(z, z)[np.triu_indices(len(z), k=1)]
    return float(np.log(np.exp(-2 * distances).mean()))


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :]
    return np.maximum(0.0, squares - 2 * a @ b.T)


def effective_rank(features: np.ndarray) -> float:
    """RankMe: exp of the entropy of the singular values, scaled to sum to 1; from 1 to min(n, d).

    Garrido, Balestriero, Najman & LeCun, "RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised
    Representations by Their Rank", ICML 2023, eq. 1-2. Features that are all zero have rank 0.
    """
    features = np.asarray(features, dtype=np.float64)
    largest = np.abs(features).max(initial=0.0)
    if largest == 0:
        return 0.0
    scaled = features / largest
    # The smaller Gram matrix is ten times faster than an SVD, and in float64 exact to about 1e-8 of the largest.
    gram = scaled @ scaled.T if len(scaled) <= scaled.shape[1] else scaled.T @ scaled
    singular = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0.0))
    share = singular / singular.sum()
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def alignment_ratio(a: np.ndarray, b: np.ndarray) -> float:
    """:func:`alignment` over the mean squared distance of non-pairs.

    1 if a pair is no closer than any two rows, as before learning and after collapse; near 0 if pairs stand out well.
    Unlike alignment, it doesn't improve when all points contract.

    Args:
        a, b: features (n, d), n at least 2; row i of both is one pair.
    """
    distances = _squared_distances(unit_rows(a), unit_rows(b))
    rows = len(distances)
    pairs = np.trace(distances)
    others = (distances.sum() - pairs) / (rows - 1)
    return float(pairs / others) if others > 0 else 1.0
