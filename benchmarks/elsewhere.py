"""Tests encoders on other labels: those that scans carry, of people not used in pretraining.

    mri-transfer slices other-volumes --out others
    python benchmarks/elsewhere.py others --label level --without store --out level
    mri-transfer compare level/pictures --groups level/groups.csv --arm random --arm imagenet --arm mri --out report

Writes slices as pictures in class folders, and a table of their people, so that no person crosses a fold. The labels:
`sequence` from names and headers, `plane`, or `level`, the slice's fifth of the head (from below, the right or the
back). With `--starts random imagenet mri` it also prints how often the five nearest slices of other people share each
label, as in pretraining's health checks.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image

from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.errors import UserError
from mri_transfer.pretrain.health.label_agreement import label_agreement
from mri_transfer.pretrain.health.panel import choose, free_labels, position_bins


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("--label", choices=("level", "plane", "sequence"), default="level")
    parser.add_argument("--slices", type=int, default=2500, help="at most so many, people taking turns")
    parser.add_argument("--without", type=Path, metavar="STORE", help="what encoders were pretrained on")
    parser.add_argument("--starts", nargs="+", default=[], help="random, imagenet, mri, a run, ...")
    parser.add_argument("--size", type=int, default=160, help="at which starts read slices, in pixels")
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args()
    store = SliceStore.open(a.store)
    if a.without:
        known = {volume["source_sha256"] for volume in SliceStore.open(a.without).volumes}
        if common := [volume["source"] for volume in store.volumes if volume["source_sha256"] in known]:
            raise UserError(f"{a.store}: {len(common)} volumes are in {a.without} too, such as {common[0]}")
    rows = choose(store.table, a.slices, seed=0)
    labels = position_bins(store.table, rows) if a.label == "level" else store.table[a.label][rows]
    subjects = store.table["subject"][rows]
    a.out.mkdir(parents=True)
    with (a.out / "groups.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("file", "person"))
        for row, label, subject in zip(rows, labels, subjects, strict=True):
            name = Path(f"{a.label} {label}" if a.label == "level" else str(label), f"{row:06d}.png")
            place = a.out / "pictures" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(store.images([row])[0]).save(place)
            table.writerow((name.as_posix(), subject))
    print(f"{a.out / 'pictures'}: {len(rows)} slices of {len(set(subjects))} people by {a.label}")
    for start in a.starts:
        print(f"{start}: {agreement(store, rows, start, a.size)}")


def agreement(store: SliceStore, rows: np.ndarray, start: str, size: int) -> str:
    """How often other people's nearest slices share a slice's free labels, in this start's features."""
    from mri_transfer import api

    features = api.load_encoder(start, size).features(store.images(rows))
    subjects, words = store.table["subject"][rows], []
    for name, question in free_labels(store.table, rows).items():
        if result := label_agreement(features, subject=subjects, **question):
            words.append(f"{name} {result.accuracy:.1%} ± {result.error:.1%} (by chance {result.chance:.1%})")
    return ", ".join(words)


if __name__ == "__main__":
    main()
