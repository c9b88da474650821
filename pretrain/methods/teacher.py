"""A teacher: copies of a student's networks whose weights slowly follow the student's.

Tarvainen & Valpola, "Mean teachers are better role models", NeurIPS 2017, https://arxiv.org/abs/1703.01780; as used by
BYOL, MoCo and DINO.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from mri_transfer.checkpoints.backbones import set_normalization
from mri_transfer.checkpoints.normalization import fuse_batch_normalization


def momentum_at(share: Any, start: float) -> Any:
    """1 - (1 - start) (cos(pi share) + 1) / 2: from `start` to 1 along half a cosine (BYOL, section 3.2).

    Args:
        share: of training completed, 0..1; a number or a tensor.
        start: momentum at the beginning.
    """
    return 1 - (1 - start) * (ops.cos(math.pi * ops.minimum(1.0, share)) + 1) / 2


def copy_of(model: keras.Model) -> keras.Model:
    """A copy with the same layers and numbers, which no optimizer trains.

    The variables are frozen, not the layers: a frozen batch normalisation would use its moving statistics, and teachers
    normalise by the batch, as in the official code of BYOL, MoCo v3 and DINO.
    """
    copy = keras.models.clone_model(model)  # which draws new weights
    for new, old in zip(copy.variables, model.variables, strict=True):
        new.assign(old)
    fuse_batch_normalization(copy)
    set_normalization(copy)  # holds constructor values beside its variables
    for variable in copy.trainable_variables:
        variable.trainable = False
    return copy


class Teacher(keras.layers.Layer):
    """Copies of a student's models, called one after the other in its place.

    They are called plainly, whatever the student's plan: no gradient flows through them, so none of their activations
    need be kept.

    Args:
        students: flat functional or sequential models, the encoder first; pass them again to :meth:`follow`, so that
            Keras does not count their weights as the teacher's.
        momentum: at the start. Papers that train for 10^5 steps begin at 0.996 or 0.9995; over a night's thousands such
            an average would stay near random weights too long, and BYOL's official code uses 0.97 to 0.99 for shorter
            trainings.
    """

    def __init__(self, students: Sequence[keras.Model], momentum: float = 0.99):
        super().__init__(dtype="float32", name="teacher")
        self.copies = [copy_of(student) for student in students]
        self.start = momentum
        self.momentum = self.add_weight(
            shape=(), initializer=keras.initializers.Constant(momentum), trainable=False, name="momentum"
        )
        self.built = True

    def call(self, x, training=True):
        """The copies' output for `x`, in float32; no gradient flows through it."""
        for copy in self.copies:
            x = copy(x, training=training)
        return ops.stop_gradient(ops.cast(x, "float32"))

    def set_progress(self, share: Any) -> None:
        """Set the momentum for a training of which `share` is over."""
        self.momentum.assign(momentum_at(share, self.start))

    def follow(self, students: Sequence[keras.Model]) -> None:
        """Move every trained weight by a share of (1 - momentum) towards the student's.

        It runs at the beginning of a training step, in its graph, so it follows the optimizer's previous step. Batch
        normalisation's moving statistics are the teacher's own.
        """
        for copy, student in zip(self.copies, students, strict=True):
            for slow, fast in zip(copy.weights, student.weights, strict=True):
                if fast.trainable:
                    step = (1 - self.momentum) * (ops.stop_gradient(fast.value) - slow.value)
                    slow.assign(slow.value + step)
