"""Generated heads: tissue at each point of a grid, from ellipsoids, capsules and band-limited noise.

Nothing here was measured on anyone. The heads exist for trying and testing the program without data; they say nothing
about real MRI. Coordinates are millimetres in a frame like RAS (x to the right, y to the front, z up) whose origin is
the centre of the brain.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

Axes = tuple[np.ndarray, np.ndarray, np.ndarray]  # x, y and z of the grid's planes, mm
Point = tuple[float, float, float]


class Tissue(IntEnum):
    """A voxel's tissue; :mod:`mri_transfer.datasets.synthetic.contrasts` gives each a brightness."""

    AIR = 0
    SKIN = 1
    FAT = 2
    MUSCLE = 3
    BONE = 4
    MARROW = 5
    CSF = 6
    GREY = 7
    WHITE = 8
    DEEP_GREY = 9
    MUCOSA = 10
    VITREOUS = 11
    VESSEL = 12
    GLAND = 13
    DURA = 14
    NECROSIS = 15
    RIM = 16
    OEDEMA = 17
    MENINGIOMA = 18
    ADENOMA = 19


@dataclass(frozen=True)
class Shape:
    """Parameters in which heads differ."""

    scale: Point
    tilt: float  # radians, chin towards the chest
    turn: float  # radians, nose towards the right
    roll: float  # radians, right ear towards the shoulder
    ventricles: float  # relative width
    folds: float  # relative width of the sulci: more with age
    scalp: float  # mm
    nose: float  # relative size
    seed: int

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Shape:
        size = rng.normal(1, 0.03)
        return cls(
            scale=(
                size * rng.normal(1, 0.04),
                size * rng.normal(1, 0.04),
                size * rng.normal(1, 0.04),
            ),
            tilt=rng.normal(0, 0.09),
            turn=rng.normal(0, 0.04),
            roll=rng.normal(0, 0.04),
            ventricles=float(np.clip(rng.normal(1, 0.25), 0.6, 1.7)),
            folds=float(np.clip(rng.normal(1, 0.3), 0.4, 1.8)),
            scalp=float(np.clip(rng.normal(6.0, 1.6), 3.5, 10)),
            nose=float(rng.uniform(0.85, 1.2)),
            seed=int(rng.integers(2**31)),
        )


def smooth_noise(
    axes: Axes, wavelength: float, rng: np.random.Generator, slopes: bool = False
) -> list[np.ndarray]:
    """Band-limited noise of unit variance on a grid of any planes: random B-spline coefficients, interpolated.

    Args:
        axes: the grid's planes, mm; any subset of a grid's planes samples the same field.
        wavelength: mm; knots are spaced at half of it.
        rng: draws the coefficients, the same number for any grid.
        slopes: also return the derivatives along x, y and z, per mm.

    Returns:
        float32 arrays of the grid's shape: the noise, and with `slopes` three more.
    """
    spacing = wavelength / 2
    reach = 150.0
    knots = np.arange(-reach, reach + spacing, spacing)
    weights = rng.standard_normal((len(knots),) * 3, dtype=np.float32) * np.float32(0.48**-1.5)
    values, derivatives = [], []
    for d, axis in enumerate(axes):
        # Only knots that affect this grid; the spline is zero two knots away.
        near = (knots > np.min(axis) - 2 * spacing) & (knots < np.max(axis) + 2 * spacing)
        weights = np.compress(near, weights, axis=d)
        u = (np.asarray(axis)[None] - knots[near, None]) / spacing
        size = np.abs(u)
        inner, outer = size < 1, (size >= 1) & (size < 2)
        values.append(np.where(inner, 2 / 3 - u**2 + size**3 / 2, np.where(outer, (2 - size) ** 3 / 6, 0)))
        slope = np.where(inner, -2 * size + 1.5 * size**2, np.where(outer, -((2 - size) ** 2) / 2, 0))
        derivatives.append(slope * np.sign(u) / spacing)
    fields = []
    for which in range(4 if slopes else 1):
        field = weights
        for d in range(3):  # each pass replaces the first axis, of knots, by a last one, of planes
            spline = (derivatives if which == d + 1 else values)[d].astype(np.float32)
            field = np.tensordot(field, spline, (0, 0))
        fields.append(field)
    return fields


