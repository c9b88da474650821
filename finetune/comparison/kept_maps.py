"""Activation maps of fine-tuned classifiers on their test images, kept beside their trials for the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mri_transfer import progress
from mri_transfer.errors import UserError
from mri_transfer.finetune.heads.features import BATCH, extract_features
from mri_transfer.storage.arrays import Shape, check_shapes, load_npz, save_npz

if TYPE_CHECKING:
    from mri_transfer.finetune.heads.classifier import Classifier


def see_and_keep(
    path: Path, classifier: Classifier, images: np.ndarray, desc: str | None = None
) -> np.ndarray:
    """Compute a fine-tuned classifier's features of test images, and save its activation maps.

    Args:
        path: for activation and features; its folder is created.
        classifier: as fine-tuned.
        images: uint8 (n, size, size).
        desc: label of the progress bar; None shows none.

    Returns:
        float32 (n, d), the encoder's output.
    """
    from mri_transfer.finetune.prediction.class_activation import Explainer

    try:
        explain = Explainer(classifier)
    except UserError:  # an encoder that pools differently; it is still scored
        return extract_features(classifier.encoder, images, desc)
    features, activation = [], []
    for start in progress.bar(range(0, len(images), BATCH), desc=desc or "", unit="batch", leave=False):
        batch = images[start : start + BATCH]
        padding = BATCH - len(batch) if start else 0  # one shape only: another would be recompiled
        maps = explain(np.concatenate([batch, np.repeat(batch[-1:], padding, axis=0)]))
        features.append(maps.features[: len(batch)])
        activation.append(maps.activation[: len(batch)])
    all_features = np.concatenate(features)
    save_npz(path, {"heat": np.concatenate(activation), "features": all_features})
    return all_features


def load_kept(path: Path, expected: Mapping[str, Shape]) -> dict[str, np.ndarray] | None:
    """Kept arrays; None if missing or damaged: a report works without them.

    Args:
        path: the file.
        expected: shapes by name, as :func:`~mri_transfer.storage.arrays.check_shapes` takes them.
    """
    try:
        arrays = load_npz(path)
        check_shapes(arrays, {name: ("f", shape) for name, shape in expected.items()})
        return arrays
    except ValueError:
        return None


def kept_shapes(images: int) -> dict[str, Shape]:
    """Shapes of what :func:`see_and_keep` writes for `count` images."""
    return {"heat": (images, "classes", "rows", "columns"), "features": (images, "channels")}
