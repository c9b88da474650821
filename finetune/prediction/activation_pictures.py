"""Heat maps over pictures: draws and describes :mod:`mri_transfer.finetune.prediction.class_activation`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from PIL import Image

CAPTION = (
    "A map marks what speaks for the answer, coarsely; maps of different pictures with the same answer are much alike, "
    "so it doesn't show what the classifier saw in this one"
)
STRENGTH = 0.7  # of colour at maximum activation; the picture below stays visible


def overlay(image: np.ndarray, activation: np.ndarray, side: int | None = None) -> np.ndarray:
    """Overlay activation on a picture, from zero (no colour) to its own maximum (yellow).

    Colours get steadily lighter, so they are readable in grey and by the colour-blind.

    Args:
        image: uint8 (s, s).
        activation: (h, w), non-negative; maps are small and are interpolated smoothly.
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
    """Where most of the activation (h, w) is, for those who can't see it: "upper left", "centre", "nowhere"."""
    if not activation.any():
        return "nowhere"
    rows, columns = activation.shape
    down = float((activation.sum(1) * (np.arange(rows) + 0.5)).sum() / activation.sum()) / rows
    along = float((activation.sum(0) * (np.arange(columns) + 0.5)).sum() / activation.sum()) / columns
    return PLACES[(down > 0.42) + (down > 0.58)][(along > 0.42) + (along > 0.58)]


def beside(image: np.ndarray, activation: np.ndarray, side: int = 320) -> np.ndarray:
    """The classifier's input picture beside its overlay: uint8 (side, 2 × side, 3)."""
    plain = overlay(image, np.zeros_like(activation), side)
    return np.concatenate([plain, overlay(image, activation, side)], axis=1)


def likeness(maps: Iterable[tuple[str, int, np.ndarray]]) -> float | None:
    """Similarity of different pictures' maps: the mean correlation within one start and one answer.

    Args:
        maps: start, answer and map (h, w) per picture.

    Returns:
        Mean over all such pairs; None without any. Maps without activation are ignored.
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
