"""Every loss on fixed numbers: what several tests evaluate, and as a program, on whatever backend Keras runs on.

python losses.py FILE.npz    writes each loss and its gradients
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from mri_transfer.pretrain.methods.barlow_twins import cross_correlation_loss
from mri_transfer.pretrain.methods.byol import normalised_regression
from mri_transfer.pretrain.methods.dino import self_distillation
from mri_transfer.pretrain.methods.hybrid import free_label_loss
from mri_transfer.pretrain.methods.masked import masked_error
from mri_transfer.pretrain.methods.moco import info_nce
from mri_transfer.pretrain.methods.simclr import nt_xent
from mri_transfer.pretrain.methods.simsiam import negative_cosine
from mri_transfer.pretrain.methods.vicreg import vicreg_loss

SUBJECT = np.array([0, 0, 1, 2, 3, 3], "int32")
BANK_SUBJECT = np.array([-1, 0, 4, 1, 5, 5, 6, 2, -1], "int32")
TARGETS = np.c_[[0, 2, -1, 1, 1, 0], np.random.default_rng(8).uniform(size=(6, 7))]
TARGETS[:, 2] = [1, 0, 0, 1, 1, 0]
HIDDEN = (np.random.default_rng(7).uniform(size=(2, 6, 6, 1)) < 0.5).astype("float32")


class Case(NamedTuple):
    """A loss, what it takes, and which of that the gradient reaches."""

    loss: Callable[..., Any]
    inputs: tuple[np.ndarray, ...]
    trained: int  # the first so many inputs


def _normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def _as(like: Any, x: np.ndarray) -> Any:
    return ops.cast(x, like.dtype)


_A, _B, _BANK = _normal(0, 6, 5), _normal(1, 6, 5), _normal(2, 9, 5)
_IMAGES = np.random.default_rng(3).uniform(0, 255, (2, 6, 6, 1))

CASES = {
    "nt_xent": Case(lambda a, b: nt_xent(a, b, SUBJECT, 0.2), (_A, _B), 2),
    "decoupled": Case(lambda a, b: nt_xent(a, b, SUBJECT, 0.2, decoupled=True), (_A, _B), 2),
    "info_nce": Case(lambda q, k, bank: info_nce(q, k, SUBJECT, bank, BANK_SUBJECT, 0.2), (_A, _B, _BANK), 1),
    "negative_cosine": Case(negative_cosine, (_A, _B), 1),
    "normalised_regression": Case(normalised_regression, (_A, _B), 1),
    "cross_correlation": Case(lambda a, b: cross_correlation_loss(a, b, 0.01), (_A, _B), 2),
    # A third of the features varies more than the hinge asks for, so both of its sides are met.
    "vicreg": Case(vicreg_loss, (_A * [0.3, 0.5, 0.7, 2, 0.9], _B * [0.4, 3, 0.5, 0.6, 0.8]), 2),
    "self_distillation": Case(
        lambda s, t, center: self_distillation(s, t, center, 0.1, 0.04), (_A / 3, _B / 3, _BANK[0] / 9), 1
    ),
    "free_label_loss": Case(lambda p: sum(free_label_loss(p, _as(p, TARGETS))), (_normal(5, 6, 10),), 1),
    "masked_error": Case(
        lambda pixels: masked_error(pixels, _as(pixels, _IMAGES), _as(pixels, HIDDEN)),
        (_normal(4, 2, 6, 6, 1),),
        1,
    ),
}


def value(case: Case, inputs: tuple[np.ndarray, ...], dtype: str = "float32") -> float:
    """The loss of some inputs, computed in `dtype`."""
    return float(case.loss(*(ops.convert_to_tensor(x.astype(dtype)) for x in inputs)))


def gradients(case: Case, inputs: tuple[np.ndarray, ...], dtype: str = "float32") -> list[np.ndarray]:
    """The backend's gradients with respect to every input; zero where none flows."""
    arrays = [ops.convert_to_tensor(x.astype(dtype)) for x in inputs]
    if keras.backend.backend() == "jax":
        import jax

        return [np.asarray(g) for g in jax.grad(case.loss, argnums=tuple(range(len(arrays))))(*arrays)]
    import tensorflow as tf

    with tf.GradientTape() as tape:
        for x in arrays:
            tape.watch(x)
        loss = case.loss(*arrays)
    return [g.numpy() for g in tape.gradient(loss, arrays, unconnected_gradients="zero")]


if __name__ == "__main__":
    results = {}
    for name, case in CASES.items():
        results[name] = np.float64(value(case, case.inputs))
        for i, gradient in enumerate(gradients(case, case.inputs)):
            results[f"{name}_{i}"] = gradient
    np.savez(sys.argv[1], **results)
