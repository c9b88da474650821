"""The frequency in each class of a property that should not depend on the class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

DIFFERENCE = 0.02  # between two classes' shares, for a warning
SIGNIFICANCE = 0.01


def shares_of_classes(
    mask: np.ndarray, labels: np.ndarray, readable: np.ndarray, classes: Sequence[str]
) -> dict:
    """The number of marked images, their share in each class, and whether it differs by more than chance.

    Args:
        mask: bool (files,).
        labels: int (files,).
        readable: bool (files,); others are ignored.
        classes: names.

    Returns:
        JSON-able: "images", "by_class" (name to share), "depends_on_class": the chi-squared test of independence
        rejects it, and two classes differ by more than `DIFFERENCE`.
    """
    from scipy.stats import chi2_contingency

    total = np.bincount(labels[readable], minlength=len(classes))
    hits = np.bincount(labels[mask & readable], minlength=len(classes))
    share = np.divide(hits, total, out=np.zeros(len(classes)), where=total > 0)
    depends = False
    if hits.any() and (hits < total).any() and (total > 0).sum() > 1:
        table = np.stack([hits, total - hits])[:, total > 0]
        depends = bool(
            chi2_contingency(table).pvalue < SIGNIFICANCE and share.max() - share.min() > DIFFERENCE
        )
    return {
        "images": int(hits.sum()),
        "by_class": {name: round(float(value), 4) for name, value in zip(classes, share, strict=True)},
        "depends_on_class": depends,
    }
