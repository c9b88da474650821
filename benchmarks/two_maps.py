"""Encoders whose features are their last two feature maps together, as Keras files that `mri-transfer compare` takes.

    python benchmarks/two_maps.py imagenet RUN ... --out DIR [--size 160]
    mri-transfer compare TUMORS --arm imagenet-two=DIR/imagenet.keras --arm mri-two=DIR/RUN.keras --out REPORT

The maps are the last ones of the two coarsest resolutions, averaged over places and concatenated. `stages.py` scores
that reading beside each map alone; the earlier map alone is `--backbone NAME/16`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from stages import pooled_maps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("starts", nargs="+", help="imagenet, or pretraining runs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=160)
    a = parser.parse_args()
    from mri_transfer.machine import device

    device.prepare()
    import keras

    from mri_transfer.checkpoints.initialisation import Initialisation

    a.out.mkdir(parents=True, exist_ok=True)
    for start in a.starts:
        encoder, _ = Initialisation.read(start).load(a.size)
        features = keras.layers.Concatenate()(list(pooled_maps(encoder).values())[-2:])
        path = a.out / f"{Path(start).name}.keras"
        keras.Model(encoder.input, features, name=encoder.name).save(path)
        print(f"{path}: {features.shape[-1]} features", flush=True)


if __name__ == "__main__":
    main()
