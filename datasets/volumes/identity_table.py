"""A user's table that gives the subjects and contents of image files where names don't."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from mri_transfer.datasets.volumes.naming import SEQUENCES
from mri_transfer.errors import UserError
from mri_transfer.storage.tables import by_file, read_table

if TYPE_CHECKING:
    from mri_transfer.datasets.volumes.find import Source

Value = TypeVar("Value")

BY_TABLE = "by --table"
_COLUMNS = ("subject", "session", "sequence", "plane")
_PLANES = ("axial", "coronal", "sagittal", "unknown")


def override(sources: list[Source], table: Path) -> list[Source]:
    """Identities from a table; where a cell or column is missing, the name decides.

    A row names a file by its path from the table's folder, or by its bare name if unique; a DICOM series by its folder,
    any of its files, or its name in the summary.

    Raises:
        UserError: the table can't be read, or none of its rows names a source.
    """
    rows = _read(table)
    folder = table.resolve().parent
    by_path = {_resolved(folder / row["file"]): row for row in rows}
    in_full = {row["file"]: row for row in rows}
    row_of_source: list[dict[str, str] | None] = []
    for source in sources:
        places = [*source.files, source.path.parent] if source.is_series else source.files
        row = next((by_path[place] for place in places if place in by_path), None)
        row_of_source.append(row or in_full.get(source.name))
    # Rows whose path doesn't exist here: match by the bare name, if one row and one file have it.
    placed = {id(row) for row in row_of_source if row}
    rest = _unique((_base(row["file"]), row) for row in rows if id(row) not in placed)
    by_name = _unique((source.path.name, at) for at, source in enumerate(sources) if not source.is_series)
    for name, at in by_name.items():
        row_of_source[at] = row_of_source[at] or rest.get(name)
    if not any(row_of_source):
        raise UserError(
            f"{table}: none of its {len(rows)} rows names a file that was found; check the column 'file'"
        )
    return [
        source if row is None else _with_row(source, row)
        for source, row in zip(sources, row_of_source, strict=True)
    ]


def _with_row(source: Source, row: dict[str, str]) -> Source:
    values = {key: row[key] for key in _COLUMNS[:3] if row.get(key)}
    if "subject" in values:
        values["how"] = BY_TABLE
    plane = row.get("plane") if source.plane else ""
    return dataclasses.replace(
        source,
        identity=dataclasses.replace(source.identity, **values),
        plane=plane or source.plane,
        stated=tuple(key for key in _COLUMNS[:3] if key in values),
    )


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # links in a circle: no file that was found
        return path


def _base(file: str) -> str:
    return PurePosixPath(file.replace("\\", "/")).name


def _unique(pairs: Iterable[tuple[str, Value]]) -> dict[str, Value]:
    """Pairs whose first element is unique."""
    pairs = list(pairs)
    counts = Counter(name for name, _ in pairs)
    return {name: value for name, value in pairs if counts[name] == 1}


def _read(table: Path) -> list[dict[str, str]]:
    rows = [line for line in read_table(table, ("file", *_COLUMNS)) if line[1].get("file")]
    if not rows or not set(_COLUMNS) & set(rows[0][1]):
        raise UserError(
            f"{table}: needs a heading with file and any of {', '.join(_COLUMNS)}, and rows below it"
        )
    for column, values in (("sequence", SEQUENCES), ("plane", _PLANES)):
        names = {value.lower(): value for value in values}
        for number, row in rows:
            if (cell := row.get(column, "")) and cell.lower() not in names:
                raise UserError(
                    f"{table}: line {number}: {column} {cell!r} is not one of {', '.join(values)}"
                )
            if cell:
                row[column] = names[cell.lower()]
    cells = (
        (number, row["file"], {column: row.get(column, "") for column in _COLUMNS}) for number, row in rows
    )
    return [{"file": file} | of_file for file, of_file in by_file(table, cells).items()]
