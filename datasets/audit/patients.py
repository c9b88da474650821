"""Patients, where the original files of the tumour images are at hand.

Most tumour images of the public four-class set come from Cheng's collection (Figshare 1512427, 3,064 slices of 233
patients), which has patient ids; the four-class set lost them. Its files are MATLAB v7.3, that is HDF5 behind a block
of 512 bytes, one slice each: a group `cjdata` with `label` (1 meningioma, 2 glioma, 3 pituitary tumour; float64 1x1),
`PID` (the patient id, a column of uint16 character codes), `image` (int16, stored by columns), `tumorBorder` and
`tumorMask`. A file `cvind.mat` beside them holds folds and no image. Images are matched by thumbnails, as copies are.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer.datasets.tumors.calibration import USUAL
from mri_transfer.datasets.tumors.duplicates import near_duplicates
from mri_transfer.datasets.tumors.groups import connected
from mri_transfer.datasets.tumors.thumbnails import thumbnail
from mri_transfer.device import cores
from mri_transfer.errors import UserError
from mri_transfer.progress import bar

LABELS = {1: "meningioma", 2: "glioma", 3: "pituitary"}
MOST_PIXELS = 4096  # of a side; the originals have 256 or 512
LONGEST_ID = 64  # characters


@dataclass(frozen=True, eq=False)
class FigshareSet:
    """The original slices that could be read, `n` of them."""

    files: tuple[str, ...]  # relative to the folder
    patients: tuple[str, ...]
    labels: np.ndarray  # int (n,), as in :data:`LABELS`
    thumbs: np.ndarray  # uint8 (n, side, side), to compare by
    skipped: list[dict]  # {"file", "reason"} of each file that could not be read

    def __len__(self) -> int:
        return len(self.files)


@dataclass(frozen=True, eq=False)
class PatientMatch:
    """Which original each of `n` images shows."""

    original: np.ndarray  # int (n,), position in the FigshareSet; -1: none
    correlation: np.ndarray  # float32 (n,), after alignment; NaN: none
    patients: tuple[str | None, ...]  # of each image


def read_figshare(folder: Path) -> FigshareSet:
    """Read every `.mat` file below a folder.

    Args:
        folder: where the downloaded zip files were unpacked.

    Raises:
        UserError: no such folder, or no original slice in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name the one where Figshare's zip files were unpacked")
    paths = sorted(
        Path(place, name)
        for place, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(".mat") and name.lower() != "cvind.mat"
    )
    if not paths:
        packed = any(folder.rglob("*.zip"))
        raise UserError(
            f"{folder}: holds no .mat files; "
            + ("unpack its zip files first" if packed else "name the folder with Figshare's originals")
        )
    with ThreadPoolExecutor(cores()) as pool:
        results = list(bar(pool.map(_read, paths), desc="reading originals", unit="file", total=len(paths)))
    names = [path.relative_to(folder).as_posix() for path in paths]
    skipped = [
        {"file": name, "reason": result}
        for name, result in zip(names, results, strict=True)
        if isinstance(result, str)
    ]
    good = [
        (name, *result) for name, result in zip(names, results, strict=True) if not isinstance(result, str)
    ]
    if not good:
        raise UserError(
            f"{folder / names[0]}: {skipped[0]['reason']}; none of {len(paths)} .mat files could be read, "
            "download them again"
        )
    files, patients, labels, thumbs = zip(*good, strict=True)
    return FigshareSet(files, patients, np.array(labels, dtype=int), np.stack(thumbs), skipped)


