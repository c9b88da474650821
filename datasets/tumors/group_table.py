"""Groups as a table that a person can read and correct: `groups.csv`, one row an image."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mri_transfer.datasets.tumors.files import ImageFile
from mri_transfer.datasets.tumors.groups import connected
from mri_transfer.errors import UserError
from mri_transfer.files import atomic_write

if TYPE_CHECKING:
    from mri_transfer.datasets.tumors.tumors import TumorSet

COLUMNS = ("file", "split", "class", "group", "patient")


def write_groups(path: Path, tumors: TumorSet, patients: Sequence[str | None] | None = None) -> None:
    """One row a distinct image: file, split, class, group, and the patient where one is known.

    Args:
        path: of the table.
        tumors: the images.
        patients: of each distinct image, or None where it is not known.
    """
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        known = patients or [None] * len(tumors)
        rows = zip(tumors.paths, tumors.split, tumors.labels, tumors.groups, known, strict=True)
        for name, split, label, group, patient in rows:
            writer.writerow((name, split, tumors.classes[label], group, patient or ""))


def read_groups(path: Path, files: Sequence[ImageFile], kept: np.ndarray) -> np.ndarray:
    """The groups that a table gives to images; copies of one image join the groups of all their rows.

    Args:
        path: CSV with the columns file (relative to the folder of images) and group (any text).
        files: the readable image files.
        kept: int (files,), the distinct image that each shows.

    Returns:
        int (images,), numbered by first appearance.

    Raises:
        UserError: the table can't be read, lacks a column, or leaves an image without a group.
    """
    path = Path(path)
    try:
        # As `write_groups` writes the names of files that are no UTF-8.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as table:
            rows = list(csv.DictReader(table))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `mri-transfer audit` writes one") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not readable as a table ({error})") from None
    if not rows or not {"file", "group"} <= set(rows[0]):
        raise UserError(f"{path}: needs a heading with the columns file and group, and rows below it")
    named = {(row["file"] or "").strip().replace("\\", "/"): (row["group"] or "").strip() for row in rows}
    numbers: dict[str, int] = {}
    images = int(kept.max()) + 1
    links = []
    for file, image in zip(files, kept.tolist(), strict=True):
        if group := named.get(file.path):
            links.append((image, images + numbers.setdefault(group, len(numbers))))
    missing = np.setdiff1d(np.arange(images), [image for image, _ in links])
    if len(missing):
        first = next(file.path for file, image in zip(files, kept, strict=True) if image == missing[0])
        raise UserError(
            f"{path}: gives no group to {len(missing)} of {images} images, the first {first}; add rows for them, or "
            "make the table anew with `mri-transfer audit`"
        )
    return connected(np.array(links), images + len(numbers))[:images]
