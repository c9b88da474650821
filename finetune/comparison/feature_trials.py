"""Trials on fixed features, in any process: all give the same numbers, as BLAS has one thread.

This module imports no Keras, so that worker processes start in a second and cost little memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer.finetune.heads import forest, nearest, probe
from mri_transfer.storage.arrays import load_npz

FITS: dict[str, Callable[..., Any]] = {
    "probe": probe.fit_probe,
    "nearest": nearest.fit_nearest,
    "forest": forest.fit_forest,
}
SETTINGS = {"probe": probe.SETTINGS, "nearest": nearest.SETTINGS, "forest": forest.SETTINGS}


@lru_cache(maxsize=2)
def _features(path: Path) -> np.ndarray:
    return load_npz(path)["features"]


def feature_trial(
    mode: str,
    path: Path,
    labels: np.ndarray,
    groups: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    seed: int,
    elsewhere: Sequence[Path] = (),
) -> tuple[list[np.ndarray], dict[str, Any]]:
    """One classifier on fixed features, trained and tested.

    Args:
        mode: "probe", "nearest" or "forest".
        path: a verified file of :class:`~mri_transfer.finetune.heads.features.FeatureCache`.
        labels, groups: (n,) for all images.
        train, test: indices.
        seed: for inner splits.
        elsewhere: such files of other images, all tested too.

    Returns:
        float32 (len(test), classes), then one for every other set of images; and the fit's details.
    """
    started = time.monotonic()
    features = _features(Path(path))
    fitted = FITS[mode](features[train], labels[train], groups[train], seed)
    probabilities = [fitted.probabilities(features[test])]
    probabilities += [fitted.probabilities(_features(Path(other))) for other in elsewhere]
    return probabilities, fitted.details() | {"seconds": round(time.monotonic() - started, 3)}
