"""The layout of a folder of labelled images: folders that are splits, that are classes, and the rest.

It understands class folders, with or without splits above them (`Training/glioma`) or below (`glioma/train`), and one
enclosing folder, as archives often have. Any other folder raises an error and is never trained on: `plots`, `pred` or a
second set beside the first would otherwise become a class.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from filecmp import cmp
from functools import cached_property
from pathlib import Path

import numpy as np

from mri_transfer.datasets.image_files import SUFFIXES
from mri_transfer.datasets.tumors.class_names import kind, plain
from mri_transfer.datasets.volumes.find import SUFFIXES as VOLUMES
from mri_transfer.errors import UserError
from mri_transfer.words import counted, word_set

UNREAD = word_set(
    """
    .dcm .dicom .ima .jfif .jpe .jif .pjpeg .jp2 .j2k .jxl .heic .heif .avif
    .ppm .pgm .pnm .tga .nii .gz .mha .nrrd .raw .psd
    """
)
"""Other suffixes of pictures, which are counted and reported."""
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*", b"BM")

NO_CLASS = word_set(
    """
    plots plot figures figure figs charts graphs heatmaps gradcam screenshots pred preds predictions
    predicted results result outputs output logs runs models weights checkpoints notebooks cache tmp temp
    backup old masks mask segmentation segmentations labels annotations unlabeled unlabelled
    """
)
"""Names of folders that are not classes, whatever pictures they hold."""
JUNK = frozenset(
    ("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "__pycache__")
)
"""Folders left behind by programs."""

_AFTER = r"(?:[\W_]*(?:set|sets|data|dataset|split|images?|imgs?))*[\W_]*"
_SPLITS = {
    "train": re.compile(rf"train(?:ing)?{_AFTER}", re.IGNORECASE),
    "validation": re.compile(rf"(?:val(?:id(?:ation)?)?|dev(?:elopment)?){_AFTER}", re.IGNORECASE),
    "test": re.compile(rf"test(?:ing)?{_AFTER}", re.IGNORECASE),
}
_PARTS = re.compile(r"(axial|coronal|sagittal|ax|cor|sag|t1.*|t2.*|flair|[a-z]{0,8}[\W_]*\d+)", re.IGNORECASE)
"""Folders within a class: planes, sequences, numbered persons or batches."""
DEEPEST = 4  # folders around a set


@dataclass(frozen=True)
class Place:
    """A folder with images of one class, in one split ("all" where there are none)."""

    split: str
    name: str
    folder: Path
    images: tuple[Path, ...]


@dataclass(frozen=True)
class Layout:
    """The parsed layout.

    Attributes:
        places: training first, then validation and test; by class within a split.
        classes: names, sorted.
        left_out: sentences about what is skipped.
        unread: pictures in class folders with unsupported suffixes, by suffix.
    """

    places: tuple[Place, ...]
    classes: tuple[str, ...]
    left_out: tuple[str, ...]
    unread: dict[str, int]


def split_kind(name: str) -> str | None:
    """ "train", "validation" or "test", for a folder with that or a similar name, in any case; None for other names.

    >>> split_kind("Training"), split_kind("VAL"), split_kind("test_set"), split_kind("testosterone")
    ('train', 'validation', 'test', None)
    """
    return next((split for split, pattern in _SPLITS.items() if pattern.fullmatch(name)), None)


def published(splits: Sequence[str] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The training and test images of the published split.

    A validation split is neither, as its images were used for making choices; without a test split it is what others
    report on, so it is used as such.

    Args:
        splits: str (n,), as in :class:`Place`.

    Returns:
        Two masks, bool (n,).
    """
    names, inverse = np.unique(np.asarray(splits, dtype=str), return_inverse=True)
    kinds = np.array([split_kind(name) or "" for name in names], dtype="U10")[inverse.reshape(-1)]
    test = kinds == "test"
    return kinds == "train", test if test.any() else kinds == "validation"


