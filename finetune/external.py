"""External images: other folders of the same classes, which trained models are tested on and nothing is trained on.

How a model does on the data of another place is what a user of it wants to know, and what cross-validation on one set
can't tell (Yagis et al. 2021, doi:10.1038/s41598-021-01681-w; Zech et al. 2018, doi:10.1371/journal.pmed.1002683).
Public sets borrow from one another, so images that are also among the training images are dropped first.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer import progress
from mri_transfer.datasets.tumors.duplicates import near_duplicates
from mri_transfer.datasets.tumors.tumors import TumorSet, load_tumors
from mri_transfer.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class External:
    """External images, cleaned.

    Attributes:
        name: of the folder.
        images: uint8 (n, size, size).
        labels: int (n,), in the numbers of the training set's classes.
        groups: int (n,).
        fingerprint: of all of these.
        about: {"name", "folder", "files", "skipped", "images", "groups", "dropped_identical",
            "dropped_near_duplicates", "images_by_class"}, for the report.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    fingerprint: str
    about: dict[str, Any]

    def __len__(self) -> int:
        return len(self.labels)


def load_externals(
    folders: Sequence[Path], tumors: TumorSet, size: int, *, cache: Path, strict: bool = False
) -> list[External]:
    """Read every folder and drop what is also among the training images.

    Args:
        folders: laid out like the tumour set, with or without Training and Testing, each with folders of its classes or
            of some of them.
        tumors: the training images.
        size: side of the images, pixels.
        cache: folder for decoded images.
        strict: an unreadable image is an error.

    Raises:
        UserError: a folder can't be read, is named twice, has classes of other names, or nothing is left of it.
    """
    found: list[External] = []
    for folder in folders:
        folder = Path(folder)
        name = folder.resolve().name
        if name in [other.name for other in found]:
            raise UserError(f"--external {folder}: another external folder is called {name} too; rename one")
        found.append(_load(folder, name, tumors, size, cache, strict))
    return found


def _load(folder: Path, name: str, tumors: TumorSet, size: int, cache: Path, strict: bool) -> External:
    other = load_tumors(folder, size, strict=strict, cache=cache)
    unknown = [each for each in other.classes if each not in tumors.classes]
    if unknown:
        raise UserError(
            f"--external {folder}: class {unknown[0]} is none of {', '.join(tumors.classes)}; rename the folder, or "
            "leave it out"
        )
    pairs = near_duplicates(other.thumbs, tumors.thumbs, tumors.calibration.threshold)
    near = np.zeros(len(other), bool)
    near[pairs.first] = True
    known = {image.tobytes() for image in tumors.images}
    identical = np.array([image.tobytes() in known for image in other.images])
    kept = np.flatnonzero(~near & ~identical)
    if not len(kept):
        raise UserError(
            f"--external {folder}: every image of it is among the training images too; it can test nothing"
        )
    labels = np.array([tumors.classes.index(each) for each in other.classes])[other.labels[kept]]
    groups = other.groups[kept]
    images = other.images[kept]
    about = {
        "name": name,
        "folder": str(folder),
        "files": other.audit["files"],
        "skipped": len(other.audit["skipped"]),
        "dropped_identical": int(identical.sum()),
        "dropped_near_duplicates": int((near & ~identical).sum()),
        "images": len(kept),
        "groups": len(np.unique(groups)),
        "images_by_class": {each: int((labels == n).sum()) for n, each in enumerate(tumors.classes)},
    }
    if dropped := about["dropped_identical"] + about["dropped_near_duplicates"]:
        progress.say(f"{folder}: {dropped} images are also among the training images, and are left out")
    digest = hashlib.sha256(f"{images.shape}".encode() + np.ascontiguousarray(images).tobytes())
    digest.update(labels.astype(np.int64).tobytes() + groups.astype(np.int64).tobytes())
    return External(name, images, labels, groups, digest.hexdigest(), about)
