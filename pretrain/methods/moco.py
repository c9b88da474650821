"""MoCo: find a view's partner, as a slow teacher sees it, among many slices of other subjects.

The queue of negatives is that of He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR
2020, https://arxiv.org/abs/1911.05722; two-layer heads, a predictor, a symmetrised loss and the batch's other keys as
further negatives follow Chen, Xie & He, "An Empirical Study of Training Self-Supervised Vision Transformers" (MoCo v3),
ICCV 2021, https://arxiv.org/abs/2104.02057; as there, batches are not shuffled.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from mri_transfer.pretrain.methods.heads import mlp, unit
from mri_transfer.pretrain.methods.method import Method
from mri_transfer.pretrain.methods.simclr import NEVER
from mri_transfer.pretrain.methods.teacher import Teacher

NOBODY = -1  # the subject of an empty place in the queue


def info_nce(
    query: Any, key: Any, subject: Any, negatives: Any, negative_subject: Any, temperature: float
) -> Any:
    """Cross-entropy of finding each query's key among its key and the negatives of other subjects (eq. 1).

    Args:
        query, key: (n, d), any scale; they are normalised here. No gradient flows to keys or negatives.
        subject: integers (n,).
        negatives: (k, d), any scale.
        negative_subject: integers (k,); the query's own subject and -1 (an empty place) never count.
        temperature: divides the cosine similarities.

    Returns:
        Scalar: mean over the n queries.
    """
    query, key, negatives = unit(query), unit(ops.stop_gradient(key)), unit(ops.stop_gradient(negatives))
    positive = ops.sum(query * key, axis=1, keepdims=True) / temperature
    similarity = ops.matmul(query, ops.transpose(negatives)) / temperature
    row, column = ops.expand_dims(subject, 1), ops.expand_dims(negative_subject, 0)
    counts = (row != column) & (column != NOBODY)
    similarity = ops.where(counts, similarity, ops.full_like(similarity, NEVER))
    logits = ops.concatenate([positive, similarity], axis=1)
    return ops.mean(ops.logsumexp(logits, axis=1) - positive[:, 0])


class MoCo(Method):
    """Views → student: encoder, projection, predictor; teacher: encoder, projection → :func:`info_nce` both ways.

    Args:
        encoder, views, plan, seed: as in :class:`Method`.
        temperature: the loss's; 0.2 as in MoCo v2 and v3.
        hidden, projected: widths of the heads. MoCo v3's are 4096 and 256, MoCo v2's 2048 and 128.
        queue: number of remembered keys. The paper's 65,536 are 5% of ImageNet; a slice store is smaller, and keys go
            stale as the teacher moves on.
        momentum: the teacher's at the start; it rises to 1.
    """

    TITLE = "MoCo"

    def __init__(
        self,
        *parts: Any,
        temperature: float,
        hidden: int = 1024,
        projected: int = 128,
        queue: int = 4096,
        momentum: float = 0.99,
        **common: Any,
    ):
        super().__init__(*parts, **common)
        self.temperature = temperature
        self.head = mlp(self.features, (hidden, projected), name="projection", seed=self.seed)
        self.predictor = mlp(projected, (hidden, projected), name="prediction", seed=self.seed + 10)
        self.teacher = Teacher([self.encoder, self.head], momentum)
        self._encode = self.plan(self.encoder)
        self.queue = self.add_weight(
            shape=(queue, projected), initializer="zeros", trainable=False, name="queue"
        )
        # "int" is 64 bits wide on TensorFlow, which keeps 32-bit integers off the GPU.
        self.queue_subject = self.add_weight(
            shape=(queue,),
            initializer=keras.initializers.Constant(NOBODY),
            trainable=False,
            dtype="int",
            name="queue_subject",
        )

    def set_progress(self, share: Any) -> None:
        self.teacher.set_progress(share)

    def call(self, batch, training=True):
        """Queries and keys (2 * batch, projected), and the queue before these keys joined it."""
        if training:
            self.teacher.follow([self.encoder, self.head])
        views = self.both_views(batch)
        query = self.predictor(self.head(self._encode(views), training=training), training=training)
        key = self.teacher(views, training=training)
        # Copies: TensorFlow would read the variables only when the loss needs them, after the update.
        queue, queue_subject = ops.copy(self.queue), ops.copy(self.queue_subject)
        if training:
            subject = ops.tile(ops.cast(batch["subject"], queue_subject.dtype), (2,))
            length = self.queue.shape[0]
            self.queue.assign(ops.concatenate([unit(key), queue], axis=0)[:length])
            self.queue_subject.assign(ops.concatenate([subject, queue_subject], axis=0)[:length])
        query = ops.cast(query, "float32")
        return {"query": query, "key": key, "queue": queue, "queue_subject": queue_subject}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        q_a, q_b = ops.split(y_pred["query"], 2, axis=0)
        k_a, k_b = ops.split(y_pred["key"], 2, axis=0)
        subject = ops.cast(x["subject"], y_pred["queue_subject"].dtype)
        subjects = ops.concatenate([subject, y_pred["queue_subject"]], axis=0)

        def one_way(query, key):
            negatives = ops.concatenate([key, y_pred["queue"]], axis=0)
            return info_nce(query, key, subject, negatives, subjects, self.temperature)

        return (one_way(q_a, k_b) + one_way(q_b, k_a)) / 2

    def chance(self, pairs: int) -> float:
        """log of the number of candidates once the queue is full; less before."""
        return math.log(pairs + self.queue.shape[0])
