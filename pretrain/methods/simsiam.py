"""SimSiam: each view predicts the other's projection, through which no gradient flows.

Chen & He, "Exploring Simple Siamese Representation Learning", CVPR 2021, https://arxiv.org/abs/2011.10566. It has no
negatives, so slices of one subject need no care.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from mri_transfer.pretrain.methods.heads import mlp, unit
from mri_transfer.pretrain.methods.method import Method


def negative_cosine(prediction: Any, target: Any) -> Any:
    """D(p, z) = -cos(p, z), averaged over the batch (eq. 1). No gradient flows to the target.

    Args:
        prediction, target: (n, d), any scale.

    Returns:
        Scalar in -1..1.
    """
    return -ops.mean(ops.sum(unit(prediction) * unit(ops.stop_gradient(target)), axis=1))


class SimSiam(Method):
    """Views → encoder → three-layer projection → bottleneck predictor → :func:`negative_cosine` both ways (eq. 2).

    Args:
        encoder, views, plan, seed: as in :class:`Method`.
        width: of the projection's three layers; the paper has 2048 for 2048 features, and we have 1280.
        bottleneck: hidden width of the predictor, a quarter of the projection's as in the paper.
    """

    TITLE = "SimSiam"

    def __init__(self, *parts: Any, width: int = 1024, bottleneck: int = 256, **common: Any):
        super().__init__(*parts, **common)
        self._encode = self.plan(self.encoder)
        # Normalising the output prevents collapse (section 4.4).
        self.head = mlp(
            self.features, (width, width, width), name="projection", seed=self.seed, normalised=True
        )
        self.predictor = mlp(width, (bottleneck, width), name="prediction", seed=self.seed + 10)

    def call(self, batch, training=True):
        """Predictions and projections, each (2 * batch, width)."""
        projected = self.head(self._encode(self.both_views(batch)), training=training)
        predicted = self.predictor(projected, training=training)
        return {"predicted": ops.cast(predicted, "float32"), "projected": ops.cast(projected, "float32")}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        p_a, p_b = ops.split(y_pred["predicted"], 2, axis=0)
        z_a, z_b = ops.split(y_pred["projected"], 2, axis=0)
        return (negative_cosine(p_a, z_b) + negative_cosine(p_b, z_a)) / 2
