"""External images: other folders of the same classes, used to test trained models, never for training.

A user wants to know how a model performs on data from elsewhere, which cross-validation on one set can't tell (Yagis et
al. 2021, doi:10.1038/s41598-021-01681-w; Zech et al. 2018, doi:10.1371/journal.pmed.1002683). Public sets borrow from
one another, so images that are also training images are dropped first. A folder does not reveal whether the rest comes
from elsewhere.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer import progress
from mri_transfer.datasets.tumors.class_names import match_classes
from mri_transfer.datasets.tumors.copies.duplicates import near_duplicates
from mri_transfer.datasets.tumors.persons.persons import UNKNOWN
from mri_transfer.datasets.tumors.tumors import TumorSet, load_tumors
from mri_transfer.errors import UserError

FEW = 30
"""Images per class: with fewer, its F1, and so a third or quarter of macro-F1, depends on a handful of answers."""
BORROWED = 0.05
"""If at least this share of a folder is also in training, the rest is hardly independent."""


@dataclasses.dataclass(frozen=True, eq=False)
class External:
    """External images, cleaned.

    Attributes:
        name: the folder's.
        images: uint8 (n, size, size).
        labels: int (n,), with the training set's class numbers.
        groups: int (n,).
        names: of each image, as in :attr:`~mri_transfer.datasets.tumors.tumors.TumorSet.names`.
        fingerprint: of images, labels and groups.
        about: {"name", "folder", "files", "skipped", "images", "groups", "dropped_identical",
            "dropped_near_duplicates", "dropped_persons" (other pictures of persons in training), "dropped_classes"
            (images of excluded classes), "images_by_class", "classes" (by their name, ours or None), "caution"
            (sentences to read with every figure)}, for the report.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    names: list[tuple[str, ...]]
    fingerprint: str
    about: dict[str, Any]

    def __len__(self) -> int:
        return len(self.labels)


def load_externals(
    folders: Sequence[Path],
    tumors: TumorSet,
    size: int,
    *,
    cache: Path,
    strict: bool = False,
    class_map: Mapping[str, str] | None = None,
    labels_from: str = "source",
) -> list[External]:
    """Read every folder and drop images that are also in training.

    Args:
        folders: laid out like the tumour set, with or without Training and Testing, each with folders for all or some
            of its classes.
        tumors: the training images.
        size: side of the images, pixels.
        cache: folder for decoded images.
        strict: an unreadable image is an error.
        labels_from: "source" or "folder", as in :func:`~mri_transfer.datasets.tumors.tumors.load_tumors`.
        class_map: their classes that :func:`~mri_transfer.datasets.tumors.class_names.kind` doesn't recognise.

    Raises:
        UserError: a folder can't be read, is named twice, has unrecognised classes, or has no images left.
    """
    externals: list[External] = []
    for folder in folders:
        folder = Path(folder)
        name = folder.resolve().name
        if name in [other.name for other in externals]:
            raise UserError(f"--external {folder}: another external folder is called {name} too; rename one")
        externals.append(_load(folder, name, tumors, size, cache, strict, class_map or {}, labels_from))
    return externals


def _load(
    folder: Path,
    name: str,
    tumors: TumorSet,
    size: int,
    cache: Path,
    strict: bool,
    class_map: Mapping[str, str],
    labels_from: str,
) -> External:
    other = load_tumors(folder, size, strict=strict, cache=cache, labels_from=labels_from)
    classes = match_classes(other.classes, tumors.classes, class_map, f"--external {folder}")
    _tell_classes(folder, classes)
    numbers = [-1 if ours is None else tumors.classes.index(ours) for ours in classes.values()]
    label_of = np.array(numbers)[other.labels]

    dropped = _dropped(other, tumors, label_of)
    rows = np.flatnonzero(~np.any(list(dropped.values()), axis=0))
    if not len(rows):
        raise UserError(
            f"--external {folder}: all of its images are also training images, so it can test nothing"
            if not dropped["classes"].any()
            else f"--external {folder}: none of its images is left; see --class-map"
        )
    labels, groups, images = label_of[rows], other.groups[rows], other.images[rows]
    by_class = {class_name: int((labels == n).sum()) for n, class_name in enumerate(tumors.classes)}
    facts = {
        "name": name,
        "folder": str(folder),
        "files": other.audit["files"],
        "skipped": len(other.audit["skipped"]),
        **{f"dropped_{reason}": int(mask.sum()) for reason, mask in dropped.items()},
        "images": len(rows),
        "groups": len(np.unique(groups)),
        "images_by_class": by_class,
        "classes": classes,
    }
    borrowed = sum(int(mask.sum()) for reason, mask in dropped.items() if reason != "classes")
    facts["caution"] = cautions(by_class, borrowed / (len(other) - facts["dropped_classes"]))
    if borrowed:
        of_persons = facts["dropped_persons"]
        progress.say(
            f"{folder}: {borrowed - of_persons} images are also among the training images, and {of_persons} more show "
            "persons who are; they are left out"
        )
    digest = hashlib.sha256(f"{images.shape}".encode() + np.ascontiguousarray(images).tobytes())
    digest.update(labels.astype(np.int64).tobytes() + groups.astype(np.int64).tobytes())
    all_names = other.names
    names = [all_names[place] for place in rows]
    return External(name, images, labels, groups, names, digest.hexdigest(), facts)


def _dropped(other: TumorSet, tumors: TumorSet, label_of: np.ndarray) -> dict[str, np.ndarray]:
    """Reasons for exclusion: masks, bool (n,); each image is in at most one, the first that applies."""
    pairs = near_duplicates(other.thumbs, tumors.thumbs, tumors.calibration.threshold)
    near = np.zeros(len(other), bool)
    near[pairs.first] = True
    contents = {image.tobytes() for image in tumors.images}
    identical = np.array([image.tobytes() in contents for image in other.images])
    people = set(tumors.persons) - {UNKNOWN}
    persons = np.array([person in people for person in other.persons], bool)
    reasons = {"classes": label_of < 0, "identical": identical, "near_duplicates": near, "persons": persons}
    before = np.zeros(len(other), bool)
    for reason, mask in reasons.items():
        reasons[reason] = mask & ~before
        before |= mask
    return reasons


def _tell_classes(folder: Path, classes: Mapping[str, str | None]) -> None:
    """Report how differing class names were interpreted."""
    mappings = [
        f"{theirs} = {ours}" for theirs, ours in classes.items() if ours is not None and theirs != ours
    ]
    mappings += [f"{theirs} left out" for theirs, ours in classes.items() if ours is None]
    if mappings:
        progress.say(f"{folder}: classes: {', '.join(mappings)} (--class-map says otherwise)")


def cautions(images_by_class: Mapping[str, int], borrowed: float) -> list[str]:
    """Cautions to show beside every figure on a folder.

    Args:
        images_by_class: the remaining ones.
        borrowed: share of the folder's images that are also in training.
    """
    sentences = []
    if missing := [name for name, count in images_by_class.items() if not count]:
        sentences.append(
            f"No image of {' or '.join(missing)}: if a model answers with it anyway, macro-F1 counts that class as "
            "0."
        )
    if few := [f"{count} of {name}" for name, count in images_by_class.items() if 0 < count < FEW]:
        sentences.append(f"Only {' and '.join(few)}: macro-F1 hangs on a few answers.")
    if borrowed >= BORROWED:
        sentences.append(
            f"{borrowed:.0%} of the folder is also among the training images. Sets that share pictures share patients "
            "and scanners as well, so the rest is no independent test."
        )
    return sentences
