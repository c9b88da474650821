"""Stores of each split's training images, to pretrain encoders on the target set without a leak.

Pretraining on the set to be classified is as close to the task as possible, but cheats if it has seen a test image. So
each split gets a slice store of its training images, without labels; an encoder is pretrained on each, and `compare
--arm target=RUN-{seed}-{fold}` tests every fold with the one that has not seen it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from mri_transfer import progress
from mri_transfer.datasets.store.writer import StoreWriter
from mri_transfer.datasets.tumors.tumors import TumorSet
from mri_transfer.finetune.data.protocol import Split

STORE_NAME = "seed-{seed}-fold-{fold}"
# These are unknown. Nor may a name carry an image's label into its store.
UNKNOWN = {"session": "", "sequence": ""}
PLANE, POSITION_MM, POSITION = "unknown", 0.0, 0.5


def write_target_stores(folder: Path, tumors: TumorSet, size: int, splits: Iterable[Split]) -> list[Path]:
    """Write a slice store of each split's training images; existing ones are left unchanged.

    A group of images becomes a subject, so different groups are negatives and images within one are not. Every image is
    a volume of one slice, so its only positive is itself (`--positives same`, or equivalently `adjacent`).

    Args:
        folder: created if needed; stores are in seed-S-fold-F.
        tumors: the images.
        size: their side, pixels.
        splits: on all labels; seed and fold name the store.

    Returns:
        The stores, in order.

    Raises:
        UserError: a store of other images or settings exists there.
    """
    stores = []
    digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in tumors.images]
    splits = list(splits)
    for split in progress.bar(splits, desc="stores of training images", unit="store"):
        store = Path(folder) / STORE_NAME.format(seed=split.seed, fold=split.fold)
        settings = {
            "size": size,
            "made_from": "training images of one split",
            "data": tumors.fingerprint,
            "seed": split.seed,
            "fold": split.fold,
            "images": len(split.train),
        }
        with StoreWriter(store, settings) as writer:
            for image in split.train[len(writer.ledger.used) :]:
                entry = {
                    **UNKNOWN,
                    "subject": f"group-{tumors.groups[image]:04d}",
                    "source": f"tumor-image-{image:05d}",
                    "sha256": digests[image],
                    "planes": [PLANE],
                    "position_mm": [POSITION_MM],
                    "position": [POSITION],
                }
                writer.add(entry, tumors.images[image][None])
            writer.finish()
        stores.append(store)
    return stores


def next_commands(stores: list[Path], tumors: Path, several_seeds: bool) -> list[str]:
    """The next command to type."""
    first = stores[0].name
    seed = "{seed}" if several_seeds else stores[0].name.split("-")[1]
    return [
        "Pretrain an encoder on each of them, for example in a shell:",
        f'  for store in {stores[0].parent}/seed-*; do mri-transfer pretrain "$store" --positives same --hours 1 '
        '--out "runs/target-$(basename "$store")"; done',
        f"which makes runs/target-{first} and so on. Then compare, with the same --folds, --seeds, --seed, --groups:",
        f"  mri-transfer compare {tumors} --arm imagenet --arm 'target=runs/target-seed-{seed}-fold-{{fold}}' "
        "--out REPORT",
    ]
