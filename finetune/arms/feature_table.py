"""Features made elsewhere, with any framework: a table with one row per file of the labelled images.

    FILE.npz   "files": text (n,), and "features": numbers (n, d); np.savez(FILE, files=names, features=array)
    FILE.csv   the file first, then its features; with or without a header line

A file is identified by its path relative to the image folder, with any prefix; by its name alone, if unique; or by its
bytes' SHA-256. Any row will do for copies of one picture.
"""

from __future__ import annotations

import csv
import dataclasses
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer import progress
from mri_transfer.errors import UserError
from mri_transfer.storage.arrays import load_npz
from mri_transfer.storage.files import sha256

KIND = "features"
PREFIX = f"{KIND}:"
ENDINGS = (".npz", ".csv")
MOST_COMPRESSED = 100  # times: real tables stay below 30, zip bombs reach 1,000
FILES = ("files", "file", "paths", "path", "names", "sha256")  # possible names of the files' array
HOW = "a table is FILE.npz with files (n,) and features (n, d), or FILE.csv with a file and its features in each line"

Names = Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class FeatureTable:
    """A table, read when first needed.

    Attributes:
        path: the file's.
        option: its prefix on the command line, for messages.
    """

    path: Path
    option: str = dataclasses.field(default="", compare=False)

    def check(self, sets: Sequence[Names]) -> None:
        """Ensure that every image of every set has its own row, and report the number of unused rows.

        Args:
            sets: for each set, every image's names (see `TumorSet.names`).

        Raises:
            UserError: the file can't be read, an image has no row, or a row is not finite or duplicated.
        """
        used_rows: set[int] = set()
        for names in sets:
            rows = self._rows(names)
            used_rows |= set(rows[0])
            used_rows |= rows[1]
        if extra := sorted(set(range(len(self._read[0]))) - used_rows):
            progress.say(
                f"{self.path}: {len(extra)} of {len(self._read[0])} rows are of no image here and not used, the first "
                f"{self._read[0][extra[0]]}"
            )

    def identity(self) -> tuple[str, dict[str, Any]]:
        """Its identity and description."""
        rows, features = self._read[1].shape
        facts = {"init": KIND, "source": self.path.name, "rows": rows, "features": features}
        return sha256(self.path), facts

    def features(self, images: np.ndarray, names: Names) -> np.ndarray:
        """Features float32 (n, d) of n images with these names."""
        return self._read[1][self._rows(names)[0]]

    def _fault(self, text: str) -> UserError:
        return UserError(f"{self.option}{self.path}: {text}")

    @cached_property
    def _read(self) -> tuple[list[str], np.ndarray]:
        """Files (n,) and their features float32 (n, d)."""
        if not self.path.is_file():
            raise self._fault("no such file")
        if self.path.suffix.lower() not in ENDINGS:
            raise self._fault(HOW)
        files, features = self._of_csv() if self.path.suffix.lower() == ".csv" else self._of_npz()
        if not len(files) or features.shape != (len(files), features.size // len(files)) or not features.size:
            raise self._fault(f"has {len(files)} files and features {features.shape}; {HOW}")
        twice = [name for name, count in Counter(files).items() if count > 1]
        if twice:
            raise self._fault(
                f"{len(twice)} files have more than one row, the first {twice[0]}; keep one of each"
            )
        with np.errstate(over="ignore"):
            features = features.astype(np.float32)
        if len(wrong := np.flatnonzero(~np.isfinite(features).all(axis=1))):
            raise self._fault(
                f"{len(wrong)} rows hold numbers that are not finite, the first that of {files[wrong[0]]}; make them "
                "again"
            )
        return files, features

    def _of_npz(self) -> tuple[list[str], np.ndarray]:
        try:
            arrays = load_npz(self.path, MOST_COMPRESSED)
            name = next((name for name in FILES if name in arrays), None)
            if name is None or "features" not in arrays:
                raise ValueError(f"it holds {', '.join(arrays) or 'nothing'}")
            files, features = arrays[name], arrays["features"]
        except ValueError as error:
            text = str(error)[:100]
            if "pickle" in text:
                text = "objects are never read; write np.array(files, dtype=str) and an array of numbers"
            raise self._fault(f"{text}; {HOW}") from None
        if files.ndim != 1 or files.dtype.kind not in "US" or features.dtype.kind not in "fiu":
            raise self._fault(f"files are {files.dtype} {files.shape}, features {features.dtype}; {HOW}")
        try:
            texts = [name.decode() if isinstance(name, bytes) else str(name) for name in files.tolist()]
        except UnicodeDecodeError as error:
            raise self._fault(f"the array files holds bytes that are not text ({error}); {HOW}") from None
        return [_plain(text) for text in texts], features

    def _of_csv(self) -> tuple[list[str], np.ndarray]:
        files: list[str] = []
        rows: list[list[float]] = []
        try:
            with self.path.open(newline="", encoding="utf-8-sig") as file:
                first = file.readline()
                file.seek(0)
                between = "," if "," in first else next((mark for mark in ";\t" if mark in first), ",")
                for number, row in enumerate(csv.reader(file, delimiter=between), 1):
                    if not row:
                        continue
                    try:
                        values = [float(value) for value in row[1:]]
                    except ValueError:
                        if number == 1:  # headings
                            continue
                        raise self._fault(f"line {number}: not a file and numbers; {HOW}") from None
                    if rows and len(values) != len(rows[0]):
                        raise self._fault(
                            f"line {number}: {len(values)} numbers, {len(rows[0])} in those before"
                        )
                    files.append(_plain(row[0]))
                    rows.append(values)
        except (UnicodeDecodeError, csv.Error) as error:
            raise self._fault(f"can't be read as CSV ({error}); {HOW}") from None
        return files, np.array(rows, np.float64).reshape(len(files), -1) if rows else np.zeros((0, 0))

    def _rows(self, names: Names) -> tuple[list[int], set[int]]:
        """The row of each image, and all rows used by any image.

        Raises:
            UserError: an image's row is missing or ambiguous.
        """
        files = self._read[0]
        ends: dict[str, list[int]] = {}  # "b/c.png" and "c.png" for "a/b/c.png"
        for row, file in enumerate(files):
            parts = file.split("/")
            for place in range(len(parts)):
                ends.setdefault("/".join(parts[place:]), []).append(row)
        alone = Counter(last for keys in names for last in {_last(name) for name in keys})
        rows: list[int] = []
        all_rows: set[int] = set()
        missing: list[str] = []
        for keys in names:
            matches = [self._matches(name, ends, alone) for name in keys]
            all_rows |= {row for rows in matches for row in rows}
            if match := next((rows for rows in matches if len(rows) == 1), None):
                rows += match
            elif several := next((rows for rows in matches if rows), None):
                raise self._fault(
                    f"{len(several)} rows are of {keys[0]}, the first two {files[several[0]]} and {files[several[1]]}; "
                    "keep one of them"
                )
            else:
                missing.append(keys[0])
        if missing:
            hint = f"; its rows are named like {files[0]}" if len(missing) == len(names) else ""
            raise self._fault(
                f"{len(missing)} of {len(names)} images have no row, the first {missing[0]}{hint}; make features of "
                "every file below the folder of the images"
            )
        return rows, all_rows

    def _matches(self, name: str, ends: dict[str, list[int]], alone: Counter[str]) -> list[int]:
        """The rows of a name: those ending in it, or else those equal to its last part, if unique among images."""
        if name in ends or alone[_last(name)] > 1:
            return ends.get(name, [])
        return [row for row in ends.get(_last(name), []) if self._read[0][row] == _last(name)]


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _plain(name: str) -> str:
    """A path with forward slashes, whatever its origin."""
    return name.strip().replace("\\", "/").removeprefix("./")
