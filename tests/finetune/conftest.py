"""Small inputs of stage 2: generated heads, blobs that a linear model can tell apart, an encoder on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def tumor_folder(tmp_path_factory) -> Path:
    """`Training` and `Testing` with about 120 generated images, leaks planted."""
    from mri_transfer.datasets.synthetic.generate import write_tumors

    folder = tmp_path_factory.mktemp("heads") / "tumors"
    write_tumors(folder, per_class=28, seed=0)
    return folder


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory) -> Path:
    """An encoder of the default backbone, with provenance that names a store which is gone."""
    from mri_transfer.checkpoints.encoders import save_encoder, start_encoder

    folder = tmp_path_factory.mktemp("encoder") / "mri"
    model, start = start_encoder("random", backbone="efficientnet_lite0", size=64, seed=11)
    provenance = {
        "start": start,
        "method": "simclr",
        "data": {"fingerprint": "f", "subjects": 2, "slices": 9},
        "seconds": 60,
        "config": {"store": "gone/store"},
    }
    save_encoder(model, folder, backbone="efficientnet_lite0", size=64, provenance=provenance)
    return folder


@pytest.fixture
def blobs():
    """Features (n, 12), labels and groups: four overlapping classes in groups of three."""
    rng = np.random.default_rng(3)
    labels = np.repeat(np.tile(np.arange(4), 20), 3)
    groups = np.repeat(np.arange(80), 3)
    centres = rng.normal(0, 0.6, (4, 12))
    features = (
        centres[labels] + np.repeat(rng.normal(0, 1, (80, 12)), 3, axis=0) + rng.normal(0, 0.7, (240, 12))
    )
    return features.astype(np.float32), labels, groups
