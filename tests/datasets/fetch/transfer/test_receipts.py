"""The receipt survives being cut off at any byte; one process at a time holds it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mri_transfer.datasets.fetch.transfer.receipts import RECEIPT, Receipts
from mri_transfer.errors import UserError

ENTRIES = [{"file": "a", "bytes": 1}, {"file": "Größe\udce9", "bytes": 2}, {"file": "a", "bytes": 3}]


def test_the_last_line_of_a_file_counts(tmp_path):
    with Receipts(tmp_path) as receipts:
        for entry in ENTRIES:
            receipts.add(entry)
        assert receipts.get("a") == ENTRIES[2]
    with Receipts(tmp_path) as receipts:
        assert receipts.get("a") == ENTRIES[2]
        assert receipts.get("Größe\udce9") == ENTRIES[1]
        assert receipts.get("b") is None
        assert len(list(receipts)) == 2


@settings(max_examples=20)
@given(cut=st.integers(0, 200))
def test_cut_off_anywhere_every_whole_line_counts_and_more_can_be_added(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("receipt")
    with Receipts(folder) as receipts:
        for entry in ENTRIES:
            receipts.add(entry)
    path = folder / RECEIPT
    content = path.read_bytes()[:cut]
    path.write_bytes(content)
    whole = [json.loads(line) for line in content.splitlines(keepends=True) if line.endswith(b"\n")]
    for entry in whole:
        del entry["crc32"]
    with Receipts(folder) as receipts:
        assert list(receipts) == list({entry["file"]: entry for entry in whole}.values())
        receipts.add({"file": "new"})
    with Receipts(folder) as receipts:
        assert receipts.get("new") == {"file": "new"}


@pytest.mark.parametrize(
    "line",
    [
        *("{torn}\n", "3\n", "{}\n", "\xff\n", '{"file": "a", "etag": ["x"]}\n'),
        *('{"file": "a", "files": ["b"]}\n', '{"file": "a", "files": {"b": [3]}}\n'),
        '{"file": "a", "files": {"b": [3, "0f"]}, "skipped": ["c"]}\n',
    ],
)
def test_a_damaged_receipt_says_so(tmp_path, line):
    (tmp_path / RECEIPT).write_text(line, encoding="latin-1")
    with pytest.raises(UserError, match=r"receipt\.jsonl: damaged"):
        Receipts(tmp_path)


@pytest.mark.parametrize("flipped", [b'"bytes": 3', b"crc32", b'"a"'])
def test_a_flipped_bit_of_a_receipt_is_noticed(tmp_path, flipped):
    with Receipts(tmp_path) as receipts:
        for entry in ENTRIES:
            receipts.add(entry)
    path = tmp_path / RECEIPT
    content = bytearray(path.read_bytes())
    content[content.rindex(flipped) + len(flipped) - 1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"receipt\.jsonl: damaged \(line 3\); remove it"):
        Receipts(tmp_path)


def test_what_a_killed_write_left_is_removed_and_nothing_else(tmp_path):
    left = [tmp_path / "folder.json.1a2b3c4d.part", tmp_path / "a" / "b.nii.gz.part.json.00000000.part"]
    left += [tmp_path / "a" / "c.nii.gz.part.json"]  # killed after its file had its name
    kept = [tmp_path / "a" / "c.nii.gz", tmp_path / "a" / "d.nii.gz.part.json"]
    kept += [tmp_path / "a" / "b.nii.gz.part", tmp_path / "a" / "b.nii.gz.part.json", tmp_path / "x.part"]
    (tmp_path / "a").mkdir()
    for path in (*left, *kept):
        path.write_text("{}")
    with Receipts(tmp_path):
        pass
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in kept)


def test_two_at_once(tmp_path):
    with Receipts(tmp_path), pytest.raises(UserError, match="another process"):
        Receipts(tmp_path)
    Receipts(tmp_path).__exit__(None, None, None)
