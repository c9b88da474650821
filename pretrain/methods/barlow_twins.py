"""Barlow Twins: the projections of two views agree in every feature, and no two features are redundant.

Zbontar, Jing, Misra, LeCun & Deny, "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", ICML 2021,
https://arxiv.org/abs/2103.03230. It has no negatives, so slices of one subject need no care.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from mri_transfer.pretrain.methods.heads import mlp
from mri_transfer.pretrain.methods.method import Method


def _standardised(z: Any) -> Any:
    """Scale every feature to mean 0 and variance 1 over the batch, like batch normalisation (variance over n)."""
    z = z - ops.mean(z, axis=0, keepdims=True)
    return z * ops.rsqrt(ops.mean(z * z, axis=0, keepdims=True) + 1e-5)


def cross_correlation_loss(z_a: Any, z_b: Any, redundancy: float) -> Any:
    """Sum of (1 - C_ii)^2 plus `redundancy` times the sum of C_ij^2, i != j, for the cross-correlation C (eq. 1, 2).

    Args:
        z_a, z_b: projections of the two views (n, d), any scale and offset.
        redundancy: lambda of the paper.

    Returns:
        Scalar; d for constant projections.
    """
    n = ops.cast(ops.shape(z_a)[0], z_a.dtype)
    c = ops.matmul(ops.transpose(_standardised(z_a)), _standardised(z_b)) / n
    diagonal = ops.diagonal(c)
    off_diagonal = ops.sum(c * c) - ops.sum(diagonal * diagonal)
    return ops.sum((1 - diagonal) ** 2) + redundancy * off_diagonal


class BarlowTwins(Method):
    """Views → encoder → three-layer projection → :func:`cross_correlation_loss`.

    Args:
        encoder, views, plan, seed: as in :class:`Method`.
        width: of the projection's three layers. The paper's 8192 would be 145 million weights behind an encoder of
            3.4 million.
        redundancy: weight of the off-diagonal terms. The paper's 0.005 goes with 8192 features.
    """

    TITLE = "Barlow Twins"

    def __init__(self, *parts: Any, width: int = 1024, redundancy: float = 5e-3, **common: Any):
        super().__init__(*parts, **common)
        self.width, self.redundancy = width, redundancy
        self._encode = self.plan(self.encoder)
        self.head = mlp(self.features, (width, width, width), name="projection", seed=self.seed)

    def call(self, batch, training=True):
        """Projections (2 * batch, width)."""
        return ops.cast(self.head(self._encode(self.both_views(batch)), training=training), "float32")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        z_a, z_b = ops.split(y_pred, 2, axis=0)
        return cross_correlation_loss(z_a, z_b, self.redundancy)

    def chance(self, pairs: int) -> float:
        """For independent projections: correlations are 0 with variance 1 / pairs."""
        d = self.width
        return d * (1 + 1 / pairs) + self.redundancy * d * (d - 1) / pairs
