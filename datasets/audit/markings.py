"""Letters, arrows and frames burnt into the picture, detected without reading them.

Drawn shapes differ from anatomy in their edges: one or two pixels wide on all sides, around a nearly constant level,
and isolated. There are three kinds:

- letters: small bright shapes in the black outside the convex hull of the head, side by side, or crisp if single;
- graphics: crisp, flat, isolated shapes anywhere: arrows, pointers, letters on the head;
- frames: thin straight bright lines along an edge of the picture.

Each mark has a score from 0 to 1 for its crispness, which orders the list and is not a probability. Marks are hints to
inspect. A marking more frequent in one class than in others is a shortcut.

Measured on the public four-class set, inspected one by one: of 31 images flagged for letters or graphics, 24 have some
(page numbers, a patient's name, arrows, a pointer); all 96 flagged for frames have a line along an edge. When drawn on
60 unmarked images and re-compressed at quality 60 and 90, letters of 3-6% of the side were found in 97-100%, white
arrows of 4-8% on the head in 85-90%; the missed ones touch something as bright.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mri_transfer.datasets.audit.shares import shares_of_classes
from mri_transfer.words import counted

if TYPE_CHECKING:
    from mri_transfer.datasets.audit.measure import Measurements
    from mri_transfer.datasets.tumors.images import ImageFile

REDUCED = 80  # pixels of the picture used to find the head
WHITE = 180  # the threshold for segmenting graphics
FAINT = 64  # the threshold for segmenting letters from black
LARGEST = 0.15  # of the longer side: larger shapes are anatomy
SPAN = 70  # least grey levels between a mark and its surroundings
GRAPHIC = 0.83  # most blur of graphics; see _Shape.blur
FLAT = 0.58  # least share of nearly equal pixels in graphics
SINGLE = 0.95  # of a letter that stands alone
IN_ROW = 1.4  # of letters side by side
COLOURED = 0.0005  # least share of coloured pixels in a coloured picture: a small arrow
KINDS = {
    "colour": "colour",
    "letters": "letters or signs beside the head",
    "graphics": "arrows or letters upon the picture",
    "frame": "a frame",
}


@dataclass(frozen=True)
class Mark:
    """Something drawn on the picture."""

    kind: str  # "letters", "graphics" or "frame"
    box: tuple[int, int, int, int]  # left, top, right, bottom in pixels
    score: float  # 0 to 1


@dataclass(frozen=True)
class _Shape:
    box: tuple[int, int, int, int]
    blur: float  # half-bright pixels per outline pixel: 0 drawn without smoothing, above 1 anatomy
    alone: float  # 0 on an even background, 1 if something equally bright touches it

    @property
    def height(self) -> int:
        return self.box[3] - self.box[1]

    @property
    def width(self) -> int:
        return self.box[2] - self.box[0]


def outside_head(grey: np.ndarray) -> np.ndarray:
    """Mask of the picture outside the convex hull of everything large in it, bool like `grey`.

    Args:
        grey: uint8 (height, width).
    """
    from scipy import ndimage
    from skimage.morphology import convex_hull_image

    height, width = grey.shape
    scale = REDUCED / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BOX))
    bright = np.sort(small, axis=None)[99 * small.size // 100]
    parts, _ = ndimage.label(small > max(10.0, 0.1 * bright))
    area = np.bincount(parts.ravel())
    area[0] = 0
    large = (area > 0.015 * small.size)[parts]
    if not large.any():
        return np.zeros(grey.shape, bool)
    hull = ndimage.binary_dilation(convex_hull_image(large, offset_coordinates=False))
    return ~np.asarray(Image.fromarray(hull).resize((width, height), Image.Resampling.NEAREST))


def _shapes(grey: np.ndarray, bright: np.ndarray, level: int, flattest: float, shortest: int) -> list[_Shape]:
    """Small connected parts of `bright`, with features that distinguish drawings from anatomy.

    Args:
        grey: uint8 (height, width).
        bright: bool, like `grey`.
        level: least value of a bright pixel.
        flattest: least share of a part's pixels that are about as bright as its brightest.
        shortest: least length of a part's longer side, pixels.
    """
    from scipy import ndimage

    around = np.ones((3, 3), bool)
    parts, _ = ndimage.label(bright, around)
    longest = LARGEST * max(grey.shape)
    shapes = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(parts), start=1):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if not shortest <= max(height, width) <= longest or min(height, width) < 2:
            continue
        values = np.sort(grey[rows, columns][parts[rows, columns] == number])
        if len(values) < 2 * shortest:
            continue
        top = int(values[4 * len(values) // 5])
        flat = 1 - float(np.searchsorted(values, top - 25)) / len(values)
        if top < max(level + 30, SPAN) or flat < flattest:
            continue
        window = (
            slice(max(0, rows.start - 4), rows.stop + 4),
            slice(max(0, columns.start - 4), columns.stop + 4),
        )
        shape, patch = parts[window] == number, grey[window].astype(float)
        one = ndimage.binary_dilation(shape, around)
        two = ndimage.binary_dilation(one, around)
        three = ndimage.binary_dilation(two, around)
        ring = patch[three & ~two]
        if not ring.size:
            continue
        ring = np.sort(ring)
        ground = float(ring[len(ring) // 2])
        span = top - ground
        if span < SPAN:
            continue
        middle = (patch > ground + 0.2 * span) & (patch < ground + 0.8 * span) & three
        outline = shape & ~ndimage.binary_erosion(shape, around)
        shapes.append(
            _Shape(
                (columns.start, rows.start, columns.stop, rows.stop),
                float(middle.sum() / outline.sum()),
                float((ring[9 * len(ring) // 10] - ground) / span),
            )
        )
    return shapes


def _letters(grey: np.ndarray) -> list[Mark]:
    outside = outside_head(grey)
    bright = (grey >= FAINT) & outside
    if not bright.any():
        return []
    shapes = _shapes(grey, bright, FAINT, flattest=0.0, shortest=4)
    return [
        Mark("letters", shape.box, _crispness(shape.blur))
        for shape in shapes
        if shape.blur <= SINGLE
        or (shape.blur <= IN_ROW and any(_in_a_row(shape, other) for other in shapes if other is not shape))
    ]


def _in_a_row(shape: _Shape, other: _Shape) -> bool:
    """Side by side like letters: of similar height, on one line, no further apart than they are high."""
    tall = max(shape.height, other.height)
    overlap = min(shape.box[3], other.box[3]) - max(shape.box[1], other.box[1])
    gap = max(shape.box[0], other.box[0]) - min(shape.box[2], other.box[2])
    return (
        other.blur <= IN_ROW
        and tall <= 1.7 * min(shape.height, other.height)
        and overlap >= 0.6 * min(shape.height, other.height)
        and gap <= 1.5 * tall
    )


def _graphics(grey: np.ndarray) -> list[Mark]:
    # On bright tissue an arrow stands out only near white.
    tissue = np.cumsum(np.bincount(grey[::3, ::3].ravel(), minlength=256)[FAINT:])
    common = FAINT + int(np.searchsorted(tissue, 0.75 * tissue[-1]))
    level = min(max(WHITE, (common + 255) // 2), 225)
    shapes = _shapes(grey, grey >= level, level, flattest=FLAT, shortest=6)
    return [
        Mark("graphics", shape.box, _crispness(shape.blur))
        for shape in shapes
        if shape.blur <= GRAPHIC and shape.alone < 0.35
    ]


def _frame(grey: np.ndarray) -> list[Mark]:
    """Straight lines within 4% of an edge brighter than the pixels 3 away on both sides, as one mark."""
    height, width = grey.shape
    best = 0.0
    for turn in range(4):  # the edge is the first row
        picture = np.rot90(grey, turn)
        strip = picture[: max(1, round(0.04 * len(picture))) + 3].astype(np.int16)
        if len(strip) >= 8:
            inner = strip[:-3] - strip[3:]
            outer = np.concatenate([np.full_like(strip[:3], 255), strip[3:-3] - strip[:-6]])
            best = max(best, float(((inner >= SPAN) & (outer >= SPAN)).mean(axis=1).max()))
    return [Mark("frame", (0, 0, width, height), round(best, 3))] if best >= 0.5 else []


def _crispness(blur: float) -> float:
    return round(max(0.0, 1 - blur / 2), 3)


def find_marks(grey: np.ndarray) -> list[Mark]:
    """Everything in one picture that looks drawn, crispest first.

    Args:
        grey: uint8 (height, width), at the file's own resolution: letters do not survive shrinking.
    """
    if min(grey.shape) < 32:
        return []
    letters = _letters(grey)
    boxes = {mark.box for mark in letters}
    marks = letters + [mark for mark in _graphics(grey) if mark.box not in boxes] + _frame(grey)
    return sorted(marks, key=lambda mark: (-mark.score, mark.box))


def find_markings(measurements: Measurements, files: Sequence[ImageFile], classes: Sequence[str]) -> dict:
    """Files with colour, letters, graphics or frames, and whether some classes have more of them.

    Args:
        measurements: the files'.
        files: from :func:`mri_transfer.datasets.tumors.images.list_images`.
        classes: names.

    Returns:
        JSON-able: "images" (readable ones), "kinds" (for each of "colour", "letters", "graphics", "frame":
        {"images", "by_class" (name to share of the class), "depends_on_class" (bool)}), "files" (one entry each,
        the crispest first: {"file", "class", "score", "kinds", "boxes" [[left, top, right, bottom], ...]}) and
        "sentences".
    """
    readable = measurements.readable
    labels = np.array([file.label for file in files], dtype=int)
    entries: list[dict] = []
    masks = {kind: np.zeros(len(files), bool) for kind in KINDS}
    masks["colour"] = readable & (np.nan_to_num(measurements.colour) >= COLOURED)
    for row, (file, marks) in enumerate(zip(files, measurements.marks, strict=True)):
        kinds = ["colour"] if masks["colour"][row] else []
        for mark in marks:
            masks[mark.kind][row] = True
            if mark.kind not in kinds:
                kinds.append(mark.kind)
        if kinds:
            entries.append(
                {
                    "file": file.path,
                    "class": classes[file.label],
                    "score": max([mark.score for mark in marks] + ([1.0] if masks["colour"][row] else [])),
                    "kinds": kinds,
                    "boxes": [list(mark.box) for mark in marks],
                }
            )
    entries.sort(key=lambda entry: (-entry["score"], entry["file"]))
    findings = {
        "images": int(readable.sum()),
        "kinds": {kind: shares_of_classes(mask, labels, readable, classes) for kind, mask in masks.items()},
        "files": entries,
        "sentences": [],
    }
    findings["sentences"] = _sentences(findings)
    return findings


def _sentences(findings: dict) -> list[str]:
    sentences = []
    for kind, name in KINDS.items():
        entry = findings["kinds"][kind]
        if not entry["images"]:
            continue
        shares = ", ".join(f"{share:.1%} of {label}" for label, share in entry["by_class"].items())
        line = f"{counted(entry['images'], 'image')} with {name} ({shares})"
        if entry["depends_on_class"]:
            line += ": more in some classes than in others, so a network can learn the marking instead of the disease"
        sentences.append(f"{line}.")
    if findings["kinds"]["letters"]["images"]:
        sentences.append(
            "Letters may spell a patient's name or a date: look at each before the images are passed on."
        )
    return sentences or ["No colour, letters, arrows or frames were found."]
