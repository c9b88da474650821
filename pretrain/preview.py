"""Slices beside their random views, to be looked at before a night is spent on them."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from mri_transfer import device, progress
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.files import atomic_write
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.positives import PairSampler

ROWS, VIEWS_EACH = 8, 4
GAP = 4


def sample_views(store: SliceStore, config: PretrainConfig, pairs: int, each: int) -> dict[str, np.ndarray]:
    """Pairs as a run with this configuration meets them, and views of both slices of each.

    Args:
        store: the slices.
        config: of the run; its seed decides the draw.
        pairs: how many pairs.
        each: views of every slice.

    Returns:
        "a", "b": uint8 (pairs, size, size), the slices, only resampled; "views_a", "views_b": uint8 (pairs, each,
        size, size); "index_a", "index_b": int (pairs,), their rows in the store's table.
    """
    device.prepare()
    from mri_transfer.pretrain.views import Views

    sampler = PairSampler(
        store, positives=config.positives, max_mm=config.max_mm, batch=pairs, seed=config.seed
    )
    size = config.size or store.size
    make, keep = Views(size, config.strength, config.seed, config.strengths), Views(size, 0.0)

    def drawn(views: Any, images: np.ndarray) -> np.ndarray:
        return np.asarray(views(images))[..., 0].round().astype(np.uint8)

    found: dict[str, np.ndarray] = {}
    for side, index in zip("ab", sampler.indices(0), strict=True):
        images = store.images(index)
        found[f"index_{side}"], found[side] = index, drawn(keep, images)
        found[f"views_{side}"] = np.stack([drawn(make, images) for _ in range(each)], axis=1)
    return found


def draw_views(store: SliceStore, config: PretrainConfig) -> dict[str, Any]:
    """Write a PNG: each row is a slice, views of it, its partner, and views of the partner."""
    assert config.preview is not None
    found = sample_views(store, config, ROWS, VIEWS_EACH)
    rows = [np.concatenate([found[side][:, None], found[f"views_{side}"]], axis=1) for side in "ab"]
    tiles = np.pad(np.concatenate(rows, axis=1), ((0, 0), (0, 0), (0, GAP), (0, GAP)), constant_values=255)
    sheet = tiles.transpose(0, 2, 1, 3).reshape(ROWS * tiles.shape[2], -1)
    with atomic_write(config.preview, "wb") as file:
        Image.fromarray(sheet).save(file, format="PNG")
    progress.say(
        f"{config.preview}: {ROWS} pairs; columns: slice, {VIEWS_EACH} views, partner, {VIEWS_EACH} views"
    )
    return {"preview": str(config.preview), "rows": ROWS}
