"""VICReg: the projections of two views agree, every feature varies, and no two features vary together.

Bardes, Ponce & LeCun, "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning", ICLR 2022,
https://arxiv.org/abs/2105.04906. It has no negatives, so slices of one subject need no care.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from mri_transfer.pretrain.methods.heads import mlp
from mri_transfer.pretrain.methods.method import Method


def _spread(z: Any) -> tuple[Any, Any]:
    """Variance term v (eq. 1) and covariance term c (eq. 3, 4) of projections (n, d)."""
    n, d = ops.shape(z)[0], z.shape[1]
    z = z - ops.mean(z, axis=0, keepdims=True)
    covariance = ops.matmul(ops.transpose(z), z) / ops.cast(n - 1, z.dtype)
    variance = ops.diagonal(covariance)
    # The epsilon is inside the root, so a constant feature still has a gradient.
    hinge = ops.mean(ops.relu(1 - ops.sqrt(variance + 1e-4)))
    return hinge, (ops.sum(covariance * covariance) - ops.sum(variance * variance)) / d


def vicreg_loss(
    z_a: Any, z_b: Any, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0
) -> Any:
    """Weighted sum of the three terms (eq. 6), weighted as in the authors' code.

    That is, the distance between views is also averaged over features (eq. 5 sums over them), and the two views'
    variance terms are averaged, not added.

    Args:
        z_a, z_b: projections of the two views (n, d), n > 1; they are not normalised.
        invariance, variance, covariance: lambda, mu and nu of the paper.

    Returns:
        Scalar.
    """
    (v_a, c_a), (v_b, c_b) = _spread(z_a), _spread(z_b)
    distance = ops.mean((z_a - z_b) ** 2)
    return invariance * distance + variance * (v_a + v_b) / 2 + covariance * (c_a + c_b)


class VICReg(Method):
    """Views → encoder → three-layer expander → :func:`vicreg_loss`.

    Args:
        encoder, views, plan, seed: as in :class:`Method`.
        width: of the expander's three layers. The paper's 8192 goes with a batch of 2048. Covariances of n pairs
            can't all vanish in d > n dimensions: at unit variance their term is at least d / (n - 1) - 1 for each view,
            which kept the loss at chance with 1024 features and 32 pairs.
        invariance, variance, covariance: weights of the loss; the paper's are 25, 25 and 1; the last is smaller here
            for the same reason: on a five-layer network the loss fell at once with 0.1 and stayed at chance with 1.
    """

    TITLE = "VICReg"

    def __init__(
        self,
        *parts: Any,
        width: int = 256,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 0.1,
        **common: Any,
    ):
        super().__init__(*parts, **common)
        self.weights_of_terms = {"invariance": invariance, "variance": variance, "covariance": covariance}
        self._encode = self.plan(self.encoder)
        self.head = mlp(self.features, (width, width, width), name="expander", seed=self.seed)

    def call(self, batch, training=True):
        """Projections (2 * batch, width)."""
        return ops.cast(self.head(self._encode(self.both_views(batch)), training=training), "float32")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        z_a, z_b = ops.split(y_pred, 2, axis=0)
        return vicreg_loss(z_a, z_b, **self.weights_of_terms)

    def chance(self, pairs: int) -> float:
        """The minimum for independent projections over their standard deviation s.

        Minimum over s of 2 invariance s^2 + variance (1 - s), ignoring their near-zero covariances.
        """
        invariance, variance = self.weights_of_terms["invariance"], self.weights_of_terms["variance"]
        s = min(1.0, variance / (4 * invariance))
        return 2 * invariance * s**2 + variance * (1 - s)