class Head:
    """A head on a grid: `labels` is filled by painting one tissue over another, from the outside in."""

    def __init__(self, axes: Axes, shape: Shape) -> None:
        self.axes = axes
        self.shape = shape
        self.rng = np.random.default_rng(shape.seed)
        self.labels = np.zeros(tuple(len(axis) for axis in axes), np.uint8)
        # Head coordinates of every voxel: turn and scale, then bend smoothly by a few mm.
        self._rotation = _rotation(shape)
        world = np.meshgrid(*(np.asarray(axis, np.float32) for axis in axes), indexing="ij", sparse=True)
        self.x, self.y, self.z = (
            (
                self._rotation[0, d] * world[0]
                + self._rotation[1, d] * world[1]
                + self._rotation[2, d] * world[2]
            )
            / np.float32(shape.scale[d])
            + np.float32(2.2) * smooth_noise(axes, 75, self.rng)[0]
            for d in range(3)
        )
        _paint_head(self)

    def box(self, centre: Point, reach: float) -> tuple[slice, slice, slice]:
        """The part of the grid within `reach` mm of a point in head coordinates, with a margin for the bending."""
        world = self._rotation @ (np.asarray(centre) * np.asarray(self.shape.scale))
        reach = reach * max(self.shape.scale) + 9
        slices = []
        for axis, middle in zip(self.axes, world, strict=True):
            inside = np.flatnonzero(np.abs(np.asarray(axis) - middle) <= reach)
            slices.append(slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0))
        return slices[0], slices[1], slices[2]

    def ellipsoid(
        self, centre: Point, radii: Point, box: tuple[slice, slice, slice] | None = None
    ) -> np.ndarray:
        """Approximate signed distance to an ellipsoid, mm, negative inside (Inigo Quilez's bound k0 (k0 - 1) / k1)."""
        region = box or (slice(None),) * 3
        k0 = np.float32(0)
        k1 = np.float32(0)
        for coordinate, c, r in zip((self.x, self.y, self.z), centre, radii, strict=True):
            offset = (coordinate[region] - np.float32(c)) / np.float32(r)
            k0 = k0 + offset * offset
            offset /= np.float32(r)
            k1 = k1 + offset * offset
        k0 = np.sqrt(k0)
        return k0 * (k0 - 1) / np.sqrt(np.maximum(k1, np.float32(1e-9)))

    def paint(
        self,
        tissue: Tissue,
        centre: Point,
        radii: Point,
        *,
        over: tuple[Tissue, ...] = (),
        mirrored: bool = False,
    ) -> None:
        """Fill an ellipsoid with a tissue; `over` limits it to voxels of these tissues, `mirrored` does both sides."""
        for side in (1, -1) if mirrored else (1,):
            middle = (side * centre[0], centre[1], centre[2])
            box = self.box(middle, max(radii))
            patch = self.labels[box]
            if patch.size:
                inside = self.ellipsoid(middle, radii, box) < 0
                if over:
                    inside &= np.isin(patch, over)
                patch[inside] = tissue

    def rod(
        self, tissue: Tissue, start: Point, end: Point, radius: float, *, over: tuple[Tissue, ...] = ()
    ) -> None:
        """Fill a capsule between two points with a tissue."""
        a, b = np.asarray(start, np.float32), np.asarray(end, np.float32)
        box = self.box(tuple((a + b) / 2), float(np.linalg.norm(b - a)) / 2 + radius)
        patch = self.labels[box]
        if not patch.size:
            return
        points = [coordinate[box] for coordinate in (self.x, self.y, self.z)]
        along = sum((points[d] - a[d]) * (b[d] - a[d]) for d in range(3)) / np.float32(((b - a) ** 2).sum())
        along = np.clip(along, 0, 1)
        away = sum((points[d] - a[d] - along * (b[d] - a[d])) ** 2 for d in range(3))
        inside = away < radius**2
        if over:
            inside &= np.isin(patch, over)
        patch[inside] = tissue


