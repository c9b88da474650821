"""SimCLR: pull the two views of a pair together, push other subjects' slices away.

Chen, Kornblith, Norouzi & Hinton, "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020,
https://arxiv.org/abs/2002.05709; decoupled as in Yeh et al., "Decoupled Contrastive Learning", ECCV 2022,
https://arxiv.org/abs/2110.06848.
"""

from __future__ import annotations

import math
from typing import Any

from keras import ops

from mri_transfer.pretrain.methods.heads import mlp, unit
from mri_transfer.pretrain.methods.method import Method

# The logit of non-candidates: its exponential is zero in every precision.
NEVER = -1e9


def nt_xent(z_a: Any, z_b: Any, subject: Any, temperature: float, decoupled: bool = False) -> Any:
    """Normalised temperature-scaled cross-entropy (eq. 1 of SimCLR), without same-subject negatives.

    For each of the 2n projections, the loss is the cross-entropy of finding its partner among the partner and all
    projections of *other* subjects. Two slices of one head look alike because they are alike; pushing them apart
    would teach the encoder to ignore anatomy.

    Args:
        z_a, z_b: projections of the two views (n, d), any scale; they are normalised here.
        subject: integers (n,); pairs with equal numbers are not negatives of one another.
        temperature: divides the cosine similarities.
        decoupled: leave the partner out of the denominator (eq. 6 of DCL): with few negatives it dominates, and the
            gradient vanishes.

    Returns:
        Scalar: mean over the 2n projections. Those without negatives count as 0, as there is nothing to contrast.
    """
    z = unit(ops.concatenate([z_a, z_b], axis=0))
    n = ops.shape(z_a)[0]
    similarity = ops.matmul(z, ops.transpose(z)) / temperature
    partner = ops.tile(ops.sum(z[:n] * z[n:], axis=1), (2,)) / temperature
    subjects = ops.concatenate([subject, subject], axis=0)
    other = ops.expand_dims(subjects, 0) != ops.expand_dims(subjects, 1)
    candidates = ops.where(other, similarity, ops.full_like(similarity, NEVER))
    if not decoupled:
        candidates = ops.concatenate([ops.expand_dims(partner, 1), candidates], axis=1)
    losses = ops.logsumexp(candidates, axis=1) - partner
    return ops.mean(ops.where(ops.any(other, axis=1), losses, ops.zeros_like(losses)))


class SimCLR(Method):
    """Views → encoder → two-layer projection → :func:`nt_xent`.

    Args:
        encoder, views, plan, seed: as in :class:`Method`.
        temperature: the loss's.
        decoupled: whether to use the decoupled loss, for small batches.
        hidden, projected: widths of the projection head, which is thrown away after pretraining. The paper's are
            2048, the width of its encoder's features, and 128.
    """

    TITLE = "SimCLR"

    def __init__(
        self,
        *parts: Any,
        temperature: float,
        decoupled: bool,
        hidden: int = 512,
        projected: int = 128,
        **common: Any,
    ):
        super().__init__(*parts, **common)
        self.temperature, self.decoupled = temperature, decoupled
        self._encode = self.plan(self.encoder)
        self.head = mlp(self.features, (hidden, projected), name="projection", seed=self.seed)

    def call(self, batch, training=True):
        """Projections (2 * batch, projected) of a batch {"a", "b": uint8 (batch, size, size), "subject"}."""
        encoded = self._encode(self.both_views(batch))
        return ops.cast(self.head(encoded, training=training), "float32")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        z_a, z_b = ops.split(y_pred, 2, axis=0)
        return nt_xent(z_a, z_b, x["subject"], self.temperature, self.decoupled)

    def chance(self, pairs: int) -> float:
        """log of the number of candidates: with equal similarities, all are equally likely."""
        return math.log(max(1, 2 * pairs - (2 if self.decoupled else 1)))
