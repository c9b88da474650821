"""A table is read as any spreadsheet saves it."""

from __future__ import annotations

import csv

import pytest

from mri_transfer.errors import UserError
from mri_transfer.storage.tables import Table, read_table

COLUMNS = ("file", "subject")
ROWS = [
    {"file": "a b.nii", "subject": "Zoë"},
    {"file": "c,d;e.nii", "subject": "=1+1"},
    {"file": "'@f.nii", "subject": ""},
]


def read(path, **options):
    return [row for _, row in read_table(path, COLUMNS, **options)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("named", [False, True])
def test_every_spreadsheets_table_is_read(tmp_path, encoding, delimiter, end, named):
    path = tmp_path / "table"
    with path.open("w", encoding=encoding, newline="") as file:
        file.write(f"sep={delimiter}{end}" if named else "")
        write = csv.writer(file, delimiter=delimiter, lineterminator=end).writerow
        write([" File ", "SUBJECT", "age, sex, site, scanner", "mark (a;b;c;d)"])
        for row in ROWS:
            write([f" {row['file']}", f"{row['subject']} ", "", "x"])
    rows = read_table(path, COLUMNS)
    assert [{name: row[name] for name in COLUMNS} for _, row in rows[:2]] == ROWS[:2]
    assert rows[2][1]["file"] == "@f.nii"  # as a spreadsheet marks text
    assert [number for number, _ in rows] == [2 + named, 3 + named, 4 + named]


def test_what_is_written_is_read_back(tmp_path):
    with (tmp_path / "table.csv").open("w", encoding="utf-8", newline="") as file:
        table = Table(file, COLUMNS)
        for row in ROWS:
            table.write_named(row)
    assert read(tmp_path / "table.csv") == ROWS


def test_short_and_long_rows_blank_lines_and_cells_of_two_lines(tmp_path):
    content = '\n\n"file", "subject"\na\n\nb,c,d\n"e\nf",g\n"h" ,i\n'
    (tmp_path / "table.csv").write_text(content, encoding="utf-8")
    assert read_table(tmp_path / "table.csv", COLUMNS) == [
        (4, {"file": "a", "subject": ""}),
        (6, {"file": "b", "subject": "c"}),
        (8, {"file": "e\nf", "subject": "g"}),
        (9, {"file": "h", "subject": "i"}),
    ]


def test_bytes_that_are_not_utf8(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(b"file,group\nM\xfcller.png,1\n")
    with pytest.raises(UserError, match=r"table\.csv: not readable as a table .* save it as CSV in UTF-8"):
        read(path)
    (row,) = read(path, errors="surrogateescape")
    assert row["file"].encode("utf-8", "surrogateescape") == b"M\xfcller.png"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('file,subject\na,b\nc,"d\ne,f\n', "a quotation mark is not closed"),
        ("file,Subject,subject\na,b,\n", "has two columns named subject; keep one"),
    ],
)
def test_what_would_lose_a_row_is_refused(tmp_path, content, words):
    (tmp_path / "table.csv").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=rf"table\.csv: {words}"):
        read(tmp_path / "table.csv")


@pytest.mark.parametrize("content", ["", "\n\n", "file,subject", "sep=;", "\ufeff"])
def test_without_rows_there_are_none(tmp_path, content):
    (tmp_path / "table.csv").write_text(content, encoding="utf-8")
    assert read(tmp_path / "table.csv") == []


def test_no_table(tmp_path):
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "file").touch()
    for name in ("none.csv", "file/none.csv", "a\0b"):
        with pytest.raises(UserError, match=r": no such file; make one$"):
            read(tmp_path / name, missing="; make one")
    for name, why in ((".", "Is a directory"), ("circle", "Too many levels of symbolic links")):
        with pytest.raises(UserError, match=rf": can't be read \({why}\)$"):
            read(tmp_path / name)
