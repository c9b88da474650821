"""The labelled tumour images: distinct ones, in groups of related images, and an account of leaks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mri_transfer.datasets.image_files import read_grey
from mri_transfer.datasets.tumors.copies.duplicates import (
    NEAREST,
    SMALL,
    STRIP,
    WORTH,
    Pairs,
    near_duplicates,
)
from mri_transfer.datasets.tumors.copies.threshold import SAMPLE, Calibration, calibrate, planted_copies
from mri_transfer.datasets.tumors.copies.thumbnails import BLUR, THUMBNAIL
from mri_transfer.datasets.tumors.images import (
    CACHE_FORMAT,
    Decoded,
    ImageFile,
    decode,
    images_of,
)
from mri_transfer.datasets.tumors.layout import Layout, published, read_layout
from mri_transfer.datasets.tumors.persons.binding import (
    BOUND,
    CANDIDATES,
    CLOSE,
    DETAIL,
    FINE,
    TONES,
    TRIMS,
    Binding,
    bind,
)
from mri_transfer.datasets.tumors.persons.group_table import read_groups
from mri_transfer.datasets.tumors.persons.groups import (
    BLOCK,
    NEIGHBOUR,
    SAME_PATIENT,
    describe,
    guessed_links,
    sequences,
)
from mri_transfer.datasets.tumors.persons.originals import Originals, figshare_originals
from mri_transfer.datasets.tumors.persons.persons import Known, person_groups, recognise, too_large
from mri_transfer.datasets.tumors.persons.recognised import account, conflicts
from mri_transfer.errors import UserError
from mri_transfer.evaluation.numbering import numbered
from mri_transfer.progress import say
from mri_transfer.storage.arrays import Shape, check_shapes, load_npz, save_npz

CLASSES = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")
"""Class folders of the public four-class set; any other names work as well."""


@dataclass(frozen=True, eq=False)
class TumorSet:
    """`n` distinct labelled images.

    `published_train` and `published_test` index the images as the published split uses them, copies and leaks included
    (so with repeats); both are empty if the folder has no splits, and images of a validation split are in neither
    unless it substitutes for a missing test split. The published split uses the folder's labels: `folder_labels` train,
    `published_labels` are scored.
    """

    images: np.ndarray  # uint8 (n, size, size), padded to a square with black
    files: tuple[ImageFile, ...]  # every readable one, copies included
    image_of: np.ndarray  # int (files,), the image that each file shows
    labels: np.ndarray  # int (n,), the source's if known, unless the folder's were requested
    folder_labels: np.ndarray  # int (n,), by the class folder of the kept copy
    groups: np.ndarray  # int (n,), persons where known
    persons: tuple[str, ...]  # of each image, "" if unknown
    known: Known  # what sources say about the images
    paths: tuple[str, ...]  # relative to the folder, of the kept copies
    classes: tuple[str, ...]
    split: np.ndarray  # str (n,), of the kept copies
    published_train: np.ndarray  # int
    published_test: np.ndarray  # int
    published_labels: np.ndarray  # int, by the folder of each test file itself
    thumbs: np.ndarray  # uint8 (n, side, side), for comparing
    candidates: Pairs  # every pair compared closely, best first
    calibration: Calibration  # least correlation of a pair of the same picture
    audit: dict
    content: str  # fingerprint of images, labels and splits
    digests: np.ndarray  # str (files,), SHA-256 of each
    folder: str  # its name

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def near(self) -> Pairs:
        """Pairs of images that are the same picture."""
        return self.candidates.above(self.calibration.threshold)

    @property
    def names(self) -> list[tuple[str, ...]]:
        """Names of the files that show each image, the kept copy first: FOLDER/path, path, and SHA-256."""
        names: list[list[str]] = [[] for _ in range(len(self))]
        for file, image, digest in zip(self.files, self.image_of, self.digests, strict=True):
            names[image] += [f"{self.folder}/{file.path}", file.path, str(digest)]
        return [tuple(names_of_image) for names_of_image in names]

    @property
    def fingerprint(self) -> str:
        """Fingerprint of images, labels, splits and groups, the same on any machine."""
        return _fingerprint(self.content, self.groups)


def load_tumors(
    folder: Path,
    size: int,
    *,
    strict: bool = False,
    cache: Path | None = None,
    groups_from: Path | None = None,
    force_groups: bool = False,
    labels_from: str = "source",
    originals: Sequence[Originals] = (),
    layout: Layout | None = None,
) -> TumorSet:
    """Read a folder of tumour images, drop pixel-identical copies, and group related images.

    Images are recognised as slices of the collection the package knows (:mod:`.originals`). If that names the person,
    the person is the group; only other images are grouped by copies, file numbers and similarity.

    Args:
        folder: holds one folder per class, or `Training` and `Testing`, which do.
        size: pixels of the square images.
        strict: an unreadable image is an error; otherwise it is skipped, counted and listed in `audit`.
        cache: a folder for the decoded images, so that the next call starts at once.
        groups_from: a table of groups, as written by `mri-transfer audit`, to use instead of those inferred here. A
            person in it, or named by a source, takes precedence over a group; copies and near-duplicates are still
            joined: they may never be split.
        force_groups: accept a table, or `originals`, even if a group holds more than a quarter of a class.
        labels_from: "source", to use a source's label if known, or "folder".
        originals: further collections to recognise images in; they take precedence over the package's own.
        layout: the folder's, if already read.

    Raises:
        UserError: the folder is missing or not laid out like this, a class has no readable image, an image is
            unreadable and `strict`, the table does not fit, or a group is too large and not `force_groups`.
    """
    folder = Path(folder)
    layout = layout or read_layout(folder)
    for line in layout.left_out:
        say(f"{folder}: {line}")
    files, classes = images_of(layout, folder), layout.classes
    decoded = decode(folder, files, size, cache)
    if decoded.skipped and strict:
        worst = decoded.skipped[0]
        more = f" (and {len(decoded.skipped) - 1} more)" if len(decoded.skipped) > 1 else ""
        raise UserError(f"{folder / worst['file']}: {worst['reason']}{more}; fix or remove it")
    files = [files[row] for row in decoded.rows]
    labels = np.array([file.label for file in files], dtype=int)
    for label, name in enumerate(classes):
        if not (labels == label).any():
            raise UserError(
                f"{folder}: no image of class {name} can be read; put whole ones there or remove the class"
            )

    # Training files come first, so the first of several copies is Training's if there is one.
    originals_at, image_of = numbered(decoded.pixels)
    thumbs = decoded.thumbs[originals_at]
    paths = [folder / files[original].path for original in originals_at]
    fine = decoded.fine[originals_at]
    candidates, calibration, binding = _find_alike(thumbs, fine, decoded.pixels[originals_at], paths, cache)
    near = candidates.above(calibration.threshold)

    bindings = [
        (figshare_originals(), binding),
        *((collection, bind(fine, collection)) for collection in originals),
    ]
    known = recognise(bindings, near, len(fine))
    folder_labels = labels[originals_at]
    source_labels = known.labels(classes)
    final_labels = np.where((source_labels >= 0) & (labels_from == "source"), source_labels, folder_labels)
    numbers = np.array([file.number for file in files])
    runs = sequences([(file.split, classes[file.label], file.prefix) for file in files], numbers.tolist())
    guessed, figures = guessed_links(near, runs, numbers, image_of, thumbs)
    persons, sure = known.persons, known.bound
    groups = person_groups(persons, near, guessed, sure=sure)
    if groups_from is not None or originals:
        usual = groups
        if groups_from is not None:
            table = read_groups(groups_from, files, image_of)
            persons = tuple(theirs or ours for theirs, ours in zip(table.persons, persons, strict=True))
            sure, guessed = sure & np.array([not person for person in table.persons]), table.links(persons)
            groups, figures = person_groups(persons, near, guessed, sure=sure), {}
        else:
            alone = recognise(bindings[:1], near, len(fine))
            usual = person_groups(alone.persons, near, guessed, sure=alone.bound)
        if not force_groups and (wrong := too_large(final_labels, groups, usual, classes)):
            raise UserError(
                f"{groups_from or 'the originals'}: {wrong}; correct it, or take it as it is with --force-groups"
            )

    splits = np.array([file.split for file in files])
    train, test = published(splits)
    audit = _account(files, classes, decoded, labels, image_of, originals_at, train, test, near)
    audit |= {"left_out": list(layout.left_out), "unread_pictures": sum(layout.unread.values())}
    audit["thresholds"] |= calibration.summary()
    audit["groups"] = _describe(groups, thumbs, final_labels, classes)
    audit["groups"]["from"] = "inferred" if groups_from is None else str(groups_from)
    audit["sequences"] = figures
    audit["sources"] = account(files, image_of, classes, known, persons, groups, train, test)
    audit["source_conflicts"] = conflicts(files, image_of, classes, known)
    audit["labels"] = {"from": labels_from, "changed": int((final_labels != folder_labels).sum())}
    return TumorSet(
        images=decoded.images[originals_at],
        files=tuple(files),
        image_of=image_of,
        labels=final_labels,
        folder_labels=folder_labels,
        groups=groups,
        persons=persons,
        known=known,
        paths=tuple(files[original].path for original in originals_at),
        classes=classes,
        split=splits[originals_at],
        published_train=image_of[train],
        published_test=image_of[test],
        published_labels=labels[test],
        thumbs=thumbs,
        candidates=candidates,
        calibration=calibration,
        audit=audit,
        content=_fingerprint(
            decoded.pixels[originals_at], final_labels, folder_labels, splits[originals_at], size
        ),
        digests=decoded.bytes,
        folder=folder.resolve().name,
    )


def _describe(groups: np.ndarray, thumbs: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict:
    by_class = {name: len(np.unique(groups[labels == label])) for label, name in enumerate(classes)}
    return describe(groups, thumbs) | {"by_class": by_class}


def _find_alike(
    thumbs: np.ndarray, fine: np.ndarray, pixels: np.ndarray, paths: Sequence[Path], cache: Path | None
) -> tuple[Pairs, Calibration, Binding]:
    """Candidate pairs of the same picture, the threshold for them, and the known slices the images show.

    This is the slow part; it is cached for exactly these pixels.
    """
    cache_file = None
    if cache is not None:
        settings: tuple = (THUMBNAIL, BLUR, SMALL, STRIP, NEAREST, WORTH, SAMPLE, CACHE_FORMAT)
        originals = figshare_originals()
        digest = hashlib.sha256(originals.signatures.tobytes()).hexdigest()
        settings += (FINE, BOUND, CLOSE, DETAIL, TONES, TRIMS, CANDIDATES, digest)
        cache_file = Path(cache) / f"pairs-{_fingerprint(pixels, settings)[:16]}.npz"
        try:
            arrays = load_npz(cache_file)
            _check_pairs(arrays, len(pixels))
            pairs = Pairs(*(arrays[f"pairs_{n}"] for n in range(4)))
            binding = Binding(arrays["original"], arrays["correlation"])
            return pairs, calibrate(pairs, arrays["planted"]), binding
        except (ValueError, KeyError):
            pass  # missing or damaged: rebuild
    pairs = near_duplicates(thumbs)
    sample = np.sort(np.random.default_rng(0).permutation(len(paths))[:SAMPLE])
    planted = planted_copies([read_grey(paths[place]) for place in sample], among=thumbs, rows=sample)
    binding = bind(fine, figshare_originals())
    if cache_file is not None:
        arrays = {f"pairs_{n}": values for n, values in enumerate(pairs.fields())}
        arrays |= {"original": binding.original, "correlation": binding.correlation}
        save_npz(cache_file, {"planted": planted, **arrays})
    return pairs, calibrate(pairs, planted), binding


def _check_pairs(arrays: Mapping[str, np.ndarray], pictures: int) -> None:
    """Check that cached arrays are pairs of these pictures and the slices they show; raises ValueError."""
    whole, pairs, per_picture = "iu", ("pairs",), (pictures,)
    expected: dict[str, tuple[str, Shape]] = {
        **{
            "pairs_0": (whole, pairs),
            "pairs_1": (whole, pairs),
            "pairs_2": ("f", pairs),
            "pairs_3": (whole, pairs),
        },
        **{
            "original": (whole, per_picture),
            "correlation": ("f", per_picture),
            "planted": ("f", ("planted",)),
        },
    }
    check_shapes(arrays, expected)
    limits = {"pairs_0": pictures, "pairs_1": pictures, "pairs_3": 8, "original": len(figshare_originals())}
    for name, count in limits.items():
        least = -1 if name == "original" else 0
        if len(arrays[name]) and not least <= arrays[name].min() <= arrays[name].max() < count:
            raise ValueError(f"{name} holds image numbers that are out of range")


def _fingerprint(*parts: object) -> str:
    digest = hashlib.sha256()
    for value in parts:
        digest.update(repr(value.tolist() if isinstance(value, np.ndarray) else value).encode())
    return digest.hexdigest()


def _account(
    files: Sequence[ImageFile],
    classes: tuple[str, ...],
    decoded: Decoded,
    labels: np.ndarray,
    image_of: np.ndarray,
    originals: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    near: Pairs,
) -> dict:
    """The faults of the set, in figures and lists. Arrays have one entry per readable file."""
    identical = test & np.isin(image_of, image_of[train])
    # A test image leaks if the picture itself, or a near-duplicate, is a training image.
    in_training = np.zeros(len(originals), bool)
    in_training[image_of[train]] = True
    leaky = in_training | near.beside(in_training)

    def by_class(mask: np.ndarray) -> dict[str, int]:
        return {name: int((mask & (labels == label)).sum()) for label, name in enumerate(classes)}

    distinct = np.zeros(len(files), bool)
    distinct[originals] = True
    return {
        "files": len(files) + len(decoded.skipped),
        "readable": len(files),
        "skipped": decoded.skipped,
        "distinct": len(originals),
        "distinct_by_class": by_class(distinct),
        "training_files": int(train.sum()),
        "test_files": int(test.sum()),
        "test_identical": int(identical.sum()),
        "test_identical_by_class": by_class(identical),
        "test_byte_identical": int((test & np.isin(decoded.bytes, decoded.bytes[train])).sum()),
        "test_near_duplicate": int((test & leaky[image_of]).sum()),
        "near_duplicate_pairs": len(near),
        "label_conflicts": _conflicts(files, labels, image_of, originals, near),
        "thresholds": {
            "same_patient": SAME_PATIENT,
            "neighbour": NEIGHBOUR,
            "block": BLOCK,
        },
    }


def _conflicts(
    files: Sequence[ImageFile], labels: np.ndarray, image_of: np.ndarray, originals: np.ndarray, near: Pairs
) -> list[dict]:
    """Pictures with two labels: identical copies first, then near-duplicates."""
    entries = [
        {
            "first": files[originals[image_of[row]]].path,
            "second": files[row].path,
            "correlation": 1.0,
            "identical": True,
        }
        for row in range(len(files))
        if labels[row] != labels[originals[image_of[row]]]
    ]
    for first, second, correlation in zip(near.first, near.second, near.correlation, strict=True):
        a, b = originals[first], originals[second]
        if labels[a] != labels[b]:
            entries.append(
                {
                    "first": files[a].path,
                    "second": files[b].path,
                    "correlation": round(float(correlation), 4),
                    "identical": False,
                }
            )
    return entries