def _rotation(shape: Shape) -> np.ndarray:
    """Head to world."""

    def rotation(axis: int, angle: float) -> np.ndarray:
        turn = np.eye(3)
        first, second = (d for d in range(3) if d != axis)
        turn[[first, second], [first, second]] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        return turn

    return (rotation(0, shape.tilt) @ rotation(1, shape.roll) @ rotation(2, shape.turn)).astype(np.float32)


def _union(first: np.ndarray, second: np.ndarray, blend: float) -> np.ndarray:
    """Smooth minimum of two distances: shapes blend over `blend` mm."""
    mix = np.clip(0.5 + (second - first) / (2 * blend), 0, 1)
    return second + (first - second) * mix - blend * mix * (1 - mix)


def _step(values: np.ndarray) -> np.ndarray:
    """Logistic step from 0 to 1."""
    return 1 / (1 + np.exp(-np.clip(values, -30, 30)))


def _taper(head: Head) -> np.ndarray:
    return (0.05 * head.y) * np.abs(head.x) / 60


def cranial_cavity(head: Head) -> np.ndarray:
    """Signed distance to the inner skull, mm: an ovoid with the three steps of the skull base cut off."""
    x, y, z = head.x, head.y, head.z
    # The back of the head is wider than the forehead.
    ovoid = head.ellipsoid((0, 0, 0), (67, 87, 70)) + _taper(head)
    front = -30 + 24 * np.exp(-((x / 22) ** 2))  # the posterior fossa reaches further forward in the middle
    floor = -20 - 20 * _step((24 - y) / 4) - 26 * _step((front - y) / 4)
    sella = 9 * np.exp(-((x / 13) ** 2) - ((y - 12) / 16) ** 2)
    base = floor + sella - z
    return -_union(-ovoid, -base, 6)


def _paint_head(head: Head) -> None:
    shape, t = head.shape, Tissue
    x, y, z, labels = head.x, head.y, head.z, head.labels
    side = np.abs(x)
    cavity = cranial_cavity(head)
    fine = smooth_noise(head.axes, 16, head.rng)[0]
    broad = smooth_noise(head.axes, 50, head.rng)[0]

    # Outer surface: cranium, face, nose, chin, neck and ears blend together.
    skull = head.ellipsoid((0, 0, 0), (75, 95, 78)) + _taper(head)
    scalp = np.float32(shape.scalp)
    outer = skull - scalp
    outer = _union(outer, head.ellipsoid((0, 42, -62), (56, 48, 62)), 18)
    outer = _union(outer, head.ellipsoid((0, 62, -104), (34, 30, 22)), 16)
    neck = np.maximum(np.sqrt((x / 56) ** 2 + ((y + 18 - 0.12 * (z + 60)) / 58) ** 2) * 56 - 56, z + 50)
    outer = _union(outer, neck, 20)
    n = shape.nose
    outer = _union(outer, head.ellipsoid((0, 96, -58), (13 * n, 16 * n, 13 * n)), 9)
    outer = _union(outer, head.ellipsoid((0, 88, -40), (8 * n, 12 * n, 22)), 8)
    brow = head.ellipsoid((0, 72, -16), (48, 20, 9))
    outer = _union(outer, brow, 8)
    ears = np.minimum(
        head.ellipsoid((80, -14, -38), (9, 15, 26)), head.ellipsoid((-80, -14, -38), (9, 15, 26))
    )
    outer = _union(outer, ears, 5)
    # Eye sockets are hollows in the face.
    sockets = np.minimum(
        head.ellipsoid((31, 96, -30), (17, 15, 12)), head.ellipsoid((-31, 96, -30), (17, 15, 12))
    )
    outer = -_union(-outer, sockets, 6)

    labels[outer < 0] = t.SKIN
    labels[outer < -2] = t.FAT
    muscle = (outer < -scalp + 1.5 * fine) & (z < -8 - 0.25 * y) | (outer < -scalp - 1) & (z < -30)
    labels[muscle] = t.MUSCLE
    streaks = muscle & (np.abs(fine) < 0.2) & (broad > 0.3) & (z < -40)
    labels[streaks] = t.FAT
    # The temporal muscle fills the side of the skull.
    labels[(skull > 0) & (outer < -2.5) & (side > 50) & (z < 18) & (z > -50) & (y > -18) & (y < 48)] = (
        t.MUSCLE
    )

    _paint_face(head)

    # Skull: two dark tables with marrow between them, thick at the back, around the cavity and its base.
    thickness = 7 + 1.2 * fine - 0.018 * y
    shell = (cavity > 0) & (cavity < thickness)
    labels[shell] = t.BONE
    labels[shell & (cavity > 2.2) & (cavity < thickness - 1.8) & (fine > -1.6)] = t.MARROW
    head.paint(t.MARROW, (0, -4, -46), (9, 9, 12))  # clivus
    head.paint(t.AIR, (0, 16, -47), (13, 12, 9))  # sphenoid sinus
    for mirror in (1, -1):
        head.paint(t.BONE, (mirror * 36, -22, -44), (22, 9, 7))  # petrous bones
    head.paint(
        t.AIR, (58, -32, -52), (8, 9, 11), mirrored=True, over=(t.BONE, t.MUSCLE, t.FAT)
    )  # mastoid cells

    _paint_brain(head, cavity)


