"""CSV whose cells no spreadsheet takes for formulas, which may run programs or send a table away (CWE-1236).

A text that begins with one of = + - @, a tab or a carriage return, and is no number, gets an apostrophe before it, as
spreadsheets themselves mark text. So does one that has apostrophes before that, and so :func:`restored` finds any text
again; tables of other programs hardly have such cells.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from typing import IO, Any

_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def defused(cell: Any) -> Any:
    """What to write for a cell."""
    if not isinstance(cell, str) or not _FORMULA.match(cell):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def restored(cell: str) -> str:
    """The text of a cell that was written as :func:`defused` says."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


class Table:
    """A file of rows.

    Args:
        file: open for writing text, with newline="".
        columns: the first row.
    """

    def __init__(self, file: IO[str], columns: Iterable[str]):
        self.columns = list(columns)
        self._rows = csv.writer(file, lineterminator="\n")
        self.write(self.columns)

    def write(self, row: Iterable[Any]) -> None:
        """Add a row."""
        self._rows.writerow([defused(cell) for cell in row])

    def write_named(self, row: dict[str, Any]) -> None:
        """Add a row of cells by column; one that it lacks is empty, others are left out."""
        self.write(row.get(column, "") for column in self.columns)