def _read(path: Path) -> tuple[str, int, np.ndarray] | str:
    """Patient, label and thumbnail; or the reason why not."""
    import h5py

    if not path.is_file():  # opening a pipe would never end
        return "no regular file, or a link that leads nowhere"
    if not path.stat().st_size:
        return "an empty file"
    try:
        with h5py.File(path, "r") as file:
            linked = file.get("cjdata", getlink=True)
            record = (
                file["cjdata"] if isinstance(linked, h5py.HardLink) else None
            )  # a link may lead elsewhere
            if not isinstance(record, h5py.Group):
                return "holds no cjdata: not one of Figshare's originals"
            label = _values(record, "label", 1)
            codes = _values(record, "PID", LONGEST_ID)
            image = _values(record, "image", MOST_PIXELS**2)
    except (OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        return f"damaged, or not MATLAB v7.3 ({' '.join(str(error).split())})"
    number = int(label.ravel()[0]) if label.size and np.isfinite(label).all() else 0
    if number not in LABELS:
        return f"its label is {number}, not 1, 2 or 3"
    if codes.dtype.kind not in "iu" or not codes.size or not ((codes > 31) & (codes < 0xD800)).all():
        return "its PID is no text"
    patient = "".join(chr(code) for code in codes.ravel()).strip()
    if not patient:
        return "its PID is empty"
    if image.ndim != 2 or min(image.shape) < 16 or max(image.shape) > MOST_PIXELS:
        return f"its image has the shape {image.shape}"
    values = np.nan_to_num(image.T.astype(np.float64), posinf=0, neginf=0)  # MATLAB stores by columns
    low, high = values.min(), values.max()
    if high <= low:
        return "its image is flat"
    return patient, number, thumbnail(np.round((values - low) * (255 / (high - low))).astype(np.uint8))


def _values(record: Any, name: str, most: int) -> np.ndarray:
    """A dataset of numbers that lies in the file itself, once it is known to be small."""
    import h5py

    if not isinstance(record.get(name, getlink=True), h5py.HardLink):
        raise KeyError(f"cjdata has no {name}")
    data = record[name]
    if not isinstance(data, h5py.Dataset) or data.external or data.is_virtual:
        raise ValueError(f"{name} is no plain array")
    if data.dtype.kind not in "iuf" or data.size is None or not 0 < data.size <= most:
        raise ValueError(f"{name} holds {data.size} values of type {data.dtype}")
    return np.asarray(data[()])


def match_patients(originals: FigshareSet, thumbs: np.ndarray, threshold: float = USUAL) -> PatientMatch:
    """The original that each image shows, in any flip or quarter turn, resized, cropped or re-compressed.

    Args:
        originals: as from :func:`read_figshare`.
        thumbs: uint8 (n, side, side), as from :func:`mri_transfer.datasets.tumors.thumbnails.thumbnail`.
        threshold: correlation after alignment from which on an image is the original.
    """
    original = np.full(len(thumbs), -1)
    correlation = np.full(len(thumbs), np.nan, np.float32)
    if len(thumbs) and len(originals):
        pairs = near_duplicates(thumbs, originals.thumbs, threshold)
        # Best first: what is written last, the best, stays.
        original[pairs.first[::-1]] = pairs.second[::-1]
        correlation[pairs.first[::-1]] = pairs.correlation[::-1]
    patients = tuple(originals.patients[row] if row >= 0 else None for row in original)
    return PatientMatch(original, correlation, patients)


def join_patients(groups: np.ndarray, match: PatientMatch) -> np.ndarray:
    """Groups in which all images of a patient are together; what was together stays so.

    Args:
        groups: int (n,), of the images that were matched.

    Returns:
        int (n,).
    """
    numbers: dict[str, int] = {}
    links = [
        (int(group), numbers.setdefault(patient, len(numbers)))
        for group, patient in zip(groups, match.patients, strict=True)
        if patient is not None
    ]
    count = int(groups.max(initial=-1)) + 1
    joined = connected(
        np.array([(group, count + patient) for group, patient in links], dtype=int), count + len(numbers)
    )
    return joined[groups]


def patient_summary(
    originals: FigshareSet,
    match: PatientMatch,
    paths: Sequence[str],
    labels: np.ndarray,
    groups: np.ndarray,
    classes: Sequence[str],
) -> dict:
    """What the match says, JSON-able.

    Args:
        originals, match: as above.
        paths: of the images.
        labels, groups: int (n,).
        classes: names of the labels.

    Returns:
        "originals", "skipped", "images", "matched", "matched_by_class", "patients" (that were matched),
        "patients_in_several_groups" and "groups_of_several_patients" (how good groups without ids are),
        "label_conflicts" (images whose original has another tumour) and "sentences".
    """
    rows = np.flatnonzero(match.original >= 0)
    of_group: dict[int, set[str]] = {}
    of_patient: dict[str, set[int]] = {}
    conflicts = []
    for row in rows:
        patient, group = str(match.patients[row]), int(groups[row])
        of_group.setdefault(group, set()).add(patient)
        of_patient.setdefault(patient, set()).add(group)
        tumour = LABELS[int(originals.labels[match.original[row]])]
        name = classes[labels[row]]
        if tumour not in name.lower():
            original = originals.files[match.original[row]]
            conflicts.append({"file": paths[int(row)], "class": name, "original": original, "tumour": tumour})
    split = sum(len(found) > 1 for found in of_patient.values())
    mixed = sum(len(found) > 1 for found in of_group.values())
    sentences = [
        f"{len(rows)} of {len(paths)} images are slices of {len(of_patient)} patients whose ids are known."
    ]
    if split:
        sentences.append(
            f"{split} of these patients had been in more than one group; their groups were joined."
        )
    if conflicts:
        sentences.append(f"{len(conflicts)} images lie in another class than their original says.")
    return {
        "originals": len(originals),
        "skipped": originals.skipped,
        "images": len(paths),
        "matched": len(rows),
        "matched_by_class": {name: int((labels[rows] == label).sum()) for label, name in enumerate(classes)},
        "patients": len(of_patient),
        "patients_in_several_groups": split,
        "groups_of_several_patients": mixed,
        "label_conflicts": conflicts,
        "sentences": sentences,
    }
