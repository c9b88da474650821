"""Groups as a table for people to read and correct: `groups.csv`, one row per image."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mri_transfer.datasets.tumors.images import ImageFile
from mri_transfer.datasets.tumors.persons.originals import person_of
from mri_transfer.errors import UserError
from mri_transfer.storage.files import atomic_write, read_whole
from mri_transfer.storage.tables import Table, restored

if TYPE_CHECKING:
    from mri_transfer.datasets.tumors.tumors import TumorSet

COLUMNS = ("file", "split", "class", "group", "person", "patient", "source", "original", "source_label")


@dataclass(frozen=True, eq=False)
class GroupTable:
    """A table's information about `n` images."""

    persons: tuple[str, ...]  # "" where it names none
    members: dict[str, list[int]]  # images of each of its groups

    def links(self, persons: Sequence[str]) -> np.ndarray:
        """Pairs of images in one group, int (links, 2), among those whose person is unknown."""
        unknown = [[image for image in images if not persons[image]] for images in self.members.values()]
        return np.array([pair for images in unknown for pair in pairwise(images)], int).reshape(-1, 2)


def write_groups(path: Path, tumors: TumorSet) -> None:
    """One row per distinct image: file, split, class, group, and what is known of its person and source."""
    known = tumors.known
    with atomic_write(path) as file:
        table = Table(file, COLUMNS)
        for image, name in enumerate(tumors.paths):
            facts = (
                known.patients[image],
                known.sources[image],
                known.originals[image],
                known.tumours[image],
            )
            place = (tumors.split[image], tumors.classes[tumors.folder_labels[image]], tumors.groups[image])
            table.write((name, *place, tumors.persons[image], *facts))


def read_groups(path: Path, files: Sequence[ImageFile], image_of: np.ndarray) -> GroupTable:
    """The groups and persons a table assigns to images; copies of one image combine all their rows.

    Args:
        path: CSV in any locale's format, with the columns file (relative to the folder of images) and group (any text),
            person, or patient (where a final letter is another visit of the same person).
        files: the readable image files.
        image_of: int (files,), the distinct image that each shows.

    Raises:
        UserError: the table can't be read, lacks a column, contradicts itself, or leaves an image without a group.
    """
    path = Path(path)
    try:
        rows = _rows(read_whole(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `mri-transfer audit` writes one") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not readable as a table ({error}); save it as CSV in UTF-8") from None
    if not rows or "file" not in rows[0] or not {"group", "person", "patient"} & set(rows[0]):
        raise UserError(
            f"{path}: needs a heading with the columns file and group (or person, or patient), and rows below it"
        )
    by_name: dict[str, tuple[str, str]] = {}
    for number, row in enumerate(rows, 2):
        cell = {key: restored((row.get(key) or "").strip()) for key in ("file", "group", "person", "patient")}
        name = cell["file"].replace("\\", "/").removeprefix("./")
        identity = cell["group"], cell["person"] or person_of(cell["patient"])
        if by_name.setdefault(name, identity) != identity:
            raise UserError(
                f"{path}: line {number} says of {name} what an earlier line contradicts; leave one of them"
            )
    images = int(image_of.max()) + 1
    persons = [""] * images
    members: dict[str, list[int]] = {}
    told_of = np.zeros(images, bool)
    for file, image in zip(files, image_of.tolist(), strict=True):
        group, person = by_name.get(file.path, ("", ""))
        told_of[image] |= bool(group or person)
        if group:
            members.setdefault(group, []).append(image)
        if person and persons[image] not in ("", person):
            raise UserError(
                f"{path}: names {persons[image]} and {person} as the person on {file.path} and its identical copy"
            )
        persons[image] = person or persons[image]
    missing = np.flatnonzero(~told_of)
    if len(missing) == images:
        raise UserError(
            f"{path}: gives no group to any image; it calls the first {next(iter(by_name))!r}, and names are relative "
            f"to the folder, such as {files[0].path!r}"
        )
    if len(missing):
        name = next(file.path for file, image in zip(files, image_of, strict=True) if image == missing[0])
        raise UserError(
            f"{path}: gives no group to {len(missing)} of {images} images, the first {name}; add rows for them, or "
            "make the table anew with `mri-transfer audit`"
        )
    return GroupTable(tuple(persons), members)


def _rows(content: bytes) -> list[dict[str, str]]:
    """The rows of a table by their headings in lower case.

    Spreadsheets save UTF-8 or UTF-16, with semicolons where the comma is the decimal sign. Non-UTF-8 bytes are kept, as
    `write_groups` writes them in file names.
    """
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16") if wide else content.decode("utf-8-sig", errors="surrogateescape")
    if "\0" in text:
        raise csv.Error("it holds bytes that are no text")
    heading = text.partition("\n")[0]
    delimiter = max(",;\t", key=heading.count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    if rows.fieldnames is not None:
        rows.fieldnames = [(name or "").strip().lower() for name in rows.fieldnames]
    return list(rows)