def _paint_face(head: Head) -> None:
    t = Tissue
    soft = (t.MUSCLE, t.FAT)
    head.paint(t.MARROW, (0, 66, -88), (30, 14, 10), over=soft)  # upper jaw
    head.paint(t.BONE, (0, 72, -97), (24, 8, 5), over=(*soft, t.MARROW))  # teeth
    head.paint(t.MARROW, (0, 66, -114), (26, 12, 8), over=soft)  # lower jaw
    head.paint(t.BONE, (47, 28, -92), (4, 15, 26), mirrored=True, over=soft)
    head.paint(t.MUSCLE, (0, 44, -101), (21, 24, 14))  # tongue
    head.paint(t.MUCOSA, (0, 58, -60), (18, 34, 18))  # nasal cavity: air between shelves lined with mucosa
    head.paint(t.MUCOSA, (0, 50, -42), (13, 24, 10))
    head.paint(t.AIR, (0, 58, -60), (16, 31, 15.5))
    head.paint(t.AIR, (5, 62, -41), (3, 9, 7), mirrored=True)  # ethmoid cells
    head.paint(t.AIR, (6, 42, -42), (4, 9, 6), mirrored=True)
    head.paint(t.MUCOSA, (0, 62, -58), (1.6, 24, 14))  # septum
    for shelf, length in ((-68, 24), (-59, 20), (-51, 14)):
        head.paint(t.MUCOSA, (8, 52, shelf), (5.5, length, 2.8), mirrored=True)
    head.paint(t.MUCOSA, (30, 54, -66), (16, 18, 17), mirrored=True)
    head.paint(t.AIR, (30, 54, -66), (14, 16, 15), mirrored=True)  # maxillary sinuses
    head.paint(t.AIR, (0, 84, -8), (14, 4, 8), over=(*soft, t.SKIN))  # frontal sinus
    head.rod(t.AIR, (0, 20, -68), (0, 4, -140), 7)  # pharynx and airway
    for mirror in (1, -1):
        head.paint(t.BONE, (mirror * 29, 58, -29), (20, 28, 17), over=soft)
        head.paint(t.FAT, (mirror * 29, 60, -29), (18, 28, 15))
        for lift in (-9, 9):  # eye muscles
            head.rod(t.MUSCLE, (mirror * 16, 34, -29), (mirror * 30, 70, -29 + lift), 2.2)
        head.rod(t.MUSCLE, (mirror * 16, 34, -29), (mirror * 42, 68, -29), 2.2)
        head.rod(t.MUSCLE, (mirror * 14, 34, -29), (mirror * 20, 72, -29), 2.2)
        head.rod(t.WHITE, (mirror * 10, 24, -28), (mirror * 30, 66, -29), 2.2)  # optic nerve
        head.paint(t.MUSCLE, (mirror * 31, 75, -29), (13, 13, 13))
        head.paint(t.VITREOUS, (mirror * 31, 75, -29), (11.5, 11.5, 11.5))
        head.paint(t.MUSCLE, (mirror * 31, 84, -29), (5, 2.5, 5))  # lens
    # Spine: vertebral bodies in front of the canal, a dark rim around the canal.
    head.rod(t.BONE, (0, -14, -66), (0, -8, -150), 13)
    head.rod(t.MARROW, (0, -10, -70), (0, -4, -150), 9)
    for level in (-90, -108, -126):
        head.paint(t.MUSCLE, (0, -5, level), (11, 11, 1.8))
    head.rod(t.BONE, (0, -34, -66), (0, -28, -150), 13)
    head.rod(t.CSF, (0, -32, -50), (0, -26, -150), 9)


