"""All figures of one measurement, and the score that they come to."""

from __future__ import annotations

from typing import Any

import numpy as np

from mri_transfer.pretrain.health.label_agreement import label_agreement
from mri_transfer.pretrain.health.measures import (
    alignment,
    alignment_ratio,
    effective_rank,
    feature_spread,
    uniformity,
)
from mri_transfer.pretrain.health.panel import Panel


def feature_figures(features: np.ndarray, panel: Panel) -> dict[str, Any]:
    """What the encoder's features (n, d) of the panel's slices tell; keys as of :meth:`HealthMonitor.measure`."""
    figures: dict[str, Any] = {}
    scores, errors = [], []
    for name, question in panel.labels.items():
        agreement = label_agreement(features, subject=panel.subject, **question)
        if agreement is not None:
            figures |= {
                f"knn_{name}": agreement.accuracy,
                f"knn_{name}_chance": agreement.chance,
                f"knn_{name}_error": agreement.error,
            }
            if agreement.chance < 1:
                scores.append((agreement.accuracy - agreement.chance) / (1 - agreement.chance))
                errors.append(agreement.error / (1 - agreement.chance))
    if scores:
        # The labels are told of the same slices, so their errors need not cancel: they are added, not averaged out.
        figures |= {"score": float(np.mean(scores)), "score_error": float(np.mean(errors))}
    return figures | {
        "spread": feature_spread(features),
        "uniformity": uniformity(features),
        "rankme": effective_rank(features),
        "rankme_limit": min(features.shape),
    }


def embedding_figures(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    """What the embeddings (pairs, d) of the two views of each pair tell."""
    return {
        "embedding_spread": feature_spread(a),
        "embedding_rank": effective_rank(a),
        "alignment": alignment(a, b),
        "alignment_ratio": alignment_ratio(a, b),
    }
