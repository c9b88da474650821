"""DINO: a student assigns a view to the prototypes that its own slow average chose for the other view.

Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021, https://arxiv.org/abs/2104.14294,
which also uses ResNet-50 (table 2). It uses two global views, as in the paper's figure 2; small local crops would cost
further passes and show too little of a head to identify it. It has no negatives, so slices of one subject need no care.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import layers, ops

from mri_transfer.pretrain.methods.heads import mlp, unit
from mri_transfer.pretrain.methods.method import Method
from mri_transfer.pretrain.methods.teacher import Teacher

WARM_UP = 0.3  # share of training during which the teacher's temperature rises; the paper's 30 of 100 epochs


def self_distillation(
    student: Any, teacher: Any, center: Any, student_temperature: float, teacher_temperature: Any
) -> Any:
    """Cross-entropy of the student's prototypes against the centred, sharpened teacher's (eq. 2, 3).

    Args:
        student, teacher: similarities to the prototypes (n, k), of different views. No gradient flows to the teacher.
        center: (k,), subtracted from the teacher's; without it one prototype wins everything.
        student_temperature, teacher_temperature: the teacher's must be lower, or all prototypes become alike.

    Returns:
        Scalar: mean over the n views.
    """
    target = ops.softmax(ops.stop_gradient((teacher - center) / teacher_temperature), axis=-1)
    return -ops.mean(ops.sum(target * ops.log_softmax(student / student_temperature, axis=-1), axis=-1))


@keras.saving.register_keras_serializable(package="mri_transfer")
class Prototypes(layers.Layer):
    """Cosine similarity of each row to learned directions: a dense layer whose kernel is normalised.

    Args:
        count: number of prototypes.
        seed: for directions.
    """

    def __init__(self, count: int, seed: int = 0, **options: Any):
        super().__init__(**options)
        self.count, self.seed = count, seed

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "count": self.count, "seed": self.seed}

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(self.count, input_shape[-1]),
            initializer=keras.initializers.RandomNormal(stddev=1.0, seed=self.seed),
            name="kernel",
        )

    def call(self, x):
        return ops.matmul(unit(x), ops.transpose(unit(self.kernel)))


def dino_head(features: int, hidden: int, bottleneck: int, prototypes: int, seed: int) -> keras.Sequential:
    """Three-layer MLP and prototypes (appendix C of the paper).

    It has batch normalisation, which the paper omits for transformers and its code offers for others: features of an
    untrained convolutional encoder differ little between slices, and without it the teacher chooses nearly the same
    prototypes for all.
    """
    model = mlp(features, (hidden, hidden, bottleneck), name="projection", seed=seed)
    # In float32: cosine differences of 0.01 matter, and bfloat16 has steps of 0.004 there.
    model.add(Prototypes(prototypes, seed=seed + 4, dtype="float32", name="prototypes"))
    return model


class DINO(Method):
    """Views → student and teacher: encoder, MLP, prototypes → :func:`self_distillation` both ways.

    Args:
        encoder, views, plan, seed: as in :class:`Method`.
        temperature: the student's.
        teacher_temperature: the teacher's, at the start and after :data:`WARM_UP`. Here the paper's 0.04 and 0.07 leave
            targets nearly flat for the first hundreds of steps; at 0.02 a dozen prototypes win everything.
        hidden, bottleneck, prototypes: widths of the head. The paper's 2048, 256 and 65,536 are for 1.28 million
            photographs in a thousand classes; a batch of 64 pairs can't keep that many prototypes in use. In fewer
            dimensions cosines differ more, and so do targets.
        momentum: the teacher's at the start; it rises to 1. On a five-layer network 0.99 left the loss at chance for
            150 steps and 0.95 did not. EfficientNet-Lite0 needs more: after 300 steps of 32 pairs its loss, which first
            rises as the targets sharpen, was still just above chance.
        center_momentum: for the teacher output's moving average.
    """

    TITLE = "DINO"

    def __init__(
        self,
        *parts: Any,
        temperature: float,
        teacher_temperature: tuple[float, float] = (0.025, 0.04),
        hidden: int = 1024,
        bottleneck: int = 64,
        prototypes: int = 1024,
        momentum: float = 0.95,
        center_momentum: float = 0.9,
        **common: Any,
    ):
        super().__init__(*parts, **common)
        self.temperature, self.teacher_temperature_range = temperature, teacher_temperature
        self.center_momentum = center_momentum
        self.head = dino_head(self.features, hidden, bottleneck, prototypes, self.seed)
        self.teacher = Teacher([self.encoder, self.head], momentum)
        self._encode = self.plan(self.encoder)
        self.center = self.add_weight(
            shape=(prototypes,), initializer="zeros", trainable=False, name="center"
        )
        self.teacher_temperature = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(teacher_temperature[0]),
            trainable=False,
            name="teacher_temperature",
        )

    def set_progress(self, share: Any) -> None:
        self.teacher.set_progress(share)
        low, high = self.teacher_temperature_range
        self.teacher_temperature.assign(low + (high - low) * ops.minimum(1.0, share / WARM_UP))

    def call(self, batch, training=True):
        """Similarities to prototypes (2 * batch, prototypes), and the centre before this batch's update."""
        if training:
            self.teacher.follow([self.encoder, self.head])
        views = self.both_views(batch)
        student = ops.cast(self.head(self._encode(views), training=training), "float32")
        teacher = self.teacher(views, training=training)
        # A copy: TensorFlow would read the variable only when the loss needs it, after the update.
        center = ops.copy(self.center)
        if training:  # eq. 4
            m = self.center_momentum
            self.center.assign(m * center + (1 - m) * ops.mean(teacher, axis=0))
        return {"student": student, "teacher": teacher, "center": center}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        s_a, s_b = ops.split(y_pred["student"], 2, axis=0)
        t_a, t_b = ops.split(y_pred["teacher"], 2, axis=0)
        shared = y_pred["center"], self.temperature, self.teacher_temperature.value
        return (self_distillation(s_a, t_b, *shared) + self_distillation(s_b, t_a, *shared)) / 2

    def chance(self, pairs: int) -> float:
        """log of the number of prototypes, all equally likely."""
        return math.log(self.center.shape[0])