def _paint_brain(head: Head, cavity: np.ndarray) -> None:
    shape, t = head.shape, Tissue
    x, y, z, labels = head.x, head.y, head.z, head.labels
    side = np.abs(x)
    inside = cavity < 0
    labels[inside] = t.CSF
    labels[inside & (cavity > -1.3)] = t.DURA

    # Distance to the nearest sulcus: noise over its slope is the distance to the sheet where it is zero.
    noise, *slopes = smooth_noise(head.axes, 19, head.rng, slopes=True)
    steepness = np.sqrt(sum(slope * slope for slope in slopes))
    sulcus = np.abs(noise) / np.maximum(steepness, np.float32(0.06))
    wander = smooth_noise(head.axes, 40, head.rng)[0]

    tent = -9 + 0.24 * (y + 30) - 0.10 * side
    below = (y < -22) & (z < tent)
    depth = -cavity - 3.0
    cisterns = head.ellipsoid((0, -10, -26), (23, 22, 15))
    cerebrum = (depth > 0) & ~below & (cisterns > 0)

    # Sylvian fissures run up and back at the side of each hemisphere.
    sylvian = np.abs(z + 8 - 0.35 * (10 - y) + 2 * wander)
    lateral = (side > 34) & (y > -32) & (y < 30)
    sulcus = np.where(lateral, np.minimum(sulcus, sylvian + 0.3), sulcus)

    callosum = np.sqrt(((y + 6) / 41) ** 2 + ((z - 1) / 29) ** 2)
    medial = side + 50 * ((callosum < 1) & (z > -30))  # the hemispheres touch, except below the callosum
    surface = np.minimum(np.minimum(depth, medial - 0.2), np.where(y < -22, z - tent, 99))

    labels[cerebrum] = t.WHITE
    reach = 20 + 4 * wander
    labels[
        cerebrum & ((surface < 3.6) | ((sulcus < 3.4) & (depth < reach)) | ((sulcus < 3.4) & (medial < 12)))
    ] = t.GREY
    open_to = np.float32(1.15 * shape.folds) * (1 - 0.5 * depth / reach)
    labels[cerebrum & (((sulcus < open_to) & (depth < reach - 3)) | (medial < 0.9 + 0.5 * shape.folds))] = (
        t.CSF
    )

    _paint_deep(head, cerebrum)

    # Cerebellum: a finer, flatter folding around a white core.
    lobes = np.minimum(
        head.ellipsoid((25, -52, -36), (36, 33, 30)), head.ellipsoid((-25, -52, -36), (36, 33, 30))
    )
    lobes = _union(lobes, head.ellipsoid((0, -58, -36), (12, 22, 24)), 5)
    cerebellum = (lobes < 0) & (y < -19) & (cavity < -2.5) & (z < tent - 2.5)
    radius = np.sqrt((y + 40) ** 2 + (z + 34) ** 2)
    leaves = np.cos((np.arctan2(z + 34, -(y + 40)) * 13 + 1.1 * noise + 0.03 * side) + radius * 0.05)
    labels[cerebellum] = t.GREY
    labels[cerebellum & (lobes < -4) & ((leaves > 0.25) | (lobes < -13))] = t.WHITE
    labels[cerebellum & (leaves < -0.88) & (lobes > -9)] = t.CSF

    # Brainstem and cord, with the fourth ventricle behind the pons.
    head.rod(t.WHITE, (0, -12, -6), (0, -20, -40), 11)
    head.paint(t.WHITE, (0, -13, -30), (15, 12, 13))
    head.rod(t.WHITE, (0, -24, -44), (0, -31, -68), 7.5)
    head.rod(t.WHITE, (0, -31, -62), (0, -26, -150), 5)
    head.rod(t.CSF, (0, -24, -8), (0, -30, -28), 1.6)
    head.paint(t.CSF, (0, -34, -36), (7 * shape.ventricles, 5, 8))

    # Vessels and the pituitary gland.
    head.rod(t.VESSEL, (13, 12, -22), (40, 8, -18), 1.6, over=(t.CSF, t.GREY, t.WHITE))
    head.rod(t.VESSEL, (-13, 12, -22), (-40, 8, -18), 1.6, over=(t.CSF, t.GREY, t.WHITE))
    head.rod(t.VESSEL, (0, 2, -24), (0, -4, -44), 1.7, over=(t.CSF,))
    for mirror in (1, -1):
        head.rod(t.VESSEL, (mirror * 12, 10, -24), (mirror * 13, 6, -40), 2.6)
        head.rod(
            t.VESSEL,
            (mirror * 10, -78, -14),
            (mirror * 52, -48, -20),
            2.4,
            over=(t.CSF, t.DURA, t.GREY, t.BONE),
        )
    sinus = (side < 3) & (cavity < -0.3) & (cavity > -5) & ((z > 20) | (y < -50)) & (z > -20)
    labels[sinus] = t.VESSEL
    labels[(side < 0.9) & inside & (callosum > 1.12) & (z > -8) & (y > -60) & (cavity > -30)] = t.DURA  # falx
    head.paint(t.GLAND, (0, 12, -31), (6, 5, 4))