class _Folder:
    """A folder, explored lazily."""

    def __init__(self, path: Path):
        self.path, self.name = path, path.name

    @cached_property
    def _entries(self) -> list[Path]:
        try:
            entries = sorted(self.path.iterdir())
        except OSError as error:
            raise _unlisted(self.path, error) from None
        return [entry for entry in entries if not entry.name.startswith(".")]

    @cached_property
    def folders(self) -> list[_Folder]:
        return [
            _Folder(entry) for entry in self._entries if entry.is_dir() and entry.name.casefold() not in JUNK
        ]

    @cached_property
    def junk(self) -> list[str]:
        return [entry.name for entry in self._entries if entry.name.casefold() in JUNK and entry.is_dir()]

    @cached_property
    def _below(self) -> tuple[list[Path], Counter[str]]:
        """Image files here and below, and suffixes of others; links to folders may be circular: not followed.

        Unreadable files, such as broken links, are included, to be reported and not lost.
        """
        images, unread = [], Counter[str]()

        def refuse(error: OSError) -> None:
            raise _unlisted(Path(error.filename), error)

        for place, inner, names in os.walk(self.path, onerror=refuse):
            inner[:] = [name for name in inner if not name.startswith(".") and name.casefold() not in JUNK]
            for name in names:
                if not name.startswith("."):
                    path = Path(place, name)
                    if path.suffix.lower() in SUFFIXES:
                        images.append(path)
                    elif _is_picture(path):
                        unread[path.suffix.lower() or "no ending"] += 1
        return images, unread

    @property
    def images(self) -> list[Path]:
        return self._below[0]

    @property
    def unread(self) -> Counter[str]:
        return self._below[1]

    @property
    def pictures(self) -> int:
        """Number of pictures here and below, of any kind."""
        return len(self.images) + self.unread.total()

    @cached_property
    def loose(self) -> list[Path]:
        """Images in the folder itself."""
        return [path for path in self.images if path.parent == self.path]

    @property
    def filled(self) -> list[_Folder]:
        """Folders in it with pictures."""
        return [folder for folder in self.folders if folder.pictures]

    @property
    def empty(self) -> list[_Folder]:
        return [folder for folder in self.folders if not folder.pictures]

    @property
    def is_set(self) -> bool:
        """Whether it may hold classes: almost all pictures are in its folders, which are not named like parts."""
        inner, loose = self.filled, len(self.loose)
        return (
            bool(inner)
            and 10 * loose <= self.pictures
            and not all(_PARTS.fullmatch(folder.name) for folder in inner)
        )

    @property
    def has_splits(self) -> bool:
        """Whether it holds splits of classes."""
        return any(split_kind(folder.name) and folder.is_set for folder in self.filled)


def _unlisted(folder: Path, error: OSError) -> UserError:
    return UserError(f"{folder}: can't be listed ({error.strerror}); fix its permissions or remove it")


def _is_picture(path: Path) -> bool:
    """Whether an unsupported file is a picture nevertheless, by its suffix or first bytes."""
    suffix = path.suffix.lower()
    if suffix in UNREAD:
        return suffix != ".gz" or path.name.lower().endswith(".nii.gz")
    if (
        1 < len(suffix) <= 6
        and suffix[1:].isalpha()
        and suffix not in (".bak", ".orig", ".img", ".image", ".tmp")
    ):
        return False  # text, tables, archives, programs
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            start = file.read(132)
    except OSError:
        return False
    return (
        start.startswith(_MAGIC) or start[8:12] == b"WEBP" or start[4:8] == b"ftyp" or start[128:] == b"DICM"
    )


@dataclass
class _Reading:
    """The layout as understood so far."""

    root: _Folder
    places: list[tuple[str, str, _Folder]] = field(default_factory=list)  # split, class, folder
    remarks: list[str] = field(default_factory=list)

    def within(self, folder: _Folder) -> str:
        return folder.path.relative_to(self.root.path).as_posix()

    def look_beside(self, folder: _Folder) -> None:
        """Report what is beside the folders used: leftovers, folders without images, loose images."""
        if folder.junk:
            self.remarks.append(f"{', '.join(folder.junk)}: left behind by a program, ignored")
        if folder.empty:
            names = ", ".join(self.within(other) for other in folder.empty)
            self.remarks.append(
                f"{names}: {'holds' if len(folder.empty) == 1 else 'hold'} no images, ignored"
            )
        if folder.loose:
            count, first = len(folder.loose), folder.loose[0].relative_to(self.root.path).as_posix()
            subject = f"{count} images lie" if count > 1 else "1 image lies"
            self.remarks.append(f"{subject} beside the class folders, without a class, ignored: {first}")

    def refuse_or_pass(self, extra: Sequence[_Folder], others: str) -> None:
        """Skip copies of what is used; reject any other folder of pictures.

        Raises:
            UserError: a folder holds pictures not among those used.
        """
        by_key: dict[tuple[str, str, int], list[Path]] = {}
        for path in (path for _, _, folder in self.places for path in folder.images):
            by_key.setdefault(_key(path), []).append(path)
        for folder in extra:
            new = [
                path
                for path in folder.images
                if not any(_have_same_content(path, other) for other in by_key.get(_key(path), ()))
            ]
            if not new and not folder.unread:
                self.remarks.append(f"{self.within(folder)}: a copy of images beside it, ignored")
                continue
            count = folder.pictures
            text = "another set of " if folder.has_splits or folder.is_set else ""
            raise UserError(
                f"{folder.path}: {text}{counted(count, 'picture')} beside {others}, and none of them; "
                "move the folder elsewhere (or put a dot before its name to have it ignored)"
                + (", or name it alone to use it instead" if text else "")
            )


