"""Resampling of whole groups, which keeps related images together."""

from __future__ import annotations

import numpy as np


def draw_groups(count: int, draws: int, generator: np.random.Generator) -> np.ndarray:
    """Draw `count` groups with replacement, `draws` times; float64 (draws, count), how often each was drawn."""
    picks = generator.integers(count, size=(draws, count)) + np.arange(draws)[:, None] * count
    return np.bincount(picks.ravel(), minlength=draws * count).reshape(draws, count).astype(np.float64)