def _paint_deep(head: Head, cerebrum: np.ndarray) -> None:
    """Deep grey matter and ventricles."""
    t, w = Tissue, head.shape.ventricles
    x, y, z, labels = head.x, head.y, head.z, head.labels
    side = np.abs(x)
    core = (t.WHITE, t.GREY, t.CSF)
    callosum = np.sqrt(((y + 6) / 41) ** 2 + ((z - 1) / 29) ** 2)
    labels[cerebrum & (side < 18) & (callosum < 1) & (z > -14)] = t.WHITE
    head.paint(t.DEEP_GREY, (28, 2, 0), (6, 18, 11), mirrored=True, over=core)  # putamen
    head.paint(t.DEEP_GREY, (15, 18, 8), (6, 17, 9), mirrored=True, over=core)  # caudate
    head.paint(t.DEEP_GREY, (11, -12, 3), (9, 14, 9), mirrored=True, over=core)  # thalamus
    head.paint(t.GREY, (38, 0, -2), (3, 18, 12), mirrored=True, over=core)  # insula
    for mirror in (1, -1):
        head.paint(t.CSF, (mirror * 10, 18, 12), (6.5 * w, 18, 8 * w), over=(*core, t.DEEP_GREY))
        head.paint(t.CSF, (mirror * 13, -14, 17), (6.5 * w, 26, 6 * w), over=(*core, t.DEEP_GREY))
        head.paint(t.CSF, (mirror * 25, -40, 7), (7 * w, 14, 10 * w), over=core)
        head.rod(t.CSF, (mirror * 27, -36, -2), (mirror * 31, -4, -22), 2.8 * w, over=core)
        head.rod(t.CSF, (mirror * 25, -50, 6), (mirror * 22, -64, 5), 3 * w, over=core)
        head.rod(
            t.VESSEL, (mirror * 16, -24, 13), (mirror * 25, -40, 4), 1.8, over=(t.CSF,)
        )  # choroid plexus
    labels[cerebrum & (side < 1.1) & (callosum < 0.8) & (z > 4) & (y > -10)] = t.WHITE  # septum
    head.paint(t.CSF, (0, -4, -3), (2.6 * w, 15, 9), over=(*core, t.DEEP_GREY))  # third ventricle
    head.paint(t.CSF, (0, -34, -4), (12, 6, 7), over=core)  # cistern behind the midbrain