def _key(path: Path) -> tuple[str, str, int]:
    """Identifies copies of an image across sets: class folder, name and size."""
    return path.parent.name, path.name, path.lstat().st_size


def _have_same_content(first: Path, second: Path) -> bool:
    try:
        return cmp(first, second, shallow=False)
    except OSError:  # broken links
        return False


def read_layout(folder: Path) -> Layout:
    """Find splits and classes.

    Args:
        folder: holds one folder per class, or splits that do; or one folder that does.

    Raises:
        UserError: no such folder, no class folders, a class missing from a split or without images, a folder that can't
            be listed, or one that is neither split, class nor copy.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; name the one that holds Training and Testing, or the class folders"
        )
    reading = _Reading(_Folder(folder))
    inner = _unwrapped(reading)
    splits = [split for split in inner.folders if split_kind(split.name)]
    if splits:
        _read_splits(reading, inner, splits)
    else:
        _read_classes(reading, inner)
    classes = tuple(sorted({name for _, name, _ in reading.places}))
    if len(classes) < 2:
        present = f"only {classes[0]}" if classes else "none"
        raise UserError(
            f"{folder}: needs a folder of images for each of two or more classes, found {present}"
            + (
                _perhaps_within([class_folder for _, _, class_folder in reading.places])
                or _perhaps_volumes(folder)
            )
        )
    for text in {text for split, name, _ in reading.places for text in (split, name)}:
        if text.encode("utf-8", "replace") != (raw := text.encode("utf-8", "surrogateescape")):
            printed = raw.decode("utf-8", "backslashreplace")
            raise UserError(f"{folder}: the name of the folder {printed} is not UTF-8; rename it")
    _require_every_class(reading, classes)
    unread: Counter[str] = sum((place.unread for _, _, place in reading.places), Counter())
    if unread:
        counts = ", ".join(f"{ending} ({count})" for ending, count in sorted(unread.items()))
        subject = f"{counted(unread.total(), 'picture')} {'is' if unread.total() == 1 else 'are'}"
        reading.remarks.append(
            f"{subject} not read because of the end of the name, {counts}; convert to PNG or JPEG (.jfif and .jpe are "
            "JPEG: rename them)"
        )
    order = ("train", None, "validation", "test")
    places = sorted(reading.places, key=lambda place: (order.index(split_kind(place[0])), place[0], place[1]))
    return Layout(
        tuple(
            Place(split, name, class_folder.path, tuple(class_folder.images))
            for split, name, class_folder in places
        ),
        classes,
        tuple(reading.remarks),
        dict(unread),
    )


def _unwrapped(reading: _Reading) -> _Folder:
    """The folder with splits or classes, inside any enclosing folders."""
    inner = reading.root
    for _ in range(DEEPEST):
        filled = inner.filled
        if len(filled) != 1 or split_kind(filled[0].name) or kind(filled[0].name) or not filled[0].is_set:
            break
        if any(split_kind(folder.name) for folder in inner.folders):
            break
        reading.look_beside(inner)
        inner = filled[0]
    if inner is not reading.root:
        reading.remarks.append(f"read from {reading.within(inner)}, the only folder of images in it")
    return inner


def _read_splits(reading: _Reading, inner: _Folder, splits: Sequence[_Folder]) -> None:
    of_kind: dict[str | None, _Folder] = {}
    for split in splits:
        if (other := of_kind.setdefault(split_kind(split.name), split)) is not split:
            raise UserError(
                f"{inner.path}: {other.name} and {split.name} seem to be the same split; keep one, or rename one"
            )
        if not split.pictures:
            raise UserError(f"{split.path}: holds no images; add some or remove the folder")
        place, filled = split, split.filled
        # A nested archive: Training/Training/glioma.
        if len(filled) == 1 and split_kind(filled[0].name) == split_kind(split.name) and filled[0].is_set:
            place, filled = filled[0], filled[0].filled
        if not filled:
            raise UserError(
                f"{split.path}: {split.pictures} pictures, but no class folders in it, so their classes are unknown; "
                "sort them into class folders or move the folder elsewhere"
            )
        names = {plain(folder.name) for folder in filled}
        repeated = [folder for folder in filled if _holds(folder, names)]
        _refuse_by_name([folder for folder in filled if folder not in repeated])
        reading.places += [(split.name, folder.name, folder) for folder in filled if folder not in repeated]
        reading.refuse_or_pass(repeated, "the class folders")
        _refuse_empty_classes(place)
        reading.look_beside(place)
    split_names = " and ".join(split.name for split in splits)
    reading.refuse_or_pass([folder for folder in inner.filled if folder not in splits], split_names)
    reading.look_beside(inner)


def _holds(folder: _Folder, names: set[str]) -> bool:
    """Whether a folder beside class folders is a set itself: with splits, or folders of the same names."""
    inner = {plain(child.name) for child in folder.filled}
    return folder.has_splits or (not folder.loose and bool(inner) and inner <= names and len(inner) > 1)


def _refuse_by_name(folders: Sequence[_Folder]) -> None:
    for folder in folders:
        for place in (folder, *folder.filled):
            if plain(place.name) in NO_CLASS:
                raise UserError(
                    f"{place.path}: {place.pictures} pictures in a folder whose name is not that of a class; move it "
                    "elsewhere, put a dot before its name to have it ignored, or rename it if it is one"
                )


def _read_classes(reading: _Reading, inner: _Folder) -> None:
    filled = inner.filled
    names = {plain(folder.name) for folder in filled}
    repeated = [folder for folder in filled if _holds(folder, names)]
    classes = [folder for folder in filled if folder not in repeated]
    if repeated and len(classes) < 2:
        raise UserError(
            f"{inner.path}: holds several sets ({', '.join(folder.name for folder in repeated)}); name one of them"
        )
    _refuse_by_name(classes)
    _refuse_empty_classes(inner)
    inverted = [[split_kind(split.name) for split in folder.filled] for folder in classes]
    if classes and all(
        kinds and all(kinds) and not folder.loose for kinds, folder in zip(inverted, classes, strict=True)
    ):
        reading.places += [(split.name, folder.name, split) for folder in classes for split in folder.filled]
    else:
        _refuse_splits_by_other_names(inner, classes)
        reading.places += [("all", folder.name, folder) for folder in classes]
    reading.refuse_or_pass(repeated, "the class folders")
    reading.look_beside(inner)


def _refuse_splits_by_other_names(inner: _Folder, classes: Sequence[_Folder]) -> None:
    """Folders that all contain the same folders are splits, folds or sets rather than classes."""
    parts = [frozenset(plain(split.name) for split in folder.filled) for folder in classes]
    if (
        len(classes) < 2
        or any(folder.loose for folder in classes)
        or len(set(parts)) > 1
        or len(parts[0]) < 2
    ):
        return
    if not all(_PARTS.fullmatch(split.name) for split in classes[0].filled):
        names = ", ".join(folder.name for folder in classes[:3])
        raise UserError(
            f"{inner.path}: {names} hold the same folders "
            f"({', '.join(folder.name for folder in classes[0].filled[:3])}), "
            "so they seem to be splits rather than classes; rename them to train and test, or name one of them"
        )


def _refuse_empty_classes(inner: _Folder) -> None:
    for folder in inner.empty:
        if kind(folder.name):
            raise UserError(_without_images(folder.path))


def _perhaps_within(places: Sequence[_Folder]) -> str:
    """A hint if the only class holds folders that may be the classes."""
    if len(places) != 1 or len(places[0].filled) < 2:
        return ""
    return f"; if the folders in it are the classes, name {places[0].path}"


def _require_every_class(reading: _Reading, classes: Sequence[str]) -> None:
    by_split: dict[str, dict[str, _Folder]] = {}
    for split, name, folder in reading.places:
        by_split.setdefault(split, {})[name] = folder
    for by_name in by_split.values():
        for name in classes:
            if name not in by_name:
                path = next(iter(by_name.values())).path.parent / name
                if len(by_split) > 1 and path.is_dir():
                    raise UserError(_without_images(path))
                is_file = path.is_file()
                raise UserError(
                    f"{path}: {'a file, not a folder' if is_file else 'no such folder'}, though another split has it; "
                    "add or remove the class"
                )
            if not by_name[name].images:
                raise UserError(_without_images(by_name[name].path, by_name[name].unread))


def _perhaps_volumes(folder: Path) -> str:
    """What to do about volumes in place of labelled pictures."""
    return (
        "; it holds what looks like volumes: `mri-transfer slices` reads those"
        if any(path.name.lower().endswith((*VOLUMES, ".dcm")) for path in folder.rglob("*"))
        else ""
    )


def _without_images(folder: Path, unread: Counter[str] | None = None) -> str:
    others = (
        f", but {unread.total()} of other kinds ({', '.join(unread)}): convert them to PNG" if unread else ""
    )
    if unread and set(unread) <= {".gz", ".nii", ".mgz", ".mgh", ".mnc"}:
        others = f", but {unread.total()} that look like volumes: `mri-transfer slices` reads those"
    remedy = "" if unread else "; add some or remove the class"
    return f"{folder}: holds no images ({', '.join(SUFFIXES)}){others}{remedy}"
