"""Encoders that end earlier: does a comparison come out the same when the probe reads another feature map?

    python benchmarks/cut_encoders.py imagenet RUN ... --out DIR [--map -2] [--size 160]
    mri-transfer compare TUMORS --arm imagenet-early=DIR/imagenet.keras --arm mri-early=DIR/RUN.keras --out REPORT

writes each start as a Keras network that ends in the last feature map of another resolution, averaged over places:
--map -1 is what encoders end in anyway, -2 the map of twice that resolution. `stages.py` scores all of them on
development groups.
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
    parser.add_argument("--map", type=int, default=-2, help="counted from the end, by resolution")
    parser.add_argument("--size", type=int, default=160)
    a = parser.parse_args()
    from mri_transfer.machine import device

    device.prepare()
    import keras

    from mri_transfer.checkpoints.initialisation import Initialisation

    a.out.mkdir(parents=True, exist_ok=True)
    for start in a.starts:
        encoder, _ = Initialisation.read(start).load(a.size)
        maps = pooled_maps(encoder)
        name = list(maps)[a.map]
        path = a.out / f"{Path(start).name}.keras"
        keras.Model(encoder.input, maps[name], name=encoder.name).save(path)
        print(f"{path}: {name}", flush=True)


if __name__ == "__main__":
    main()
