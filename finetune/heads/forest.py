"""A random forest on few features, such as global figures of a picture: what is possible without looking at a lesion.

This module imports no Keras, so that worker processes start in a second and cost little memory.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

TREES, LEAST_LEAF = 200, 3
SETTINGS = {"trees": TREES, "least_leaf": LEAST_LEAF, "class_weight": "balanced"}


@dataclasses.dataclass(frozen=True)
class Forest:
    """A fitted forest (Breiman 2001, doi:10.1023/A:1010933404324); the classes are 0..k-1, each seen in training."""

    model: Any

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Class probabilities, float32 (n, classes), of features (n, d)."""
        return self.model.predict_proba(features).astype(np.float32)

    def details(self) -> dict[str, Any]:
        """Details of the fit: nothing is chosen."""
        return {}


def fit_forest(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int) -> Forest:
    """Fit the forest on training images.

    Args:
        features: (n, d) of the training images only.
        labels: (n,) classes 0..k-1, each present.
        groups: (n,), unused: nothing is chosen.
        seed: for trees.
    """
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(
        TREES, min_samples_leaf=LEAST_LEAF, class_weight="balanced", random_state=seed, n_jobs=1
    )
    return Forest(model.fit(features, labels))
