"""Non-MRI volumes: dead leaves, for the control arm "the same pretraining on pictures of nothing".

    python benchmarks/dead_leaves.py OUT [--volumes 172] [--side 70] [--seed 0]
    mri-transfer slices OUT --out store-leaves

A volume is packed with ellipsoids of random place, shape and grey, later ones hiding earlier ones, with radii of
density r^-3, as in Lee, Mumford & Huang, "Occlusion models for natural images", IJCV 2001; Baradad et al., "Learning to
See by Looking at Noise", NeurIPS 2021, https://arxiv.org/abs/2106.05963, showed that contrast on such pictures teaches
a network much of what photographs do. They are volumes rather than pictures, so that everything else matches MRI: three
planes, adjacent slices as pairs, as many subjects and about as many slices as the store they are compared with (172
volumes: 18,060 slices at 4 mm, where 172 people's have 17,935).

If ImageNet's weights gain as much on these as on MRI, the gain is not due to MRI.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np

MM = 2.0  # a voxel's side, as in the volumes compared
SMALLEST, LARGEST = 1.5, 24.0  # radii, voxels
COVERED = 3.0  # leaves are added until their volumes sum to this multiple of the whole


def radii(n: int, rng: np.random.Generator) -> np.ndarray:
    """n radii in voxels of density r^-3 between SMALLEST and LARGEST, by inverse transform sampling."""
    low, high = SMALLEST**-2, LARGEST**-2
    return (low - (low - high) * rng.random(n)) ** -0.5


def dead_leaves(side: int, rng: np.random.Generator) -> np.ndarray:
    """A volume, uint8 (side, side, side)."""
    volume = np.zeros((side, side, side), np.float32)
    remaining = COVERED * side**3
    while remaining > 0:
        radius = float(radii(1, rng)[0])
        axes = np.exp(rng.normal(0, 0.3, 3))
        axes *= radius / axes.prod() ** (1 / 3)
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        # x' A x < 1 is the ellipsoid; its box reaches as far as the roots of the diagonal of A's inverse.
        shape = turn @ np.diag(axes**-2) @ turn.T
        reach = np.sqrt(np.diag(turn @ np.diag(axes**2) @ turn.T))
        centre = rng.uniform(0, side, 3)
        box = [
            np.arange(max(0, int(c - r)), min(side, int(c + r) + 1))
            for c, r in zip(centre, reach, strict=True)
        ]
        x, y, z = np.meshgrid(
            *(edge - c for edge, c in zip(box, centre, strict=True)), indexing="ij", sparse=True
        )
        quadratic = shape[0, 0] * x * x + shape[1, 1] * y * y + shape[2, 2] * z * z
        quadratic = quadratic + 2 * (shape[0, 1] * x * y + shape[0, 2] * x * z + shape[1, 2] * y * z)
        grey, texture = rng.uniform(20, 235), rng.normal(0, rng.uniform(0, 12), quadratic.shape)
        voxels = volume[np.ix_(*box)]
        volume[np.ix_(*box)] = np.where(quadratic < 1, grey + texture, voxels)
        remaining -= 4 / 3 * np.pi * radius**3
    return volume.clip(0, 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--volumes", type=int, default=172)
    parser.add_argument("--side", type=int, default=70, help="voxels of a side")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    for number in range(a.volumes):
        volume = dead_leaves(a.side, np.random.default_rng([a.seed, number]))
        image = nib.Nifti1Image(volume, np.diag([MM, MM, MM, 1.0]))
        nib.save(image, a.out / f"leaves{number:04d}.nii.gz")
    print(f"{a.out}: {a.volumes} volumes of {a.side} voxels a side")


if __name__ == "__main__":
    main()
