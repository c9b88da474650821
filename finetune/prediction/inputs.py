"""Inputs of `predict`: image files, volumes and folders of both, turned into pictures of one size."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer.datasets.audit.measure import coloured_share
from mri_transfer.datasets.audit.modality import KINDS, looks_like
from mri_transfer.datasets.image_files import SUFFIXES, open_image, read_bytes, square, upright
from mri_transfer.datasets.slices.cut import cut
from mri_transfer.datasets.volumes.find import NO_PYDICOM, NothingFound, Skipped, Source, find_volumes
from mri_transfer.datasets.volumes.find import SUFFIXES as VOLUMES
from mri_transfer.datasets.volumes.folders import looks_like_dicom
from mri_transfer.datasets.volumes.volume import BadVolume, read_volume
from mri_transfer.errors import UserError
from mri_transfer.words import reason_in_words

_LOOKED_AT = ("derived",)  # kinds of volumes to classify though stores refuse them
# Kinds that no head slice looks like. The public tumour set itself has some of the others, CT and diffusion.
STRANGE = ("photograph", "inverted", "montage", "empty")


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture to classify.

    Attributes:
        file: its source, as the user would name it.
        image: uint8 (size, size), prepared like the tumour set.
        strange: why it visibly can't be a head slice: "look like photographs or colour maps". Slices of volumes aren't
            checked, as a volume is no photograph and a slice low in the neck may look like one.
        place: for a slice of a volume: "plane", "position_mm" and "position" (0..1); else empty.
    """

    file: str
    image: np.ndarray
    strange: tuple[str, ...] = ()
    place: dict[str, Any] | None = None


@dataclass(frozen=True)
class Input:
    """A file to read: an image, or a volume (with its `source`)."""

    name: str
    path: Path
    source: Source | None = None


def find_inputs(paths: Sequence[Path], skipped: list[dict[str, str]] | None = None) -> list[Input]:
    """Files as given, and images and volumes below folders, sorted; each once.

    Args:
        paths: files and folders.
        skipped: receives {"file", "reason"} for unusable volumes.

    Raises:
        UserError: a path does not exist, a folder has neither, or a library needed to read it is missing.
    """
    inputs: dict[Path, Input] = {}
    skipped = [] if skipped is None else skipped
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
        if path.is_dir():
            images = _images(path)
            volumes = _volumes(path, skipped, alone=len(paths) == 1, images=bool(images))
            entries = [Input(str(file), file) for file in images] + volumes
        elif path.suffix.lower() in SUFFIXES or not _may_be_volume(path):
            entries = [Input(str(path), path)]
        else:
            entries = _volumes(path, skipped)
        for entry in entries:
            inputs.setdefault(entry.path.resolve(), entry)
    return list(inputs.values())


def _images(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
    )


def _may_be_volume(file: Path) -> bool:
    return file.name.lower().endswith(VOLUMES) or looks_like_dicom(file)


def _volumes(
    path: Path, skipped: list[dict[str, str]], alone: bool = False, images: bool = False
) -> list[Input]:
    """Volumes at or below a path, which may also have `images`.

    Raises:
        UserError: there are none and `alone`; pydicom may be missing.
    """
    try:
        # Derived scans are still accepted if named explicitly.
        inventory = find_volumes([path], include=() if path.is_dir() else _LOOKED_AT)
    except UserError as error:
        alone = alone and not images
        if NO_PYDICOM in str(error) and alone:
            raise
        left = error.skipped if isinstance(error, NothingFound) else ()
        if alone and not left:
            raise UserError(f"{error}; and no images ({', '.join(SUFFIXES)})") from None
        if path.is_file():
            reason = left[0].reason if left else str(error).removeprefix(f"{path}: ")
            reason += "; a single slice can be given as PNG" if "only 1 slice" in reason else ""
            skipped.append({"file": str(path), "reason": without_remedy(reason)})
        elif left:
            skipped += _as_entries(left)
        elif not images:
            skipped.append({"file": str(path), "reason": "holds no volumes and no images"})
        return []
    skipped += _as_entries(inventory.skipped)
    root = path.resolve()
    inputs = []
    for source in inventory.sources:
        file = source.path.parent if source.is_series else source.path
        name = path / file.relative_to(root) if path.is_dir() else path
        inputs.append(Input(str(name), source.path, source))
    return sorted(inputs, key=lambda entry: entry.name)


def _as_entries(skipped: Sequence[Skipped]) -> list[dict[str, str]]:
    return [{"file": str(skip.path), "reason": without_remedy(skip.reason)} for skip in skipped]


def without_remedy(reason: str) -> str:
    """A reason for skipping, without other commands' options that would include it."""
    return re.sub(
        r"[;,] (see|use|add|try|give) --(?!csv|gradcam|spacing|batch|strict)[a-z-]+( [\w./-]+)?", "", reason
    )


def read_input(entry: Input, size: int, spacing: float) -> Iterator[Picture]:
    """The pictures of one input.

    Args:
        entry: from :func:`find_inputs`.
        size: of the pictures, pixels.
        spacing: minimum distance of a volume's slices, mm.

    Raises:
        BadVolume: a volume can't be used; Exception: anything Pillow raises for a damaged image.
    """
    if entry.source is None:
        with open_image(io.BytesIO(read_bytes(entry.path))) as file:
            picture = upright(file, "YCbCr")
            grey = np.asarray(picture.convert("L"))
            hints = looks_like(grey, coloured_share(picture))
        yield Picture(entry.name, square(grey, size), tuple(KINDS[kind] for kind in hints if kind in STRANGE))
        return
    slices = cut(read_volume(entry.source.files, include=_LOOKED_AT), size, spacing)
    for image, plane, millimetres, share in zip(
        slices.images, slices.plane, slices.position_mm, slices.position, strict=True
    ):
        place = {"plane": plane, "position_mm": millimetres, "position": share}
        yield Picture(entry.name, image, place=place)


def reason_of(error: Exception) -> str:
    """Why an input can't be read, in one line."""
    if isinstance(error, BadVolume):
        return without_remedy(str(error))
    return reason_in_words(error) or type(error).__name__
