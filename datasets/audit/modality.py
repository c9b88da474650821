"""Images that don't look like an MRI slice of one head: hints, from readable rules.

Everything is measured on the picture reduced to 96 pixels, where hi is the level of its brightest 0.5%.

- CT: the brightest part forms a ring that is wide (8% of what it encloses) and clipped to one level, and what
  it encloses begins without a dark gap: bone is bright in CT, while in MRI fat is, with dark bone inside it.
- diffusion: a convex shape on an even ground, as bright at its rim as inside, without scalp, bone or fluid around it.
- montage: two or more separate parts of like size, or a grid of panels that resemble each other.
- photograph: a fifth of it is coloured, or it has no dark parts and bright edges on three sides.
- inverted: bright ground, as on paper.
- empty: hardly any variation.

Measured on the public four-class set, every flagged image looked at: of 73 images flagged as CT 71 are, 58 of these in
"no_tumor"; of 9 flagged as diffusion 7 are, all in "no_tumor", though only four distinct pictures, so this says little
about other sets. No montage, photograph or inverted image was found. It is known to miss two CT images whose skull is
thin at the sides. It doesn't distinguish other body parts or MRI sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mri_transfer.datasets.audit.shares import shares_of_classes

if TYPE_CHECKING:
    from mri_transfer.datasets.audit.measure import Measurements
    from mri_transfer.datasets.tumors.images import ImageFile

SIDE = 96  # pixels of the longer side
DIRECTIONS = 36  # in which to look for a ring
GAP = 0.65  # of the level inside a ring: anything darker under the ring is bone in MRI
GRIDS = ((1, 2), (2, 1), (2, 2), (1, 3), (3, 1), (2, 3), (3, 2), (3, 3), (3, 4), (4, 3), (4, 4))
KINDS = {
    "CT": "look like CT",
    "diffusion": "look like diffusion images, or have the skull removed",
    "montage": "hold several pictures in one",
    "photograph": "look like photographs or colour maps",
    "inverted": "have a bright ground, as if inverted or scanned from paper",
    "empty": "show nothing",
}


def looks_like(grey: np.ndarray, colour: float = 0.0) -> tuple[str, ...]:
    """The :data:`KINDS` a picture looks like; empty if it looks like an MRI slice of a head.

    Args:
        grey: uint8 (height, width).
        colour: share of its pixels that are coloured.
    """
    height, width = grey.shape
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BOX))
    if min(small.shape) < 16 or float(small.std()) < 3:
        return ("empty",) if float(small.std()) < 3 else ()
    place = int(0.995 * (small.size - 1))
    high = float(np.partition(small, place, axis=None)[place])
    edge = np.concatenate(
        [small[:3].ravel(), small[-3:].ravel(), small[:, :3].ravel(), small[:, -3:].ravel()]
    )
    ground = float(np.median(edge))
    kinds = []
    sides = sorted(float(np.median(side)) for side in (small[:3], small[-3:], small[:, :3], small[:, -3:]))
    dark = float((small < 0.15 * high).mean())
    if colour > 0.2 or (dark < 0.05 and 180 > sides[1] > 0.4 * high):
        kinds.append("photograph")
    if ground > 180 and float(np.median(small)) > 128:
        kinds.append("inverted")
    if _montage(small, high):
        kinds.append("montage")
    if not kinds and _ct(small, high):
        kinds.append("CT")
    if not kinds and _diffusion(small, ground):
        kinds.append("diffusion")
    return tuple(kinds)


def _largest(mask: np.ndarray, structure: np.ndarray | None = None) -> np.ndarray:
    """The largest connected part; empty if there is none."""
    from scipy import ndimage

    parts, count = ndimage.label(mask, structure)
    if not count:
        return np.zeros(mask.shape, bool)
    area = np.bincount(parts.ravel())
    area[0] = 0
    return parts == area.argmax()


def _ct(small: np.ndarray, high: float) -> bool:
    from scipy import ndimage
    from skimage.morphology import convex_hull_image

    around = np.ones((3, 3), bool)
    picture = np.pad(small, 2)
    ring = _largest(picture >= 0.85 * high, around)
    if ring.sum() < 30 or float((picture[ring] >= 0.97 * high).mean()) < 0.5:  # not clipped
        return False
    hull = convex_hull_image(ring, offset_coordinates=False)
    if hull.sum() < 0.1 * small.size or ring.sum() < 0.08 * hull.sum():
        return False
    centre = np.mean(np.nonzero(hull), axis=1)
    rows, columns = np.nonzero(ring)
    turn = np.arctan2(rows - centre[0], columns - centre[1]) / (2 * np.pi) * DIRECTIONS
    if len(np.unique(np.floor(turn).astype(int) % DIRECTIONS)) < 0.8 * DIRECTIONS:
        return False
    # From the ring inwards, layer by layer; only well within the hull, as the ring may have gaps.
    depth = np.where(ndimage.binary_erosion(hull, iterations=3), ndimage.distance_transform_edt(~ring), 0)
    if (depth > 3).sum() < 100:
        return False
    level = np.median(picture[depth > 3])
    layers = [picture[(depth > k) & (depth <= k + 1)] for k in range(1, 9)]
    return all(np.median(layer) > GAP * level for layer in layers if layer.size)


def _diffusion(small: np.ndarray, ground: float) -> bool:
    from scipy import ndimage
    from skimage.morphology import convex_hull_image

    bright = small[small > ground + 15]
    if bright.size < 200:
        return False
    picture = np.pad(small.astype(float), 2, mode="edge") - ground
    level = max(8.0, 0.3 * (float(np.median(bright)) - ground))
    head = _largest(ndimage.binary_opening(picture > level))
    rows, columns = np.flatnonzero(head.any(axis=1)), np.flatnonzero(head.any(axis=0))
    if (
        not len(rows)
        or rows[0] < 4
        or columns[0] < 4
        or rows[-1] >= len(head) - 4
        or columns[-1] >= len(head[0]) - 4
    ):
        return False  # cut off by the edge
    head = ndimage.binary_fill_holes(head)
    if not 0.1 * small.size < head.sum() < 0.85 * small.size:
        return False
    depth = ndimage.distance_transform_edt(head)
    if depth.max() < 9:
        return False
    core = float(np.median(picture[depth > 8]))
    layer = np.ceil(depth).astype(int)
    layers = np.array([np.median(picture[layer == k + 1]) for k in range(min(14, int(depth.max())))])
    if layers[:3].max() >= 1.07 * core:  # bright scalp
        return False
    if (layers / np.maximum(np.maximum.accumulate(layers), 1)).min() <= 0.85:  # bone below it
        return False
    if (picture[(depth > 1.5) & (depth <= 7)] < 0.55 * core).mean() >= 0.055:
        return False
    if (picture[depth > 1] < 0.3 * core).mean() >= 0.03:
        return False
    outside = ndimage.distance_transform_edt(~head)
    around = (outside > 2) & (outside <= 8)
    if (picture[around] > max(0.12 * core, 6)).mean() >= 0.25:
        return False
    return bool(head.sum() > 0.95 * convex_hull_image(head, offset_coordinates=False).sum())


def _montage(small: np.ndarray, high: float) -> bool:
    from scipy import ndimage

    parts, count = ndimage.label(np.pad(small, 1) > max(10.0, 0.12 * high))
    if count > 1:
        area = np.sort(np.bincount(parts.ravel())[1:])[::-1]
        if area[1] > 0.5 * area[0] and area[1] > 0.04 * small.size:
            return True
    return any(_panels(small, rows, columns) > 0.8 for rows, columns in GRIDS)


def _panels(small: np.ndarray, rows: int, columns: int) -> float:
    """The lowest correlation between panels, if the picture is a grid of them."""
    height, width = small.shape[0] // rows, small.shape[1] // columns
    if min(height, width) < 16 or not 0.7 < height / width < 1.45:  # no head
        return 0.0
    panels = small[: height * rows, : width * columns].reshape(rows, height, columns, width).swapaxes(1, 2)
    values = panels.reshape(rows * columns, -1).astype(float)
    values -= values.mean(axis=1, keepdims=True)
    length = np.linalg.norm(values, axis=1)
    if length.min() < 1:
        return 0.0
    values /= length[:, None]
    return float((values @ values.T).min())


def find_others(measurements: Measurements, files: Sequence[ImageFile], classes: Sequence[str]) -> dict:
    """Files that look like something else, and whether some classes have more of them.

    Args:
        measurements: the files'.
        files: from :func:`mri_transfer.datasets.tumors.images.list_images`.
        classes: names.

    Returns:
        JSON-able: "images" (readable ones), "kinds" (those that occur, to {"images", "by_class" (name to share of the
        class), "depends_on_class"}), "files" ({"file", "class", "kinds"} each) and "sentences".
    """
    readable = measurements.readable
    labels = np.array([file.label for file in files], dtype=int)
    kinds = {}
    for kind in KINDS:
        mask = np.array([kind in hints for hints in measurements.hints], dtype=bool)
        if mask.any():
            kinds[kind] = shares_of_classes(mask, labels, readable, classes)
    entries = [
        {"file": file.path, "class": classes[file.label], "kinds": list(hints)}
        for file, hints in zip(files, measurements.hints, strict=True)
        if hints
    ]
    sentences = []
    for kind, entry in kinds.items():
        shares = ", ".join(f"{share:.1%} of {label}" for label, share in entry["by_class"].items())
        line = f"{entry['images']} of the images {KINDS[kind]} ({shares})"
        if entry["depends_on_class"]:
            line += ": more in some classes than in others, so a network can learn the modality instead of the disease"
        sentences.append(f"{line}. This is a hint: look at them.")
    return {
        "images": int(readable.sum()),
        "kinds": kinds,
        "files": entries,
        "sentences": sentences or ["Every image looks like a slice of a head."],
    }
