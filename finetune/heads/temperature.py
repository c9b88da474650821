"""Temperature scaling for calibrated probabilities (Guo et al. 2017, arXiv:1706.04599)."""

from __future__ import annotations

import numpy as np

from mri_transfer.evaluation.metrics import (
    calibration_by_group,
    expected_calibration_error,
    loss_by_group,
)

# If every held-out image is classified correctly, ever lower temperatures seem better; few images don't justify being
# more than twice as sure.
LOWEST, HIGHEST = 0.5, 20.0


def log_probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """log softmax(logits / temperature) over the last axis, float64."""
    scaled = np.asarray(logits, np.float64) / temperature
    scaled = scaled - scaled.max(-1, keepdims=True)
    return scaled - np.log(np.exp(scaled).sum(-1, keepdims=True))


def tempered_loss(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """Mean log loss (nats) of logits (n, classes) at a temperature."""
    return float(-log_probabilities(logits, temperature)[np.arange(len(labels)), labels].mean())


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the least log loss, between LOWEST and HIGHEST.

    The loss is convex in the inverse temperature, so there is one minimum.

    Args:
        logits: (n, classes) of images not trained on.
        labels: (n,).
    """
    from scipy.optimize import minimize_scalar

    optimum = minimize_scalar(
        lambda inverse: tempered_loss(logits, labels, 1 / inverse),
        bounds=(1 / HIGHEST, 1 / LOWEST),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(1 / optimum.x)


def calibration_scores(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> dict[str, float]:
    """Log loss (nats), Brier score (0..2) and expected calibration error (0..1) of logits (n, classes)."""
    probabilities = np.exp(log_probabilities(logits, temperature))[None]
    nowhere = np.zeros(len(labels), np.int64)
    losses = loss_by_group(labels, probabilities, nowhere, 1)[0, 0]
    bins = calibration_by_group(labels, probabilities, nowhere, 1)[0, 0]
    return {
        "log_loss": float(losses[0] / losses[2]),
        "brier": float(losses[1] / losses[2]),
        "ece": float(expected_calibration_error(bins)),
    }
