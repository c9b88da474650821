"""What a trial starts from, as a small value that any process can load: an encoder, or the pixels themselves."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer.datasets.tumors.global_figures import FIGURES as GLOBAL
from mri_transfer.datasets.tumors.global_figures import global_figures
from mri_transfer.machine import device

PIXELS = "pixels"
FIGURES = "figures"
NO_NETWORK = (PIXELS, FIGURES)
BUILT_IN = ("random", "imagenet", *NO_NETWORK)
SCALED = "scaled:"
PIXEL_SIDE = 24  # of the images that are compared pixel by pixel


@dataclasses.dataclass(frozen=True)
class Source:
    """A start.

    Attributes:
        origin: "random", "imagenet", "pixels", "figures" or the path of an encoder.
        backbone: the network's name; "" without one.
        kind: "random", "imagenet", "pixels", "figures", "scaled" or "encoder".
        seed: of what is random about it.
    """

    origin: str
    backbone: str
    kind: str
    seed: int = 0

    def load(self, size: int, imagenet_weights: Path | None = None) -> tuple[Any, dict[str, Any]]:
        """The encoder, compiled for prediction, and where it comes from.

        Raises:
            UserError: it is not there or damaged.
        """
        device.prepare()
        import keras

        from mri_transfer.checkpoints.encoders import start_encoder
        from mri_transfer.finetune.arms.control import rescale_at_random

        keras.utils.clear_session()  # else every network built so far stays in memory
        model, about = start_encoder(
            self.origin,
            backbone=self.backbone,
            size=size,
            seed=self.seed,
            imagenet_weights=imagenet_weights if self.origin == "imagenet" else None,
        )
        if self.kind == "scaled":
            rescale_at_random(model, self.seed)
            about = {"init": "scaled", "backbone": self.backbone, "seed": self.seed, "scale_of": about}
        model.compile(jit_compile=device.jit_compile())
        return model, about


def identity_without_network(kind: str) -> tuple[str, dict[str, Any]]:
    """What identifies a start that has no network, and what it is."""
    if kind == PIXELS:
        return f"{PIXELS}-{PIXEL_SIDE}", {"init": PIXELS, "side": PIXEL_SIDE}
    return f"{FIGURES}-{len(GLOBAL)}", {"init": FIGURES, "figures": list(GLOBAL)}


def features_without_network(kind: str, images: np.ndarray) -> np.ndarray:
    """Features float32 (n, d) of uint8 (n, size, size) by such a start."""
    return pixel_features(images) if kind == PIXELS else global_figures(images)


def pixel_features(images: np.ndarray) -> np.ndarray:
    """Images as features: float32 (n, 576) of uint8 (n, size, size), means over areas of a grid of 24 x 24.

    Args:
        images: of 24 pixels a side or more; smaller ones are stretched.
    """
    from PIL import Image

    side = (PIXEL_SIDE, PIXEL_SIDE)
    small = [Image.fromarray(image).resize(side, Image.Resampling.BOX) for image in images]
    return np.stack([np.asarray(image, np.float32).ravel() for image in small])
