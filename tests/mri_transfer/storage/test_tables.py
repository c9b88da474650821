"""A table is read as any spreadsheet saves it."""

from __future__ import annotations

import csv

import pytest

from mri_transfer.errors import UserError
from mri_transfer.storage.tables import Table, read_table

ROWS = [
    {"file": "a b.nii", "subject": "Zoë"},
    {"file": "c,d;e.nii", "subject": "=1+1"},
    {"file": "'@f.nii", "subject": ""},
]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_spreadsheets_table_is_read(tmp_path, encoding, delimiter, end):
    path = tmp_path / "table"
    with path.open("w", encoding=encoding, newline="") as file:
        write = csv.writer(file, delimiter=delimiter, lineterminator=end).writerow
        write([" File ", "SUBJECT"])
        for row in ROWS:
            write([f" {row['file']}", f"{row['subject']} "])
    rows = read_table(path)
    assert rows[:2] == ROWS[:2]
    assert rows[2]["file"] == "@f.nii"  # as a spreadsheet marks text


def test_what_is_written_is_read_back(tmp_path):
    with (tmp_path / "table.csv").open("w", encoding="utf-8", newline="") as file:
        table = Table(file, ["file", "subject"])
        for row in ROWS:
            table.write_named(row)
    assert read_table(tmp_path / "table.csv") == ROWS


def test_short_and_long_rows(tmp_path):
    (tmp_path / "table.csv").write_text("file,subject\na\n\nb,c,d\n", encoding="utf-8")
    assert read_table(tmp_path / "table.csv") == [{"file": "a", "subject": ""}, {"file": "b", "subject": "c"}]


def test_bytes_that_are_not_utf8(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(b"file,group\nM\xfcller.png,1\n")
    with pytest.raises(UserError, match=r"table\.csv: not readable as a table .* save it as CSV in UTF-8"):
        read_table(path)
    (row,) = read_table(path, errors="surrogateescape")
    assert row["file"].encode("utf-8", "surrogateescape") == b"M\xfcller.png"


def test_no_table(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv: no such file; make one$"):
        read_table(tmp_path / "none.csv", missing="; make one")
    with pytest.raises(UserError, match="not readable as a table"):
        read_table(tmp_path)
