"""The linear probe: multinomial logistic regression on a frozen encoder's features.

Its L2 penalty is chosen by cross-validated log loss over the training groups, from a fixed grid, alike for every arm,
never looking at the test fold. This module imports no Keras, so that worker processes start in a second and cost little
memory.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np

from mri_transfer.finetune.data.protocol import inner_splits

# scikit-learn's C (inverse penalty) on standardised features; half decades around the usual choice.
GRID = (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0, 10.0)
FALLBACK = 1e-2  # if a class has a single training group, so nothing can be held out
PATIENCE = 2  # stop after this many weaker penalties in a row that predict worse
TOLERANCE, FINAL_TOLERANCE = 1e-4, 1e-5  # largest gradient, while choosing and at the end
ITERATIONS = 1000
SETTINGS = {
    "grid": GRID,
    "fallback": FALLBACK,
    "patience": PATIENCE,
    "tolerance": [TOLERANCE, FINAL_TOLERANCE],
    "iterations": ITERATIONS,
}


@dataclasses.dataclass(frozen=True)
class Probe:
    """A fitted probe: softmax((features - mean) / scale @ kernel + bias).

    Attributes:
        mean, scale: (d,) float32, of the training images.
        kernel: (d, classes) float32; bias: (classes,) float32.
        strength: the chosen C.
        tried: inner log loss (nats) of each C tried; empty if the groups allowed no inner split.
        converged: whether the optimiser met its tolerance at the chosen C.
    """

    mean: np.ndarray
    scale: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray
    strength: float
    tried: dict[float, float]
    converged: bool

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Class probabilities, float32 (n, classes), of features (n, d)."""
        return softmax(standardise(features, self.mean, self.scale) @ self.kernel + self.bias)

    def details(self) -> dict[str, Any]:
        """Details of the fit, for the trial's file."""
        return {
            "strength": self.strength,
            "tried": {f"{strength:g}": round(loss, 5) for strength, loss in self.tried.items()},
            "converged": self.converged,
        }


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, computed in float64, returned as float32."""
    shifted = np.asarray(logits, np.float64)
    shifted = np.exp(shifted - shifted.max(axis=-1, keepdims=True))
    return (shifted / shifted.sum(axis=-1, keepdims=True)).astype(np.float32)


def standardisation(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature, float32 (d,).

    Random networks have features as small as 1e-12 that still carry information, and features constant up to rounding.
    The former are scaled like any other; the latter get a scale of one, so that rounding is not amplified into noise.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    deviation = features.std(axis=0, dtype=np.float64)
    constant = deviation <= 1e-6 * np.abs(mean)
    deviation[constant] = 1.0
    # Below float32's normal range a product would lose its digits; we treat such a feature as constant.
    deviation[deviation < np.finfo(np.float32).tiny] = 1.0
    return mean.astype(np.float32), deviation.astype(np.float32)


def standardise(features: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Features minus the mean, divided by the scale, float32."""
    return ((features - mean) / scale).astype(np.float32)


def _regression(tolerance: float = TOLERANCE):
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(tol=tolerance, max_iter=ITERATIONS, warm_start=True)


def _fit_quietly(model, features: np.ndarray, labels: np.ndarray, strength: float) -> bool:
    """Fit at one C, starting from the last solution; False if iterations ran out."""
    from sklearn.exceptions import ConvergenceWarning

    model.C = strength
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(features, labels)
    return not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log probability of the correct class, nats."""
    of_label = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(of_label, 1e-15)).mean())


def choose_strength(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int
) -> tuple[float, dict[float, float]]:
    """The grid's C with the least log loss in cross-validation over groups of training images.

    Goes from the strongest penalty to weaker ones, each solution starting the next.
    """
    parts = []
    for fit, validate in inner_splits(labels, groups, seed):
        mean, scale = standardisation(features[fit])
        inside, outside = (standardise(features[rows], mean, scale) for rows in (fit, validate))
        parts.append((_regression(), inside, labels[fit], outside, labels[validate]))
    if not parts:
        return FALLBACK, {}
    tried: dict[float, float] = {}
    for strength in GRID:
        losses = []
        for model, inside, known, outside, hidden in parts:
            _fit_quietly(model, inside, known, strength)
            losses.append(log_loss(model.predict_proba(outside), hidden))
        tried[strength] = float(np.average(losses, weights=[len(split[-1]) for split in parts]))
        if len(tried) > PATIENCE and min(list(tried.values())[-PATIENCE:]) > min(tried.values()):
            break
    return min(tried, key=lambda strength: tried[strength]), tried


def fit_probe(
    features: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    seed: int,
    *,
    strength: float | None = None,
) -> Probe:
    """Fit the probe on training images.

    Args:
        features: (n, d) float32 of the training images only.
        labels: (n,) classes 0..k-1, each present.
        groups: (n,) group of each image.
        seed: for inner splits.
        strength: the C of an earlier fit to the same images, to skip choosing.

    Raises:
        ValueError: a class between 0 and the largest is missing, or there is only one.
    """
    from threadpoolctl import threadpool_limits

    # On one thread, BLAS sums in one order, so every process gives the same digits; and the matrices are small.
    with threadpool_limits(1, "blas"):
        return _fit(features, labels, groups, seed, strength)


def _fit(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int, strength: float | None
) -> Probe:
    classes = int(labels.max()) + 1
    if classes < 2 or len(np.unique(labels)) != classes:
        raise ValueError("a probe needs at least two classes, each with a training image")
    tried: dict[float, float] = {}
    if strength is None:
        strength, tried = choose_strength(features, labels, groups, seed)
    mean, scale = standardisation(features)
    standard = standardise(features, mean, scale)
    model = _regression(FINAL_TOLERANCE)
    converged = _fit_quietly(model, standard, labels, strength)
    kernel, bias = model.coef_.T, model.intercept_
    if classes == 2:  # scikit-learn only keeps the second class's log odds
        kernel, bias = np.hstack([-kernel / 2, kernel / 2]), np.array([-bias[0] / 2, bias[0] / 2])
    return Probe(
        mean, scale, kernel.astype(np.float32), bias.astype(np.float32), float(strength), tried, converged
    )
