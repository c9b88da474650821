"""SimCLR that also learns every slice's free labels: its plane, its place in the head, a pasted lesion.

The contrastive part is `simclr.py`. Predicting a slice's place in the body is an old pretext of medical imaging (Bai et
al., "Self-supervised learning for cardiac MR image segmentation by anatomical position prediction", MICCAI 2019,
https://arxiv.org/abs/1907.02757), and position along the axis also improves contrast (Zeng et al., "Positional
Contrastive Learning", MICCAI 2021, https://arxiv.org/abs/2106.09157). Lesions come from
`pretrain/augmentations/pasted_lesions.py`.

One linear layer predicts the labels from the features, as the probe that will judge them does. Contrast uses the same
views: both slices of a pair have the same lesion at the same place, so it helps to recognise a view rather than
hindering it.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import layers, ops

from mri_transfer.pretrain.augmentations import geometry, pasted_lesions
from mri_transfer.pretrain.methods.simclr import SimCLR, nt_xent
from mri_transfer.pretrain.pairs.free_labels import PLANES, SAGITTAL

# Predicted columns: plane logits, place along the axis, lesion logit, lesion description.
_PLACE = len(PLANES)
_LESION = _PLACE + 1
_DESCRIBED = _LESION + 1
PREDICTED = _DESCRIBED + len(pasted_lesions.DESCRIBED)
_VARIANCE = 1 / 12  # of a number uniform in 0..1


def free_label_loss(predicted: Any, targets: Any) -> tuple[Any, Any, Any, Any]:
    """Losses of predicting free labels; each about 1 for an uninformed prediction.

    Args:
        predicted: (n, PREDICTED) plane logits, place, lesion logit, description; places and descriptions as differences
            from 0.5, so that zeros are a neutral guess.
        targets: (n, 3 + description): plane (a number, negative if unknown), place along its axis (0..1), whether there
            is a lesion, its description (0..1 each).

    Returns:
        Scalars: the plane's cross-entropy divided by log(planes); the place's squared error divided by the variance of
        a uniform number in 0..1; the lesion's cross-entropy divided by log 2; its description's squared error,
        likewise. Means over labelled rows; 0 if there are none.
    """
    plane, place, present = (targets[:, i] for i in range(3))
    has_plane = ops.cast(plane >= 0, predicted.dtype)
    of_plane = ops.one_hot(ops.cast(ops.maximum(plane, 0), "int32"), len(PLANES), dtype=predicted.dtype)
    logits = predicted[:, :_PLACE]
    surprise = ops.logsumexp(logits, axis=1) - ops.sum(of_plane * logits, axis=1)
    lesion = predicted[:, _LESION]
    softplus = ops.maximum(lesion, 0.0) + ops.log1p(ops.exp(-ops.abs(lesion)))
    unlike = ops.mean((predicted[:, _DESCRIBED:] + 0.5 - targets[:, 3:]) ** 2, axis=1)
    return (
        _mean(surprise, has_plane) / math.log(len(PLANES)),
        _mean((predicted[:, _PLACE] + 0.5 - place) ** 2, has_plane) / _VARIANCE,
        ops.mean(softplus - present * lesion) / math.log(2),
        _mean(unlike, present) / _VARIANCE,
    )


def _mean(values: Any, weights: Any) -> Any:
    return ops.sum(values * weights) / ops.maximum(ops.sum(weights), 1.0)


class Hybrid(SimCLR):
    """Lesions on some pairs → views → encoder → projection for :func:`nt_xent`, a linear layer for free labels.

    A batch also has "plane" int32 (pairs,) and "position" float32 (pairs, 2), see `pretrain/pairs/free_labels.py`.

    Args:
        encoder, views, plan, temperature, decoupled, hidden, projected, seed: as in :class:`SimCLR`.
        lesions: share of pairs that get a lesion; with 0, nothing is learnt about lesions.
        label_weight: weight of each free-label loss, relative to the contrast's.
    """

    TITLE = "SimCLR with free labels"

    def __init__(self, *parts: Any, lesions: float, label_weight: float, **common: Any):
        super().__init__(*parts, **common)
        self.lesions, self.label_weight = lesions, label_weight
        self.random = keras.random.SeedGenerator(self.seed)
        self.reader = keras.Sequential(
            [
                keras.Input((self.features,)),
                layers.BatchNormalization(center=False, scale=False, name="labels_norm"),
                # Adam moves all weights of a prediction by the rate at once: a leap with a thousand features.
                layers.Rescaling(self.features**-0.5),
                layers.Dense(PREDICTED, kernel_initializer="zeros", name="labels_dense"),
            ],
            name="labels",
        )

    def call(self, batch, training=True):
        """For the 2 * batch views: "projected", "predicted" (PREDICTED numbers each) and "targets"."""
        slices = ops.concatenate([batch["a"], batch["b"]], axis=0)
        slices = geometry.shrink(ops.cast(slices, "float32") / 255.0, self.views.size)
        plane = ops.cast(batch["plane"], "float32")
        position = ops.reshape(ops.transpose(ops.cast(batch["position"], "float32")), (-1,))
        present = ops.zeros_like(plane)
        pairs = ops.shape(plane)[0]
        descriptors = ops.zeros((pairs, PREDICTED - _DESCRIBED))
        if self.lesions:
            numbers = pasted_lesions.uniform_numbers(pairs, self.random)
            slices, present, descriptors = pasted_lesions.paste(slices, numbers, self.lesions)
        plane, present = (ops.concatenate([x, x], axis=0) for x in (plane, present))
        descriptors = ops.concatenate([descriptors, descriptors], axis=0)
        # Views are mirrored, so left and right are indistinguishable in axial and coronal ones, and so are a head's
        # halves in sagittal ones.
        sagittal = plane == SAGITTAL
        position = ops.where(sagittal, _from_middle(position), position)
        across = ops.where(sagittal, descriptors[:, 0], _from_middle(descriptors[:, 0]))
        targets = ops.stack([plane, position, present, across], axis=1)
        targets = ops.concatenate([targets, descriptors[:, 1:]], axis=1)

        encoded = self._encode(self.views(slices * 255.0))
        return {
            "projected": ops.cast(self.head(encoded, training=training), "float32"),
            "predicted": ops.cast(self.reader(encoded, training=training), "float32"),
            "targets": targets,
        }

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        z_a, z_b = ops.split(y_pred["projected"], 2, axis=0)
        contrast = nt_xent(z_a, z_b, x["subject"], self.temperature, self.decoupled)
        plane, place, lesion, description = free_label_loss(y_pred["predicted"], y_pred["targets"])
        label_loss = plane + place + (lesion + description if self.lesions else 0.0)
        return contrast + self.label_weight * label_loss

    def chance(self, pairs: int) -> float:
        """The contrast's, plus 1 for each free label."""
        return super().chance(pairs) + self.label_weight * (4 if self.lesions else 2)


def _from_middle(share: Any) -> Any:
    """0 in the middle of 0..1, 1 at either end."""
    return ops.abs(2.0 * share - 1.0)
