"""A trial's start, ready to compute features: an encoder compiled for prediction, or no network."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer.checkpoints.initialisation import Initialisation
from mri_transfer.datasets.tumors.global_figures import FIGURES as GLOBAL
from mri_transfer.datasets.tumors.global_figures import global_figures
from mri_transfer.machine import device

PIXELS = "pixels"
FIGURES = "figures"
NO_NETWORK = (PIXELS, FIGURES)
PIXEL_SIDE = 24  # of images compared pixel by pixel


def load_compiled(
    start: Initialisation, size: int, imagenet_weights: Path | None = None
) -> tuple[Any, dict[str, Any]]:
    """:meth:`Initialisation.load`, compiled for prediction; discards every network built before."""
    device.prepare()
    import keras

    keras.utils.clear_session()  # else all networks so far stay in memory
    model, facts = start.load(size, imagenet_weights)
    model.compile(jit_compile=device.jit_compile())
    return model, facts


@dataclasses.dataclass(frozen=True)
class WithoutNetwork:
    """A start's substitute if there is no network.

    Attributes:
        kind: "pixels" or "figures".
    """

    kind: str

    def identity(self) -> tuple[str, dict[str, Any]]:
        """Its identity and description."""
        if self.kind == PIXELS:
            return f"{PIXELS}-{PIXEL_SIDE}", {"init": PIXELS, "side": PIXEL_SIDE}
        return f"{FIGURES}-{len(GLOBAL)}", {"init": FIGURES, "figures": list(GLOBAL)}

    def features(self, images: np.ndarray, names: Any = None) -> np.ndarray:
        """Features float32 (n, d) of uint8 (n, size, size); names are ignored."""
        return pixel_features(images) if self.kind == PIXELS else global_figures(images)


def pixel_features(images: np.ndarray) -> np.ndarray:
    """Images as features: float32 (n, 576) of uint8 (n, size, size), area means on a 24 x 24 grid.

    Args:
        images: at least 24 pixels a side; smaller ones are stretched.
    """
    from PIL import Image

    side = (PIXEL_SIDE, PIXEL_SIDE)
    small = [Image.fromarray(image).resize(side, Image.Resampling.BOX) for image in images]
    return np.stack([np.asarray(image, np.float32).ravel() for image in small])
