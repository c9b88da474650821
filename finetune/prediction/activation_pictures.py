"""Heat over pictures: what :mod:`mri_transfer.finetune.prediction.class_activation` finds, drawn and put into words."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from PIL import Image

CAPTION = (
    "A map marks what speaks for the answer, coarsely; maps of different pictures with the same answer are much alike, "
    "so it doesn't show what the classifier saw in this one"
)
STRENGTH = 0.7  # of the colour where the activation is greatest; the picture below stays visible


def overlay(image: np.ndarray, activation: np.ndarray, side: int | None = None) -> np.ndarray:
    """A picture with the activation laid over it, from nothing (no colour) to its own maximum (yellow).

    The colours grow lighter all the way, so they can be read in grey and by the colour-blind.

    Args:
        image: uint8 (s, s).
        activation: (h, w), not negative; a map has few places, between which it is drawn smoothly.
        side: of the result, pixels; None for s.

    Returns:
        uint8 (side, side, 3).
    """
    from matplotlib import colormaps

    side = side or image.shape[0]
    grey = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC), np.float32)
    highest = float(activation.max())
    share = (activation / highest if highest > 0 else np.zeros_like(activation)).astype(np.float32)
    share = np.clip(np.asarray(Image.fromarray(share).resize((side, side), Image.Resampling.BICUBIC)), 0, 1)
    colour = 255 * colormaps["inferno"](share)[..., :3]
    opacity = STRENGTH * share[..., None]
    return np.round((1 - opacity) * grey[..., None] + opacity * colour).astype(np.uint8)


PLACES = (
    ("upper left", "top", "upper right"),
    ("left", "centre", "right"),
    ("lower left", "bottom", "lower right"),
)


def where_strongest(activation: np.ndarray) -> str:
    """Where most of the activation (h, w) lies, for those who can't see it: "upper left", "centre", "nowhere"."""
    if not activation.any():
        return "nowhere"
    rows, columns = activation.shape
    down = float((activation.sum(1) * (np.arange(rows) + 0.5)).sum() / activation.sum()) / rows
    along = float((activation.sum(0) * (np.arange(columns) + 0.5)).sum() / activation.sum()) / columns
    return PLACES[(down > 0.42) + (down > 0.58)][(along > 0.42) + (along > 0.58)]


def beside(image: np.ndarray, activation: np.ndarray, side: int = 320) -> np.ndarray:
    """The picture as the classifier sees it, and the same with the activation: uint8 (side, 2 × side, 3)."""
    plain = overlay(image, np.zeros_like(activation), side)
    return np.concatenate([plain, overlay(image, activation, side)], axis=1)


def likeness(maps: Iterable[tuple[str, int, np.ndarray]]) -> float | None:
    """How alike the maps of different pictures are: the mean correlation of two of one start and one answer.

    Args:
        maps: start, answer and map (h, w) of each picture.

    Returns:
        Mean over all such pairs; None where there are none. Maps without activation are left out.
    """
    groups: dict[tuple[str, int], list[np.ndarray]] = {}
    for start, answer, activation in maps:
        if np.ptp(activation) > 0:
            groups.setdefault((start, answer), []).append(np.ravel(activation))
    correlations = [
        np.corrcoef(np.stack(group))[np.triu_indices(len(group), 1)]
        for group in groups.values()
        if len(group) > 1
    ]
    return float(np.concatenate(correlations).mean()) if correlations else None
