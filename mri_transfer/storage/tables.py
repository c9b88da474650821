"""CSV whose cells no spreadsheet takes for formulas, which can run programs or leak a table (CWE-1236).

Text that begins with one of = + - @, a tab or a carriage return, and is not a number, is prefixed with an apostrophe,
as spreadsheets themselves mark text. So is text with apostrophes before that, so :func:`restored` recovers any text;
other programs' tables hardly ever have such cells.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from mri_transfer.errors import UserError
from mri_transfer.storage.files import read_whole

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


def read_table(path: Path, *, errors: str = "strict", missing: str = "") -> list[dict[str, str]]:
    """The rows of a table that a program or a spreadsheet saved, by their headings in lower case.

    Spreadsheets save UTF-8 or UTF-16, with semicolons where the comma is the decimal sign. Cells come without blanks
    around them and as they were before :func:`defused`; what a short row lacks is "".

    Args:
        path: the file.
        errors: as of :meth:`bytes.decode`; "surrogateescape" keeps bytes that are not UTF-8, as in file names.
        missing: what to add to the error if there is no such file.

    Raises:
        UserError: it can't be read as a table.
    """
    try:
        content = read_whole(path)
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16") if wide else content.decode("utf-8-sig", errors=errors)
        if "\0" in text:
            raise csv.Error("it holds bytes that are not text")
        heading = text.partition("\n")[0]
        reader = csv.DictReader(
            io.StringIO(text, newline=""), delimiter=max(",;\t", key=heading.count), restval=""
        )
        if reader.fieldnames is not None:
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames]
        return [{name: restored(row[name].strip()) for name in reader.fieldnames or ()} for row in reader]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file{missing}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not readable as a table ({error}); save it as CSV in UTF-8") from None


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
