"""BYOL: from one view, a student predicts its own slow average's projection of the other.

Grill et al., "Bootstrap your own latent", NeurIPS 2020, https://arxiv.org/abs/2006.07733. It has no negatives, so
slices of one subject need no care.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from mri_transfer.pretrain.methods.heads import mlp
from mri_transfer.pretrain.methods.method import Method
from mri_transfer.pretrain.methods.simsiam import negative_cosine
from mri_transfer.pretrain.methods.teacher import Teacher


def normalised_regression(prediction: Any, target: Any) -> Any:
    """Mean squared distance of the normalised vectors, 2 - 2 cos (eq. 2). No gradient flows to the target.

    Args:
        prediction, target: (n, d), any scale.

    Returns:
        Scalar in 0..4.
    """
    return 2 + 2 * negative_cosine(prediction, target)


class BYOL(Method):
    """Views → student: encoder, projection, predictor; teacher: encoder, projection → symmetrised loss.

    Args:
        encoder, views, plan, seed: as in :class:`Method`.
        hidden, projected: widths of projection and predictor; the paper's 4096 goes with 2048 features, and each weight
            is stored four times (student, teacher, two Adam moments).
        momentum: the teacher's at the start; it rises to 1.
    """

    TITLE = "BYOL"

    def __init__(
        self,
        *parts: Any,
        hidden: int = 1024,
        projected: int = 256,
        momentum: float = 0.99,
        **common: Any,
    ):
        super().__init__(*parts, **common)
        self.head = mlp(self.features, (hidden, projected), name="projection", seed=self.seed)
        self.predictor = mlp(projected, (hidden, projected), name="prediction", seed=self.seed + 10)
        self.teacher = Teacher([self.encoder, self.head], momentum)
        self._encode = self.plan(self.encoder)

    def set_progress(self, share: Any) -> None:
        self.teacher.set_progress(share)

    def call(self, batch, training=True):
        """The student's predictions and the teacher's projections, each (2 * batch, projected)."""
        if training:
            self.teacher.follow([self.encoder, self.head])
        views = self.both_views(batch)
        projected = self.head(self._encode(views), training=training)
        predicted = self.predictor(projected, training=training)
        return {"predicted": ops.cast(predicted, "float32"), "target": self.teacher(views, training=training)}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        p_a, p_b = ops.split(y_pred["predicted"], 2, axis=0)
        t_a, t_b = ops.split(y_pred["target"], 2, axis=0)
        return normalised_regression(p_a, t_b) + normalised_regression(p_b, t_a)
