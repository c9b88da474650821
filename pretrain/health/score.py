"""All figures of one measurement, and their score."""

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
    """Figures of the encoder's features (n, d) of the panel's slices; keys as in :meth:`HealthMonitor.measure`."""
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
        # The labels share the same slices, so their errors may not cancel: they are added, not averaged out.
        figures |= {"score": float(np.mean(scores)), "score_error": float(np.mean(errors))}
    return figures | {
        "spread": feature_spread(features),
        "uniformity": uniformity(features),
        "rankme": effective_rank(features),
        "rankme_limit": min(features.shape),
    }


def embedding_figures(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    """Figures of the embeddings (pairs, d) of both views of each pair."""
    return {
        "embedding_spread": feature_spread(a),
        "embedding_rank": effective_rank(a),
        "alignment": alignment(a, b),
        "alignment_ratio": alignment_ratio(a, b),
    }
