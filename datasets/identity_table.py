"""A user's table that says whose images files are, and what they show, where names don't."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mri_transfer.datasets.naming import SEQUENCES
from mri_transfer.errors import UserError

if TYPE_CHECKING:
    from mri_transfer.datasets.find import Source

_TOLD = ("subject", "session", "sequence", "plane")
_PLANES = ("axial", "coronal", "sagittal", "unknown")


def override(sources: list[Source], table: Path) -> list[Source]:
    """Identities from a table; an empty cell, or a missing column, leaves what the name says.

    A row names a file by its path from the table's folder or by its bare name where that is unique; a DICOM
    series by its folder, any of its files, or its name as the summary lists it.

    Raises:
        UserError: the table can't be read, or none of its rows names a source.
    """
    rows = _read(table)
    here = table.resolve().parent
    by_path: dict[Path, dict[str, str]] = {}
    by_name: dict[str, dict[str, str] | None] = {}
    for row in rows:
        by_path[(here / row["file"]).resolve()] = row
        base = PurePosixPath(row["file"].replace("\\", "/")).name
        by_name[base] = None if base in by_name else row  # a name met twice identifies nothing
    in_full = {row["file"]: row for row in rows}
    result, matched = [], 0
    for source in sources:
        places = [*source.files, source.path.parent] if source.is_series else source.files
        told = next((by_path[place] for place in places if place in by_path), None)
        told = told or in_full.get(source.name)
        if told is None and not source.is_series:
            told = by_name.get(source.path.name)
        if told:
            matched += 1
            said = {key: told[key] for key in _TOLD[:3] if told.get(key)}
            source = dataclasses.replace(source, identity=dataclasses.replace(source.identity, **said))
            if source.plane and told.get("plane"):
                source = dataclasses.replace(source, plane=told["plane"])
        result.append(source)
    if not matched:
        raise UserError(
            f"{table}: none of its {len(rows)} rows names a file that was found; check the column 'file'"
        )
    return result


def _read(table: Path) -> list[dict[str, str]]:
    if not table.is_file():
        raise UserError(f"{table}: no such file")
    delimiter = "\t" if table.suffix.lower() in (".tsv", ".txt") else ","
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = [
                {
                    str(key).strip().lower(): (value or "").strip()
                    for key, value in row.items()
                    if isinstance(value, str)
                }
                for row in csv.DictReader(file, delimiter=delimiter)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table}: not readable as a table ({error})") from None
    if not rows or "file" not in rows[0] or not set(_TOLD) & set(rows[0]):
        raise UserError(
            f"{table}: needs a heading with file and any of {', '.join(_TOLD)}, and rows below it"
        )
    for column, values in (("sequence", SEQUENCES), ("plane", _PLANES)):
        names = {value.lower(): value for value in values}
        for number, row in enumerate(rows, start=2):
            if (told := row.get(column, "")) and told.lower() not in names:
                raise UserError(f"{table}: line {number}: {column} {told!r} is none of {', '.join(values)}")
            if told:
                row[column] = names[told.lower()]
    return [row for row in rows if row.get("file")]
