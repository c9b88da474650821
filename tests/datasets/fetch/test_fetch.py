"""The command `fetch`, through the command line and a real server."""

from __future__ import annotations

import csv
import hashlib
import json

import pytest

from mri_transfer.datasets.volumes.find import find_volumes


@pytest.fixture
def get(cli, site, small, published, tmp_path):
    """Fetch the small source into `tmp_path/out`."""
    published(small.md5)

    def run(*more):
        return cli("fetch", *small.arguments, "--out", tmp_path / "out", "--mirror", site.url, *more)

    return run


def test_each_source_arrives_whole_and_is_not_fetched_twice(get, site, small, tmp_path, content_of):
    out = tmp_path / "out"
    done = get()
    assert done.returncode == 0, done.stderr
    assert content_of(out) == small.expected
    assert done.stderr.index("Licence: ") < done.stderr.index("checksums in")
    terms = next(out.glob("TERMS-*.txt")).read_text()
    assert terms.strip() in done.stderr
    assert "next: mri-transfer " in done.stderr
    summary = json.loads((out / "summary.json").read_text())
    assert summary["files"] == len(small.expected)
    assert summary["bytes"] == sum(map(len, small.expected.values()))
    assert (summary["skipped"], summary["failed"], summary["already_there"]) == ([], [], 0)
    before = len(site.requests)
    repeated = get()
    assert repeated.returncode == 0, repeated.stderr
    assert content_of(out) == small.expected
    fetched = [path for method, path, _ in site.requests[before:] if method == "GET" and path != "/"]
    assert fetched == []
    summary = json.loads((out / "summary.json").read_text())
    assert summary["files"] == len(small.expected)
    assert summary["downloaded_bytes"] == 0
    assert summary["already_there"] > 0


def test_receipts_hold_the_checksums_of_what_came(get, small, tmp_path):
    get()
    entries = [json.loads(line) for line in (tmp_path / "out" / "receipt.jsonl").read_text().splitlines()]
    served = {hashlib.sha256(body).hexdigest() for body in small.served.values()}
    assert {entry["sha256"] for entry in entries} <= served
    for entry in entries:
        for name, (size, digest) in entry.get("files", {}).items():
            assert (size, digest) == (
                len(small.expected[name]),
                hashlib.sha256(small.expected[name]).hexdigest(),
            )


def test_a_damaged_or_lost_file_is_mended(get, small, tmp_path, content_of):
    get()
    out = tmp_path / "out"
    names = [name for name in small.expected if not name.endswith(".json")]
    (out / names[0]).unlink()
    (out / names[1]).write_bytes(small.expected[names[1]][:-1])
    changed = bytearray(small.expected[names[-1]])
    changed[-1] ^= 1
    (out / names[-1]).write_bytes(changed)
    get()
    assert (out / names[0]).read_bytes() == small.expected[names[0]]
    assert (out / names[1]).read_bytes() == small.expected[names[1]]
    (out / names[1]).write_bytes(small.expected[names[1]] + b"more")
    get()
    assert (out / names[1]).read_bytes() == small.expected[names[1]]
    done = get("--verify")
    assert done.returncode == 0, done.stderr
    assert content_of(out) == small.expected


@pytest.mark.parametrize("small", ["ixi", "oasis1", "openneuro"], indirect=True)
def test_slices_finds_one_volume_a_scan(get, small, tmp_path):
    done = get()
    out = tmp_path / "out"
    table = out / "volumes.csv"
    inventory = find_volumes([out], table if table.is_file() else None)
    subjects = {source.identity.subject for source in inventory.sources}
    assert json.loads((out / "summary.json").read_text())["volumes"] == len(inventory.sources)
    assert len(inventory.sources) == {"ixi": 8, "oasis1": 4, "openneuro": 6}[small.name]
    assert len(subjects) == {"ixi": 4, "oasis1": 4, "openneuro": 3}[small.name]
    if small.name != "openneuro":
        assert f"slices {out} --table {table}" in done.stderr
        rows = list(csv.DictReader(table.open(encoding="utf-8")))
        assert len(rows) == len(inventory.sources)
        assert {row["site"] for row in rows} == ({"Guys", "HH", "IOP"} if small.name == "ixi" else {""})
        assert {source.identity.sequence for source in inventory.sources} <= {"T1", "T2"}


@pytest.mark.parametrize("small", ["ixi"], indirect=True)
def test_what_is_fetched_can_be_sliced(cli, get, small, tmp_path):
    get()
    done = cli("slices", tmp_path / "out", "--out", tmp_path / "store", "--size", 32, "--workers", 1)
    assert done.returncode == 0, done.stderr
