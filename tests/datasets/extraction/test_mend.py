"""A store whose journal lost or gained a bit: told by volume, and mended from the volume alone."""

import json
import random
import shutil

import numpy as np
import pytest

from mri_transfer.cli import main
from mri_transfer.datasets.store.journal import events
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.storage.json_lines import line_of, read_lines

OPTIONS = ("--size", "32", "--workers", "1")


def run(*arguments) -> int:
    return main(["slices", *map(str, arguments), *OPTIONS])


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.suffix in (".npy", ".csv") or path.name == "volumes.jsonl"
    }


def in_any_order(files):
    return {**files, "volumes.jsonl": sorted(files["volumes.jsonl"].splitlines())}


@pytest.fixture
def volumes(tmp_path, head, save):
    """Two scans of each of three people, the second much like the first, so that it matters which was read first."""
    folder = tmp_path / "volumes"
    for number in range(3):
        for session in range(2):
            voxels = head((24, 28, 26), seed=number)
            if session:
                wave = np.sin(np.arange(24))[:, None, None] * (np.arange(26) > 12)
                voxels = voxels * (1 + 0.6 * wave)
            save(folder / f"sub-{number}" / f"ses-{session}" / "T1.nii.gz", voxels, zooms=(4.0, 4.0, 4.0))
    (folder / "sub-1" / "broken.nii.gz").write_bytes(b"broken")
    return folder


@pytest.fixture
def store(tmp_path, volumes, no_pictures):
    assert run(volumes, "--out", tmp_path / "store") == 0
    return tmp_path / "store"


def damage(store, numbers, change):
    journal = store / "volumes.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    for number in numbers:
        lines[number] = change(lines[number])
    journal.write_bytes(b"".join(lines))


CHANGES = {
    "another position": lambda line: line.replace(b'"position": [0.', b'"position": [1.'),
    "no newline": lambda line: line[:-1] + b"\x8a",
    "split": lambda line: line[:40] + b"\n" + line[41:],
    "zeros": lambda line: bytes(len(line) - 1) + b"\n",
    "no json": lambda line: b"{" + line,
    "without checksum": lambda line: b"{" + line.rpartition(b', "crc32"')[0] + b"}\n",
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("number", ["first", "middle", "last", "two"])
def test_a_damaged_line_of_a_volume_is_read_anew_and_no_other(
    tmp_path, volumes, store, capsys, monkeypatch, change, number
):
    whole = content(store)
    lines = (store / "volumes.jsonl").read_bytes().splitlines()
    kinds = [json.loads(line)["kind"] for line in lines]
    of_volumes = [place for place, kind in enumerate(kinds) if kind == "volume"]
    chosen = {
        "first": of_volumes[:1],
        "middle": of_volumes[2:3],
        "last": of_volumes[-1:],
        "two": of_volumes[1:3],
    }
    damage(store, chosen[number], CHANGES[change])
    capsys.readouterr()
    assert run(volumes, "--out", store) == 0
    output = capsys.readouterr().err
    assert "volumes.jsonl: line" in output or (change, number) == ("no newline", "last")
    # What was skipped between two lost volumes may now stand before them.
    assert in_any_order(content(store)) == in_any_order(whole)
    SliceStore.open(store).verify()
    assert run(volumes, "--out", store) == 0
    assert " damaged" not in capsys.readouterr().err
    if change == "another position" and number == "middle":
        source = json.loads(lines[of_volumes[2]])["source"]
        assert f"of {source}, was damaged; {source} was read again" in output


def test_without_the_volume_the_store_is_left_as_it_is(tmp_path, volumes, store, capsys):
    lines = (store / "volumes.jsonl").read_bytes().splitlines()
    number = next(number for number, line in enumerate(lines) if b"sub-1/ses-0" in line)
    damage(store, [number], CHANGES["no json"])
    before = content(store)
    (volumes / "sub-1" / "ses-0" / "T1.nii.gz").rename(tmp_path / "away.nii.gz")
    assert run(volumes, "--out", store) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"volumes.jsonl: line {number + 1}, of volumes/sub-1/ses-0/T1.nii.gz," in line
    assert "name the PATH of that volume, too" in line
    assert content(store) == before


def test_a_missing_line_is_noticed(volumes, store, capsys):
    lines = (store / "volumes.jsonl").read_bytes().splitlines(keepends=True)
    (store / "volumes.jsonl").write_bytes(b"".join([*lines[:2], *lines[3:]]))
    assert run(volumes, "--out", store) == 2
    assert "a line is missing in the journal" in capsys.readouterr().err


def test_no_flipped_bit_of_a_journal_gives_another_table(tmp_path, volumes, store, capsys):
    """The whole lines that are left are those that were written."""
    content = (store / "volumes.jsonl").read_bytes()
    path = tmp_path / "flipped.jsonl"
    values = [line.value for line in read_lines((store / "volumes.jsonl").open("rb"))]
    rng = random.Random(0)
    for _ in range(100):
        place = rng.randrange(len(content))
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        with path.open("rb") as file:
            lines = list(read_lines(file))
        assert all(line.value is None or line.value in values for line in lines)
        assert len([line for line in lines if line.value is not None]) in (len(values) - 1, len(values) - 2)


def test_a_store_of_the_version_before_is_continued(tmp_path, volumes, store, head, save):
    """Its lines have no checksum and don't say where their slices begin."""
    journal = store / "volumes.jsonl"
    with journal.open("rb") as file:
        old = [
            {key: value for key, value in line.value.items() if key != "first"} for line in read_lines(file)
        ]
    journal.write_text("".join(json.dumps(event) + "\n" for event in old))
    before = content(store)
    assert run(volumes, "--out", store) == 0
    assert content(store) == before
    save(volumes / "sub-7" / "ses-0" / "T1.nii.gz", head((24, 28, 26), seed=7), zooms=(4.0, 4.0, 4.0))
    assert run(volumes, "--out", store) == 0
    assert journal.read_bytes().startswith(before["volumes.jsonl"])
    assert journal.read_bytes().count(b"crc32") == 1
    lines = journal.read_bytes().splitlines(keepends=True)
    whole = content(store)
    damage(store, [2], CHANGES["no json"])
    assert run(volumes, "--out", store) == 0
    mended = content(store)
    assert mended.pop("volumes.jsonl") != whole.pop("volumes.jsonl")
    assert mended == whole
    assert len(journal.read_bytes().splitlines()) == len(lines)
    with journal.open("rb") as file:
        assert [event["kind"] for _, event in events(read_lines(file), journal)].count("volume") == 7
    assert line_of({"a": 1}).endswith(b'"}\n')
    shutil.rmtree(store)
