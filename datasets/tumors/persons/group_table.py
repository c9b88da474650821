"""Groups as a table for people to read and correct: `groups.csv`, one row per image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mri_transfer.datasets.tumors.images import ImageFile
from mri_transfer.datasets.tumors.persons.originals import person_of
from mri_transfer.errors import UserError
from mri_transfer.storage.files import atomic_write
from mri_transfer.storage.tables import Table, by_file, read_table

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
    # `write_groups` writes file names that are not UTF-8 as they are.
    columns = ("file", "group", "person", "patient")
    rows = read_table(path, columns, errors="surrogateescape", missing="; `mri-transfer audit` writes one")
    if not rows or "file" not in rows[0][1] or not set(columns[1:]) & set(rows[0][1]):
        raise UserError(
            f"{path}: needs a heading with the columns file and group (or person, or patient), and rows below it"
        )
    identities = (
        (
            number,
            row["file"].replace("\\", "/").removeprefix("./"),
            (row.get("group", ""), row.get("person") or person_of(row.get("patient", ""))),
        )
        for number, row in rows
    )
    by_name = by_file(path, identities)
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
            "make the table again with `mri-transfer audit`"
        )
    return GroupTable(tuple(persons), members)
