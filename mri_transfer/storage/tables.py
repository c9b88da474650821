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
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any, TypeVar

from mri_transfer.errors import UserError
from mri_transfer.storage.files import read_whole

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_END = "the end"  # appended to a table: read as a row of its own, unless the last cell is still open
Value = TypeVar("Value")


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


def read_table(
    path: Path, columns: Sequence[str], *, errors: str = "strict", missing: str = ""
) -> list[tuple[int, dict[str, str]]]:
    """The rows of a table that a program or a spreadsheet saved.

    Spreadsheets save UTF-8 or UTF-16, with semicolons where the comma is the decimal sign, and may name the delimiter
    in a first line such as `sep=;`. Cells come without blanks around them and as they were before :func:`defused`;
    what a short row lacks is "".

    Args:
        path: the file.
        columns: the caller's columns, in lower case, the required one first.
        errors: as of :meth:`bytes.decode`; "surrogateescape" keeps bytes that are not UTF-8, as in file names.
        missing: what to add to the error if there is no such file.

    Returns:
        The number of the last line of each row, and its cells by heading in lower case; none without a heading.

    Raises:
        UserError: it can't be read as a table, or one of the columns occurs twice.
    """
    try:
        content = read_whole(path)
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16") if wide else content.decode("utf-8-sig", errors=errors)
        if "\0" in text:
            raise csv.Error("it holds bytes that are not text")
        lines = io.StringIO(f"{text}\n{_END}", newline="")
        skipped = 0
        for line in lines:
            if line.strip() and not line.lower().startswith("sep="):
                break
            skipped += 1
        delimiter = _delimiter(line, columns[0])
        reader = csv.reader([line, *lines], delimiter=delimiter, skipinitialspace=True)
        rows = [(skipped + reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such file{missing}") from None
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not readable as a table ({error}); save it as CSV in UTF-8") from None
    except ValueError:  # a path that no file can have
        raise UserError(f"{path}: no such file{missing}") from None
    if rows.pop()[1] != [_END]:
        raise UserError(f"{path}: a quotation mark is not closed; close it, or save the table as CSV again")
    heading = [name.lower() for name in rows[0][1]] if rows else []
    if twice := next((name for name in columns if heading.count(name) > 1), None):
        raise UserError(f"{path}: has two columns named {twice}; keep one")
    return [
        (
            number,
            {name: restored(cell) for name, cell in zip_longest(heading, row[: len(heading)], fillvalue="")},
        )
        for number, row in rows[1:]
    ]


def by_file(path: Path, rows: Iterable[tuple[int, str, Value]]) -> dict[str, Value]:
    """What a table says of each file.

    Args:
        path: the table's, for the error.
        rows: number of the line, name of the file, and what the line says of it.

    Raises:
        UserError: two lines contradict each other.
    """
    values: dict[str, Value] = {}
    for number, file, value in rows:
        if values.setdefault(file, value) != value:
            raise UserError(
                f"{path}: line {number} contradicts an earlier line about {file}; keep one of them"
            )
    return values


def _delimiter(heading: str, column: str) -> str:
    """The one with which the column is there; else the most frequent."""
    for delimiter in ",;\t":
        cells = next(csv.reader([heading], delimiter=delimiter, skipinitialspace=True), [])
        if len(cells) > 1 and column in (cell.strip().lower() for cell in cells):
            return delimiter
    return max(",;\t", key=heading.count)


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
