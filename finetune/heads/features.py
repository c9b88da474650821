"""Features of every image, computed once per encoder and kept beside the report."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer import progress
from mri_transfer.storage.arrays import load_npz, save_npz
from mri_transfer.storage.files import atomic_write, to_json

FORMAT = 1
BATCH = 64


def extract_features(encoder: Any, images: np.ndarray, desc: str | None = "features") -> np.ndarray:
    """The encoder's features for every image.

    Args:
        encoder: Keras model, (batch, size, size, 1) in 0..255 to (batch, d).
        images: uint8 (n, size, size).
        desc: label of the progress bar; None shows none.

    Returns:
        float32 (n, d).
    """
    chunks = []
    bar = progress.bar(total=len(images), desc=desc, unit="image") if desc else None
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH, ..., None]
        count = len(batch)
        if count < BATCH and start:  # one shape only: another would be recompiled
            batch = np.concatenate([batch, np.repeat(batch[-1:], BATCH - count, axis=0)])
        chunks.append(np.asarray(encoder.predict_on_batch(batch), np.float32)[:count])
        if bar is not None:
            bar.update(count)
    if bar is not None:
        bar.close()
    return np.concatenate(chunks)


class FeatureCache:
    """The `features/` folder of a comparison: one file per encoder.

    Args:
        folder: created if needed.
        data: fingerprint of the images.
        size: their side, pixels.
    """

    def __init__(self, folder: Path, data: str, size: int):
        self.folder = Path(folder)
        self.folder.mkdir(exist_ok=True)
        self.data, self.size = data, size
        self.damaged: list[str] = []

    def path(self, weights: str) -> Path:
        """Path of the features of the encoder with this weights digest."""
        key = hashlib.sha256(self._header(weights).encode()).hexdigest()
        return self.folder / f"{weights[:12]}-{key[:12]}.npz"

    def _header(self, weights: str) -> str:
        return to_json(
            {"format": FORMAT, "weights": weights, "data": self.data, "size": self.size}, indent=None
        )

    def load(self, weights: str, count: int) -> np.ndarray | None:
        """The kept features (count, d), or None; a damaged file is noted and counts as none."""
        path = self.path(weights)
        if not path.exists():
            return None
        try:
            file = load_npz(path)
            features, header, digest = file["features"], str(file["header"]), str(file["sha256"])
            if header != self._header(weights) or features.shape[:1] != (count,):
                raise ValueError("it belongs to other images or another encoder")
            if hashlib.sha256(features.tobytes()).hexdigest() != digest:
                raise ValueError("its content does not match its checksum")
            if features.dtype != np.float32 or features.ndim != 2 or not np.isfinite(features).all():
                raise ValueError("its arrays are not those of a feature file")
            return features
        except (ValueError, KeyError) as error:
            self.damaged.append(f"{path}: {error}")
            return None

    def save(self, weights: str, features: np.ndarray) -> Path:
        """Keep features (n, d) of the encoder with this weights digest, atomically."""
        path = self.path(weights)
        features = np.ascontiguousarray(features, np.float32)
        digest = hashlib.sha256(features.tobytes()).hexdigest()
        texts = {"header": np.array(self._header(weights)), "sha256": np.array(digest)}
        save_npz(path, {"features": features, **texts})
        return path


def kept_images(folder: Path, data: str, images: np.ndarray) -> Path:
    """A file of raw images, for worker processes to map into memory.

    Args:
        folder: its folder.
        data: fingerprint of the images.
        images: uint8 (n, size, size).

    Returns:
        Its path, `.npy`; an identical existing file is left unchanged.
    """
    path = Path(folder) / f"images-{data[:12]}-{images.shape[1]}.npy"
    try:
        if np.array_equal(np.load(path, mmap_mode="r", allow_pickle=False), images):
            return path
    except Exception:  # missing or damaged: numpy raises different exceptions
        pass
    with atomic_write(path, "wb") as file:
        np.save(file, images)
    return path
