"""The public slices that tumour pictures are copies of, for identifying a picture's slice and so its person.

Most pictures of the usual four-class sets are slices of one collection that identifies its patients (Cheng's, Figshare
1512427: 3,064 slices of 233 patient ids). The sets lost the ids but kept the pictures. So the package carries a small
grey signature of every slice, with its label, plane and patient (CC BY 4.0, cited in the table), by which
:mod:`mri_transfer.datasets.tumors.persons.binding` recognises them.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 16  # pixels of a signature
FIGSHARE = "figshare"
_TABLE = Path(__file__).with_name("figshare_1512427.csv")
_COLUMNS = 56  # signatures per row of the picture beside the table


@dataclass(frozen=True, eq=False)
class Originals:
    """The slices of a collection, `m` of them.

    Attributes:
        source: the collection's name.
        names: each slice's name there.
        signatures: uint8 (m, SIDE, SIDE).
        labels: each slice's tumour, in English: "meningioma", "glioma" or "pituitary".
        planes: "axial", "coronal" or "sagittal" of each; "" if unknown.
        patients: id of each.
    """

    source: str
    names: tuple[str, ...]
    signatures: np.ndarray
    labels: tuple[str, ...]
    planes: tuple[str, ...]
    patients: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


@cache
def figshare_originals() -> Originals:
    """The 3,064 slices of Figshare 1512427, as stored in the package."""
    with _TABLE.open(encoding="utf-8", newline="") as file:
        runs = list(csv.DictReader(line for line in file if not line.startswith("#")))
    slices = [(run, number) for run in runs for number in range(int(run["first"]), int(run["last"]) + 1)]
    with Image.open(_TABLE.with_suffix(".png")) as picture:
        sheet = np.asarray(picture) << 1  # the picture holds 7 bits
    tiles = sheet.reshape(-1, SIDE, _COLUMNS, SIDE).transpose(0, 2, 1, 3).reshape(-1, SIDE, SIDE)
    return Originals(
        FIGSHARE,
        tuple(str(number) for _, number in slices),
        tiles[: len(slices)],
        tuple(run["label"] for run, _ in slices),
        tuple(run["plane"] for run, _ in slices),
        tuple(run["patient"] for run, _ in slices),
    )


def person_of(patient: str) -> str:
    """The person behind a patient id: a final letter after a digit is another visit of the same person.

    In Figshare 1512427, 18 of 43 ids of the form MR0xxxxx appear with several letters. Their tumours are in the same
    hemisphere in 23 of 24 pairs, 0.05 of a head apart (median; 0.19 between other ids): they are one person's.
    """
    match = re.fullmatch(r"(.*\d)[A-Za-z]", patient, re.DOTALL)
    return match[1] if match else patient
