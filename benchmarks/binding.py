"""How reliably tumour pictures, and nothing else, are recognised as slices of their source.

    python benchmarks/binding.py TUMORS --truth patients.csv [--others STORE ...]

TUMORS is the four-class set; the truth is a table with the columns file and figshare_number (empty: not a slice of
Figshare 1512427). Each picture is altered as by re-uploads and then bound. Others are slice stores of other people's
volumes, none of which may be bound; nor may scikit-image's photographs, noise, or ellipses.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from mri_transfer.datasets.image_files import read_grey
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.datasets.tumors.persons.binding import bind, fine
from mri_transfer.datasets.tumors.persons.originals import figshare_originals, person_of


def saved(image: np.ndarray, side: int, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    small = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)
    small.save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def gamma(exponent: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda image: (255 * (image / 255) ** exponent).astype(np.uint8)


def stretched(image: np.ndarray) -> np.ndarray:
    low, high = np.percentile(image, [2, 98])
    return np.clip((image - low) * 255 / max(1, high - low), 0, 255).astype(np.uint8)


def sharpened(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.UnsharpMask(2, 200, 2)))


def cropped(share: float) -> Callable[[np.ndarray], np.ndarray]:
    random = np.random.default_rng(0)

    def crop(image: np.ndarray) -> np.ndarray:
        height, width = image.shape
        left, right = (random.uniform(0, share, 2) * width).astype(int)
        top, bottom = (random.uniform(0, share, 2) * height).astype(int)
        return saved(np.ascontiguousarray(image[top : height - bottom, left : width - right]), 224, 60)

    return crop


ALTERED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as it is": lambda image: image,
    "224 px, JPEG 60": lambda image: saved(image, 224, 60),
    "the same, mirrored and turned": lambda image: np.rot90(saved(image, 224, 60)[:, ::-1]).copy(),
    "128 px, JPEG 40": lambda image: saved(image, 128, 40),
    "gamma 0.5": gamma(0.5),
    "gamma 0.7": gamma(0.7),
    "gamma 1.5": gamma(1.5),
    "gamma 2": gamma(2.0),
    "contrast stretched, 2% cut off": stretched,
    "sharpened": sharpened,
    "inverted": lambda image: 255 - image,
    "up to 4% cut off every side": cropped(0.04),
    "up to 8% cut off every side": cropped(0.08),
}


def ellipses() -> list[np.ndarray]:
    """Heads as a child draws them: only an outline and a grey level."""
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    random, pictures = np.random.default_rng(0), []
    for _ in range(3000):
        a, b = random.uniform(0.2, 1, 2)
        u, v = random.uniform(-0.2, 0.2, 2)
        radius = np.hypot((x - u) / a, (y - v) / b)
        edge = random.uniform(0.02, 0.6)
        picture = np.clip((1 - radius) / edge, 0, 1) * random.uniform(0.4, 1)
        picture += (abs(radius - 0.93) < 0.07) * random.uniform(0, 1)  # a skull
        pictures.append((255 * np.clip(picture, 0, 1)).astype(np.uint8))
    return pictures


def photographs() -> list[np.ndarray]:
    from skimage import color, data

    pictures = []
    for name in (
        "astronaut",
        "camera",
        "chelsea",
        "coffee",
        "coins",
        "moon",
        "page",
        "rocket",
        "cell",
        "brick",
    ):
        try:
            image = getattr(data, name)()
        except Exception:  # some are downloaded, and there may be no network
            continue
        grey = color.rgb2gray(image) * 255 if image.ndim == 3 else image
        pictures.append(np.asarray(grey).astype(np.uint8))
    return pictures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tumors", type=Path)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--others", type=Path, nargs="*", default=[])
    parser.add_argument("--every", type=int, default=1, help="only every so many of the bound pictures")
    a = parser.parse_args()
    originals = figshare_originals()
    with a.truth.open(newline="") as file:
        truth = {row["file"]: row["figshare_number"] for row in csv.DictReader(file)}
    bound = [name for name, number in truth.items() if number][:: a.every]
    names = bound + [name for name, number in truth.items() if not number]
    number = np.array([int(truth[name] or 0) - 1 for name in names])
    pictures = [read_grey(a.tumors / name) for name in names]
    print(f"{len(bound)} files of the source, {len(names) - len(bound)} others")
    print(
        f"{'':>32} {'right':>7} {'other slice':>12} {'other person':>13} {'false':>6} {'highest other':>14}"
    )
    for title, alter in ALTERED.items():
        binding = bind(np.stack([fine(alter(picture)) for picture in pictures]), originals)
        from_source = number >= 0
        wrong = np.flatnonzero(from_source & (binding.original >= 0) & (binding.original != number))
        people = [
            person_of(originals.patients[binding.original[n]]) != person_of(originals.patients[number[n]])
            for n in wrong
        ]
        right, false = (
            (binding.original == number)[from_source].mean(),
            (binding.original[~from_source] >= 0).sum(),
        )
        highest = binding.correlation[~from_source].max()
        print(
            f"{title:>32} {right:7.2%} {len(wrong):12} {sum(people):13} {false:6} {highest:14.4f}", flush=True
        )

    random = np.random.default_rng(0)
    others = {
        "ellipses": ellipses(),
        "photographs": photographs(),
        "noise": list(random.integers(0, 256, (500, 64, 64), dtype=np.uint8)),
    }
    for path in a.others:
        store = SliceStore.open(path)
        others[str(path)] = list(store.images(slice(0, len(store))))
    for title, images in others.items():
        binding = bind(np.stack([fine(image) for image in images]), originals)
        result = (
            f"{(binding.original >= 0).sum()} of {len(images)} bound, "
            f"the most alike at {binding.correlation.max():.4f}"
        )
        print(f"{title:>32} {result}", flush=True)


if __name__ == "__main__":
    main()
