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


def draw_views(store: SliceStore, config: PretrainConfig) -> dict[str, Any]:
    """Write a PNG: each row is a slice, views of it, its partner, and views of the partner."""
    device.prepare()
    from mri_transfer.pretrain.views import Views

    assert config.preview is not None
    sampler = PairSampler(
        store, positives=config.positives, max_mm=config.max_mm, batch=ROWS, seed=config.seed
    )
    batch = sampler(0)
    size = config.size or store.size
    make, keep = Views(size, config.strength, seed=config.seed), Views(size, 0.0)
    columns = []
    for images in (batch["a"], batch["b"]):
        columns.append(np.asarray(keep(images)))
        columns.extend(np.asarray(make(images)) for _ in range(VIEWS_EACH))
    sheet = np.full((ROWS * (size + GAP), len(columns) * (size + GAP)), 255, dtype=np.uint8)
    for j, column in enumerate(columns):
        for i in range(ROWS):
            top, left = i * (size + GAP), j * (size + GAP)
            sheet[top : top + size, left : left + size] = column[i, :, :, 0].round()
    with atomic_write(config.preview, "wb") as file:
        Image.fromarray(sheet).save(file, format="PNG")
    progress.say(
        f"{config.preview}: {ROWS} pairs; columns: slice, {VIEWS_EACH} views, partner, {VIEWS_EACH} views"
    )
    return {"preview": str(config.preview), "rows": ROWS}
