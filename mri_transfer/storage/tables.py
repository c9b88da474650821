"""CSV whose cells no spreadsheet takes for formulas, which can run programs or leak a table (CWE-1236).

Text that begins with one of = + - @, a tab or a carriage return, and is not a number, is prefixed with an apostrophe,
as spreadsheets themselves mark text. So is text with apostrophes before that, so :func:`restored` recovers any text;
other programs' tables hardly ever have such cells.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from typing import IO, Any

_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def defused(cell: Any) -> Any:
    """The text to write for a cell."""
    if not isinstance(cell, str) or not _FORMULA.match(cell):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def restored(cell: str) -> str:
    """The text of a cell written by :func:`defused`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


class Table:
    """A CSV file.

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
        """Add a row of cells by column; missing ones are empty, unknown ones ignored."""
        self.write(row.get(column, "") for column in self.columns)
