"""Views a board could process per night, estimated from its memory bandwidth, not measured on a board.

    KERAS_BACKEND=jax python benchmarks/bytes_a_view.py [--sizes 64,96,112,160]

XLA counts the bytes that an encoder's training step reads and writes, forward and backward, after fusing operations.
The network takes 0.1 billion multiply-adds for a 112 px picture, 0.6 GFLOP per view forward and backward, which the
weakest of these boards does in a millisecond; its memory takes several times as long and sets the pace. Training is
assumed to reach between a third and two thirds of the nominal bandwidth.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

VIEWS = 16  # in the counted step
NIGHT = 8 * 3600  # s
SHARES = (1 / 3, 2 / 3)  # of nominal bandwidth
# Memory GB/s, from NVIDIA's data sheets.
BOARDS = {
    "Jetson TX2 (8 GB)": 59.7,
    "Jetson Xavier NX (8 GB)": 51.2,
    "Jetson Orin Nano (8 GB)": 68.0,
    "Jetson AGX Orin (64 GB)": 204.8,
}


def bytes_moved(size: int) -> float:
    """Bytes that a step reads and writes per view of `size` pixels a side, float32."""
    import jax
    import jax.numpy as jnp

    from mri_transfer.checkpoints.backbones import build_encoder

    encoder = build_encoder(size=size)
    fixed = [variable.value for variable in encoder.non_trainable_variables]

    def loss(weights, images):
        features, statistics = encoder.stateless_call(weights, fixed, images, training=True)
        return jnp.mean(features**2), statistics

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    weights = [variable.value for variable in encoder.trainable_variables]
    images = jax.ShapeDtypeStruct((VIEWS, size, size, 1), jnp.float32)
    analysis = step.lower(weights, images).compile().cost_analysis()
    analysis = analysis[0] if isinstance(analysis, list) else analysis
    return analysis["bytes accessed"] / VIEWS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", default="64,96,112,160")
    sizes = [int(size) for size in parser.parse_args().sizes.split(",")]
    traffic = {size: bytes_moved(size) for size in sizes}
    print("| board | GB/s | " + " | ".join(f"{size} px: million views in 8 hours" for size in sizes) + " |")
    print("|---" * (len(sizes) + 2) + "|")
    print("| MB a view | | " + " | ".join(f"{amount / 1e6:.0f}" for amount in traffic.values()) + " |")
    for board, bandwidth in BOARDS.items():
        cells = [
            " to ".join(f"{NIGHT * share * bandwidth * 1e9 / amount / 1e6:.1f}" for share in SHARES)
            for amount in traffic.values()
        ]
        print(f"| {board} | {bandwidth:g} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
