"""Three kinds of lesions for generated heads, each with its typical place and appearance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mri_transfer.datasets.synthetic.anatomy import Head, Point, Tissue, cranial_cavity, smooth_noise

KINDS = ("glioma", "meningioma", "pituitary")

_BRAIN = (Tissue.WHITE, Tissue.GREY, Tissue.DEEP_GREY, Tissue.CSF)


@dataclass(frozen=True)
class Lesion:
    """One lesion, drawn independently of the grid, so that slices and volumes show the same."""

    kind: str
    centre: Point  # head coordinates, mm
    radii: Point  # mm
    wall: float  # thickness of a glioma's enhancing rim, mm; 0 for none
    oedema: float  # mm around the lesion
    seed: int

    @classmethod
    def draw(cls, kind: str, rng: np.random.Generator) -> Lesion:
        size = {"glioma": (9, 22), "meningioma": (9, 21), "pituitary": (7, 13)}[kind]
        radius = rng.uniform(*size)
        if kind == "glioma":
            # Inside the brain, off the midline.
            side = rng.choice([-1, 1])
            centre = np.array([side * rng.uniform(18, 42), rng.uniform(-52, 48), rng.uniform(-6, 42)])
            radii = radius * rng.uniform(0.8, 1.25, 3)
        elif kind == "meningioma":
            # Against the inner skull, so that bone cuts off a third of it.
            direction = rng.normal(size=3)
            direction[2] = abs(direction[2]) * 0.9 - 0.1
            direction /= np.linalg.norm(direction)
            surface = direction / np.linalg.norm(direction / (67, 87, 70))
            centre = np.asarray(surface * (1 - 0.62 * radius / np.linalg.norm(surface)))
            radii = radius * rng.uniform(0.9, 1.12, 3)
        elif kind == "pituitary":
            # In the sella, growing upwards.
            centre = np.array([rng.normal(0, 1.5), 12 + rng.normal(0, 1), -31 + 0.55 * radius])
            radii = radius * np.array([rng.uniform(0.85, 1.15), 0.85, rng.uniform(0.9, 1.3)])
        return cls(
            kind=kind,
            centre=(float(centre[0]), float(centre[1]), float(centre[2])),
            radii=(float(radii[0]), float(radii[1]), float(radii[2])),
            wall=0.0 if rng.random() < 0.12 else float(rng.uniform(2.5, 6)),
            oedema=float(rng.uniform(3, 14) if kind == "glioma" else max(0, rng.uniform(-6, 6))),
            seed=int(rng.integers(2**31)),
        )


def add_lesion(head: Head, lesion: Lesion) -> None:
    """Paint a lesion into a head's labels."""
    t = Tissue
    rough = smooth_noise(head.axes, 17, np.random.default_rng(lesion.seed))[0]
    distance = head.ellipsoid(lesion.centre, lesion.radii)
    labels = head.labels
    if lesion.kind == "glioma":
        distance = distance + np.float32(2.6) * rough
        brain = np.isin(labels, _BRAIN)
        spread = distance < lesion.oedema * (1 + 0.5 * rough)
        labels[spread & (labels == t.WHITE)] = t.OEDEMA
        labels[brain & (distance < 0)] = t.RIM if lesion.wall else t.OEDEMA
        if lesion.wall:
            labels[brain & (distance < -lesion.wall * (1 + 0.35 * rough))] = t.NECROSIS
    elif lesion.kind == "meningioma":
        distance = distance + np.float32(0.7) * rough
        cavity = cranial_cavity(head)
        inside = cavity < -0.6
        labels[inside & (distance < lesion.oedema) & (labels == t.WHITE)] = t.OEDEMA
        labels[inside & (distance < 1.3) & np.isin(labels, _BRAIN)] = (
            t.CSF
        )  # the cleft between tumour and brain
        labels[inside & (distance < 0)] = t.MENINGIOMA
        labels[inside & (cavity > -2.4) & (distance < 9)] = t.MENINGIOMA  # the dural tail
    else:
        distance = distance + np.float32(0.8) * rough
        spared = (t.AIR, t.VITREOUS, t.FAT, t.SKIN)
        labels[(distance < 0) & ~np.isin(labels, spared)] = t.ADENOMA
