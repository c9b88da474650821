"""What a trial starts from, ready to make features: an encoder compiled for prediction, or no network at all."""

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
PIXEL_SIDE = 24  # of the images that are compared pixel by pixel


def load_compiled(
    start: Initialisation, size: int, imagenet_weights: Path | None = None
) -> tuple[Any, dict[str, Any]]:
    """As :meth:`Initialisation.load`, compiled for prediction; every network built before is forgotten."""
    device.prepare()
    import keras

    keras.utils.clear_session()  # else every network built so far stays in memory
    model, facts = start.load(size, imagenet_weights)
    model.compile(jit_compile=device.jit_compile())
    return model, facts


@dataclasses.dataclass(frozen=True)
class WithoutNetwork:
    """What stands in a start's place where there is no network.

    Attributes:
        kind: "pixels" or "figures".
    """

    kind: str

    def identity(self) -> tuple[str, dict[str, Any]]:
        """What identifies it, and what it is."""
        if self.kind == PIXELS:
            return f"{PIXELS}-{PIXEL_SIDE}", {"init": PIXELS, "side": PIXEL_SIDE}
        return f"{FIGURES}-{len(GLOBAL)}", {"init": FIGURES, "figures": list(GLOBAL)}

    def features(self, images: np.ndarray, names: Any = None) -> np.ndarray:
        """Features float32 (n, d) of uint8 (n, size, size); what they are called says nothing."""
        return pixel_features(images) if self.kind == PIXELS else global_figures(images)


def pixel_features(images: np.ndarray) -> np.ndarray:
    """Images as features: float32 (n, 576) of uint8 (n, size, size), means over areas of a grid of 24 x 24.

    Args:
        images: of 24 pixels a side or more; smaller ones are stretched.
    """
    from PIL import Image

    side = (PIXEL_SIDE, PIXEL_SIDE)
    small = [Image.fromarray(image).resize(side, Image.Resampling.BOX) for image in images]
    return np.stack([np.asarray(image, np.float32).ravel() for image in small])
