"""SimCLR: pull the two views of a pair together, push other subjects' slices away.

Chen, Kornblith, Norouzi & Hinton, "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020,
https://arxiv.org/abs/2002.05709.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from mri_transfer.pretrain.methods.method import Method, Plan


def nt_xent(z_a: Any, z_b: Any, subject: Any, temperature: float) -> Any:
    """Normalised temperature-scaled cross-entropy (eq. 1 of the paper), without same-subject negatives.

    For each of the 2n projections, the loss is the cross-entropy of finding its partner among the partner and all
    projections of *other* subjects. Two slices of one head look alike because they are alike; pushing them apart
    would teach the encoder to ignore anatomy.

    Args:
        z_a, z_b: projections of the two views (n, d), any scale; they are normalised here.
        subject: integers (n,); pairs with equal numbers are not negatives of one another.
        temperature: divides the cosine similarities.

    Returns:
        Scalar: mean over the 2n projections. With one subject only it is 0, for there is nothing to contrast.
    """
    z = ops.concatenate([z_a, z_b], axis=0)
    # The epsilon lies inside the root: the gradient at a zero vector is then finite.
    z = z * ops.rsqrt(ops.sum(z * z, axis=1, keepdims=True) + 1e-12)
    similarity = ops.matmul(z, ops.transpose(z)) / temperature
    n = ops.shape(z_a)[0]
    partner = (
        ops.concatenate([ops.sum(z[:n] * z[n:], axis=1), ops.sum(z[n:] * z[:n], axis=1)], axis=0)
        / temperature
    )
    subjects = ops.concatenate([subject, subject], axis=0)
    other = ops.expand_dims(subjects, 0) != ops.expand_dims(subjects, 1)
    negatives = ops.where(other, similarity, ops.full_like(similarity, -1e9))
    candidates = ops.concatenate([ops.expand_dims(partner, 1), negatives], axis=1)
    return ops.mean(ops.logsumexp(candidates, axis=1) - partner)


class SimCLR(Method):
    """Views → encoder → two-layer projection → :func:`nt_xent`.

    Args:
        encoder, views, plan, seed: as of :class:`Method`.
        temperature: of the loss.
        hidden, projected: widths of the projection head, which is thrown away after pretraining.
    """

    TITLE = "SimCLR"

    def __init__(
        self,
        encoder: keras.Model,
        views: keras.layers.Layer,
        *,
        plan: Plan | None = None,
        temperature: float = 0.1,
        hidden: int = 512,
        projected: int = 128,
        seed: int = 0,
        **options: Any,
    ):
        super().__init__(encoder, views, plan=plan, seed=seed, **options)
        self.temperature = temperature
        self._encode = self.plan(encoder)
        features = encoder.output_shape[-1]

        def start(offset: int) -> keras.initializers.Initializer:
            return keras.initializers.HeNormal(seed=seed + offset)

        self.head = keras.Sequential(
            [
                keras.Input((features,)),
                keras.layers.Dense(hidden, use_bias=False, kernel_initializer=start(1)),
                keras.layers.BatchNormalization(),
                keras.layers.ReLU(),
                keras.layers.Dense(projected, use_bias=False, kernel_initializer=start(2)),
            ],
            name="projection",
        )

    def call(self, batch, training=True):
        """Projections (2 * batch, projected) of a batch {"a", "b": uint8 (batch, size, size), "subject"}."""
        encoded = self._encode(self.both_views(batch))
        return ops.cast(self.head(encoded, training=training), "float32")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        z_a, z_b = ops.split(y_pred, 2, axis=0)
        return nt_xent(z_a, z_b, x["subject"], self.temperature)

    def chance(self, pairs: int) -> float:
        """log of the number of candidates: with equal similarities each is as likely as the partner."""
        return math.log(2 * pairs - 1)
