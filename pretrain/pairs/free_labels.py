"""A slice store's free labels, as numbers that a method can learn to predict."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

PLANES = ("axial", "coronal", "sagittal")
SAGITTAL = PLANES.index("sagittal")
UNKNOWN = -1


def plane_numbers(plane: np.ndarray) -> np.ndarray:
    """int32 (n,): index in PLANES, or UNKNOWN for any other name."""
    numbers = {name: number for number, name in enumerate(PLANES)}
    names, inverse = np.unique(plane, return_inverse=True)
    codes = np.array([numbers.get(str(name), UNKNOWN) for name in names], dtype=np.int32)
    return codes[inverse.reshape(-1)]


class FreeLabels:
    """Plane and position of the slices of a store.

    Args:
        table: the store's; single pictures have no known position, and their plane also counts as unknown.
    """

    def __init__(self, table: Mapping[str, np.ndarray]):
        volume = np.asarray(table["volume"])
        alone = np.bincount(volume)[volume] < 2
        self.plane = np.where(alone, UNKNOWN, plane_numbers(np.asarray(table["plane"]))).astype(np.int32)
        self.position = np.asarray(table["position"], dtype=np.float32)

    def of_pairs(self, a: np.ndarray, b: np.ndarray) -> dict[str, np.ndarray]:
        """ "plane" int32 (pairs,), which both slices share, and "position" float32 (pairs, 2), 0..1 of the volume."""
        return {
            "plane": self.plane[a],
            "position": np.stack([self.position[a], self.position[b]], axis=1),
        }
