"""An encoder with batch-normalisation statistics of unaugmented slices instead of training views.

    python benchmarks/batch_statistics.py RUN STORE --out ENCODER [--size 160]

Pretraining leaves batch-normalisation averages of views that are cropped, noisy, shaded, and smaller than the tumour
set's images. This recomputes them over unchanged slices; no other weight changes. It is adaptive batch normalisation
(Li et al., "Revisiting Batch Normalization For Practical Domain Adaptation", 2016, https://arxiv.org/abs/1603.04779)
without looking at the tumour set. Use it with `mri-transfer compare --arm NAME=ENCODER`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.machine import device

BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="an encoder, or imagenet")
    parser.add_argument("store", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--slices", type=int, default=1536)
    a = parser.parse_args()
    device.prepare()
    import keras

    from mri_transfer.checkpoints.backbones import leaf_layers
    from mri_transfer.checkpoints.encoders import read_card, save_encoder
    from mri_transfer.checkpoints.initialisation import Initialisation
    from mri_transfer.pretrain.augmentations.views import Views

    builtin = a.run == "imagenet"
    card = {} if builtin else read_card(Path(a.run))
    backbone = card.get("backbone", "efficientnet_lite0")
    encoder, start = Initialisation.read(a.run, backbone).load(a.size)
    store = SliceStore.open(a.store)
    rows = np.sort(np.random.default_rng(0).choice(len(store), min(a.slices, len(store)), replace=False))
    np.random.default_rng(1).shuffle(rows)
    undisturbed = Views(a.size, 0.0)
    layers = [
        layer for _, layer in leaf_layers(encoder) if isinstance(layer, keras.layers.BatchNormalization)
    ]
    for number, first in enumerate(range(0, len(rows) - BATCH + 1, BATCH)):
        for layer in layers:
            layer.momentum = number / (number + 1)  # a plain mean over batches
        encoder(undisturbed(store.images(rows[first : first + BATCH])), training=True)
    provenance = {
        **card.get("provenance", {"start": start}),
        "batch_statistics": f"of {len(rows)} undisturbed slices",
    }
    save_encoder(encoder, a.out, backbone=backbone, size=a.size, provenance=provenance)


if __name__ == "__main__":
    main()
