"""Speed and recall of finding copies among labelled images, beside perceptual hashing, in one run.

    python benchmarks/audit.py FOLDER [--copies 300] [--growth 3000,6000,12000]

Prints the seconds of the whole `mri-transfer audit` and of its parts; then, for copies of some of the images (cropped,
shrunk, compressed, framed, flipped and turned), how many are found and how many pairs of different pictures are
mistaken for copies, by us and by imagehash's pHash over the same eight orientations; then how the search time grows
with the number of images, extrapolated to 100,000.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from PIL import Image

from mri_transfer.datasets.audit.audit import AuditConfig, audit
from mri_transfer.datasets.image_files import read_grey
from mri_transfer.datasets.tumors.copies.duplicates import NEAREST, aligned, neighbours
from mri_transfer.datasets.tumors.copies.threshold import copied
from mri_transfer.datasets.tumors.copies.thumbnails import THUMBNAIL, thumbnail, turned
from mri_transfer.datasets.tumors.tumors import load_tumors
from mri_transfer.machine.device import cores
from mri_transfer.progress import set_quiet

BITS = (
    0,
    4,
    8,
    10,
    12,
)  # thresholds on Hamming distances of 64-bit hashes that imagehash's users use


def seconds(work) -> tuple[float, object]:
    """The duration of `work`, and its result."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def planted(folder: Path, count: int) -> None:
    """Recall and false pairs on copies planted among the images."""
    tumors = load_tumors(folder, 64)
    random = np.random.default_rng(1)  # not the copies that calibrated the threshold
    rows = np.sort(random.choice(len(tumors), min(count, len(tumors)), replace=False))
    originals = [read_grey(folder / tumors.paths[n]) for n in rows]
    copies = [copied(image, random) for image in originals]
    # Finding a copy of a picture that is duplicated in the set is not a false pair.
    same_pairs = {(int(a), int(b)) for a, b in zip(tumors.near.first, tumors.near.second, strict=True)}
    same_pairs |= {(b, a) for a, b in same_pairs} | {(n, n) for n in range(len(tumors))}

    def ours() -> set[tuple[int, int]]:
        thumbs = np.stack([thumbnail(copy) for copy in copies])
        pairs = aligned(thumbs, neighbours(thumbs, tumors.thumbs), tumors.thumbs)
        pairs = pairs.above(tumors.calibration.threshold)
        return set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))

    def judged(hits: set[tuple[int, int]]) -> str:
        right = sum((n, int(original)) in hits for n, original in enumerate(rows))
        false = sum((int(rows[n]), other) not in same_pairs for n, other in hits)
        return f"{right / len(rows):6.1%} found, {false} false pairs"

    elapsed, matches = seconds(ours)
    print(f"{len(rows)} planted copies among {len(tumors)} images")
    print(f"ours: {judged(matches)} in {elapsed:.1f} s, threshold {tumors.calibration.threshold:.4f}")
    try:
        import imagehash
    except ImportError as error:
        print(f"imagehash: not measured ({error})")
        return

    def hashes(images: list[np.ndarray]) -> np.ndarray:
        return np.stack([imagehash.phash(Image.fromarray(image)).hash.ravel() for image in images])

    pictures = [read_grey(folder / path) for path in tumors.paths]

    def peer() -> np.ndarray:
        pool = hashes(pictures)
        turns = [
            hashes([np.ascontiguousarray(turned(copy, orientation)) for copy in copies])
            for orientation in range(8)
        ]
        return np.min([(turn[:, None] != pool[None]).sum(axis=2) for turn in turns], axis=0)

    peer_took, distance = seconds(peer)
    for bits in BITS:
        pairs = set(zip(*(axis.tolist() for axis in np.nonzero(distance <= bits)), strict=True))
        print(f"pHash, up to {bits} bits: {judged(pairs)}")
    print(f"pHash: {peer_took:.1f} s; ours takes {elapsed / peer_took:.2f} times as long")


def growth(sizes: list[int]) -> None:
    """Search time against the number of images; noise will do, as nothing depends on the pixels."""
    random = np.random.default_rng(0)
    times = []
    for count in sizes:
        thumbs = random.integers(0, 255, (count, THUMBNAIL, THUMBNAIL), dtype=np.uint8)
        search = float(np.median([seconds(lambda thumbs=thumbs: neighbours(thumbs))[0] for _ in range(3)]))
        times.append(search)
        print(f"{count} images: neighbours in {search:.1f} s, {1e9 * search / count**2:.0f} ns a pair")
    sample = thumbs[:1000]
    pairs = np.stack([np.arange(1000), np.roll(np.arange(1000), 1)], axis=1)
    align = seconds(lambda: aligned(sample, pairs))[0] / 1000
    search = times[-1] * (1e5 / sizes[-1]) ** 2
    print(
        f"100,000 images, by the square of their number: {search / 60:.0f} minutes of search; alignment of at most "
        f"{NEAREST} pairs each at {1e3 * align:.2f} ms: {1e5 * NEAREST * align / 60:.0f} minutes; thumbnails of "
        f"{1e5 * THUMBNAIL**2 / 1e9:.1f} GB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of labelled images")
    parser.add_argument("--copies", type=int, default=300, help="planted copies")
    parser.add_argument("--growth", default="3000,6000,12000", help="numbers of images, comma-separated")
    arguments = parser.parse_args()
    set_quiet(True)
    with tempfile.TemporaryDirectory() as out:
        elapsed, summary = seconds(lambda: audit(AuditConfig(arguments.folder, Path(out) / "audit")))
    print(f"the whole audit of {summary['files']} images on {cores()} cores: {elapsed:.1f} s")
    planted(arguments.folder, arguments.copies)
    growth([int(count) for count in arguments.growth.split(",")])


if __name__ == "__main__":
    main()
