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
    return write_encoder(tmp_path_factory.mktemp("encoder") / "mri", seed=11)


@pytest.fixture(scope="session")
def encoder_of_each_seed(tmp_path_factory) -> str:
    """Encoders of seeds 0 and 1, as a path with a place for the seed."""
    folder = tmp_path_factory.mktemp("encoders")
    for seed in (0, 1):
        write_encoder(folder / f"mri-{seed}", seed)
    return str(folder / "mri-{seed}")


def write_encoder(folder: Path, seed: int) -> Path:
    from mri_transfer.checkpoints.encoders import save_encoder
    from mri_transfer.checkpoints.initialisation import Initialisation

    model, start = Initialisation.read("random", seed=seed).load(64)
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


def smooth(rng, count=1, side=64, width=3.0) -> np.ndarray:
    """Random smooth pictures, float (count, side, side), of mean 0 and deviation 1."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(rng.standard_normal((count, side, side)), (0, width, width))
    return noise / noise.std(axis=(1, 2), keepdims=True)


@pytest.fixture(scope="session")
def write_patients():
    """Write a folder of patients whose images are nearly alike, and return it.

    Args:
        folder: to be made.
        patients, images: how many, and of each.
        seed: of everything.
        signal: share of a picture's deviation that is its class's; the rest is its patient's.
        mixed: whether images of a patient fall on both sides of the published split.
    """
    from PIL import Image

    def write(folder: Path, *, patients=48, images=4, seed=0, signal=0.0, mixed=False) -> Path:
        rng = np.random.default_rng(seed)
        classes = smooth(np.random.default_rng(1), 4)
        for patient in range(patients):
            label = patient % 4 if signal else int(rng.integers(4))
            own = np.sqrt(1 - signal) * smooth(rng)[0] + np.sqrt(signal) * classes[label]
            for number in range(images):
                test = number == 0 if mixed else patient // 4 % 4 == 0
                place = folder / ("Testing" if test else "Training") / "abcd"[label]
                place.mkdir(parents=True, exist_ok=True)
                picture = np.sqrt(0.98) * own + np.sqrt(0.02) * smooth(rng)[0]
                pixels = np.clip(127 + 50 * picture, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"p ({100 * patient + number}).png")
        return folder

    return write


@pytest.fixture(scope="session")
def tiny(write_patients, tmp_path_factory) -> dict:
    """Settings of a comparison of two arms, probes and fine-tuning, whose trials take a second or two each."""
    from mri_transfer.checkpoints.encoders import save_encoder
    from mri_transfer.checkpoints.initialisation import Initialisation

    place = tmp_path_factory.mktemp("tiny")
    backbone, size = "mobilenet_v3_small", 32
    model, start = Initialisation.read("random", backbone, seed=1).load(size)
    save_encoder(model, place / "mri", backbone=backbone, size=size, provenance={"start": start})
    folder = write_patients(place / "set", patients=32, images=2, signal=0.3)
    of_training = {"epochs": 1, "unfreeze": 0.1, "calibration": "none"}
    arms = ("random", f"mri={place / 'mri'}")
    return {
        "tumors": folder,
        "arm": arms,
        "mode": "both",
        "size": size,
        "folds": 2,
        "seeds": 1,
        "draws": 100,
    } | of_training
