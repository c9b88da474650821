"""Read pictures, labels and patients from Figshare's originals of the tumour images, if available.

Cheng's collection (Figshare 1512427, 3,064 slices of 233 patient ids) comes as MATLAB v7.3 files, that is HDF5 after a
block of 512 bytes, one slice each: a group `cjdata` with `label` (1 meningioma, 2 glioma, 3 pituitary tumour; float64
1x1), `PID` (the patient id, a column of uint16 character codes), `image` (int16, stored by columns), `tumorBorder` and
`tumorMask`. A file `cvind.mat` beside them holds folds, not an image. The package already knows these slices
(:mod:`mri_transfer.datasets.tumors.persons.originals`); other collections in the same form are read as well.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer.datasets.tumors.persons.binding import fine, signatures
from mri_transfer.datasets.tumors.persons.originals import FIGSHARE, Originals
from mri_transfer.errors import UserError
from mri_transfer.machine.device import cores
from mri_transfer.progress import bar

LABELS = {1: "meningioma", 2: "glioma", 3: "pituitary"}
MOST_PIXELS = 4096  # of a side; the originals have 256 or 512
LONGEST_ID = 64  # characters


def read_figshare(folder: Path) -> tuple[Originals, list[dict[str, str]]]:
    """Read every `.mat` file below a folder.

    Args:
        folder: where the downloaded zip files were unpacked.

    Returns:
        The readable slices, named by their files; and {"file", "reason"} of each unreadable file.

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
    files, patients, labels, signatures = zip(*good, strict=True)
    tumours = tuple(LABELS[label] for label in labels)
    return Originals(FIGSHARE, files, np.stack(signatures), tumours, ("",) * len(files), patients), skipped


def _read(path: Path) -> tuple[str, int, np.ndarray] | str:
    """Patient, label and signature; or the reason for failure."""
    import h5py

    if not path.is_file():  # opening a pipe would block
        return "not a regular file, or a broken link"
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
        return "its PID is not text"
    patient = "".join(chr(code) for code in codes.ravel()).strip()
    if not patient:
        return "its PID is empty"
    if image.ndim != 2 or min(image.shape) < 16 or max(image.shape) > MOST_PIXELS:
        return f"its image has the shape {image.shape}"
    values = np.nan_to_num(image.T.astype(np.float64), posinf=0, neginf=0)  # MATLAB stores by columns
    low, high = values.min(), values.max()
    if high <= low:
        return "its image is flat"
    grey = np.round((values - low) * (255 / (high - low))).astype(np.uint8)
    return patient, number, signatures(fine(grey)[None])[0]


def _values(record: Any, name: str, max_size: int) -> np.ndarray:
    """A numeric dataset stored in the file itself, after checking that it is small."""
    import h5py

    if not isinstance(record.get(name, getlink=True), h5py.HardLink):
        raise KeyError(f"cjdata has no {name}")
    data = record[name]
    if not isinstance(data, h5py.Dataset) or data.external or data.is_virtual:
        raise ValueError(f"{name} is not a plain array")
    if data.dtype.kind not in "iuf" or data.size is None or not 0 < data.size <= max_size:
        raise ValueError(f"{name} holds {data.size} values of type {data.dtype}")
    if math.prod(data.chunks or ()) > MOST_PIXELS**2:  # decompressed as a whole, however little of it is used
        raise ValueError(f"{name} is stored in blocks of {math.prod(data.chunks)} values")
    return np.asarray(data[()])
