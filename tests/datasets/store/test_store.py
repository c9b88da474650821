"""A store reads back what was written, and says which file is wrong when one is."""

from __future__ import annotations

import contextlib
import csv
import functools
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mri_transfer.datasets.store import store as store_module
from mri_transfer.datasets.store.store import SliceStore, fingerprint_of, shard_header
from mri_transfer.datasets.store.writer import StoreWriter
from mri_transfer.errors import UserError
from mri_transfer.storage.files import claim_folder, read_object, write_card

SETTINGS = {"size": 16, "spacing": 4.0, "planes": ["axial", "coronal", "sagittal"], "min_foreground": 0.1}


def entry(number: int, slices: int) -> dict:
    return {
        "subject": f"s{number // 2}",
        "session": "",
        "sequence": ("T1", "T2")[number % 2],
        "source": f"d/{number}, with a comma.nii",
        "path": f"/d/{number}.nii",
        "bytes": 1,
        "mtime_ns": 1,
        "sha256": f"{number:064x}",
        "content": str(number),
        "planes": ["axial"] * (slices - 1) + ["sagittal"],
        "position_mm": [round(-3.5 + 4 * index, 3) for index in range(slices)],
        "position": [round(index / slices, 5) for index in range(slices)],
    }


def pixels(number: int, slices: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (slices, 16, 16), dtype=np.uint8)


def write(folder, volumes=range(5), slices=7):
    with StoreWriter(folder, SETTINGS) as writer:
        for number in volumes:
            writer.add(entry(number, slices), pixels(number, slices))
        writer.skip({"source": "d/bad.nii", "reason": "truncated"})
        writer.finish()


@pytest.fixture(params=[5000, 2600])  # shards of 19 and of 10 slices, while volumes have 7
def small_shards(request, monkeypatch):
    monkeypatch.setattr(store_module, "_SHARD_BYTES", request.param)


def test_round_trip(tmp_path, small_shards):
    write(tmp_path / "store")
    store = SliceStore.open(tmp_path / "store")
    assert len(store) == 35
    assert store.size == 16
    expected = np.concatenate([pixels(number, 7) for number in range(5)])
    np.testing.assert_array_equal(store.images(np.arange(35)), expected)
    order = np.random.default_rng(0).integers(0, 35, 100)
    np.testing.assert_array_equal(store.images(order), expected[order])
    np.testing.assert_array_equal(store.images(slice(3, 30, 4)), expected[3:30:4])
    assert store.images([]).shape == (0, 16, 16)
    assert list(store.table["subject"][::7]) == ["s0", "s0", "s1", "s1", "s2"]
    assert list(store.table["sequence"][::7]) == ["T1", "T2", "T1", "T2", "T1"]
    assert store.table["plane"][6] == "sagittal"
    assert store.table["source"][8] == "d/1, with a comma.nii"
    assert store.table["source_sha256"][8] == f"{1:064x}"
    assert store.table["position_mm"][7:10].tolist() == [-3.5, 0.5, 4.5]
    np.testing.assert_array_equal(store.table["volume"], np.repeat(np.arange(5), 7))
    assert store.volumes[3]["subject"] == "s1"
    assert store.manifest["skipped"] == [{"file": "d/bad.nii", "reason": "truncated"}]
    assert store.manifest["counts"]["subjects"] == 3
    store.verify()
    for index in (-1, 35):
        with pytest.raises(IndexError):
            store.images([index])


def test_shards_are_ordinary_npy_files(tmp_path, small_shards):
    write(tmp_path / "store")
    shards = [np.load(path, allow_pickle=False) for path in sorted((tmp_path / "store" / "shards").iterdir())]
    np.testing.assert_array_equal(
        np.concatenate(shards), np.concatenate([pixels(number, 7) for number in range(5)])
    )


@pytest.mark.parametrize("rows", [0, 1, 10**9])
def test_the_header_has_one_length(rows):
    assert len(shard_header(rows, 1024)) == 128


def test_the_fingerprint_is_of_the_content_and_not_of_the_place(tmp_path, small_shards):
    write(tmp_path / "a")
    write(tmp_path / "b")
    write(tmp_path / "c", volumes=[0, 1, 2, 4, 3])
    first, second, third = (SliceStore.open(tmp_path / name).fingerprint for name in "abc")
    assert first == second != third


def test_the_table_is_readable(tmp_path):
    write(tmp_path / "store")
    with (tmp_path / "store" / "slices.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 35
    assert rows[8]["source"] == "d/1, with a comma.nii"
    assert float(rows[8]["position_mm"]) == 0.5


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)


def lie(path):
    content = json.loads(path.read_text())
    content["settings"]["size"] = 32
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("file", "damage", "reason"),
    [
        ("shards/00000.npy", cut_short, "bytes instead of"),
        ("shards/00000.npy", lambda path: path.unlink(), "missing"),
        (
            "shards/00000.npy",
            lambda path: path.write_bytes(b"\0" * path.stat().st_size),
            "header does not say",
        ),
        ("slices.csv", flip, "was changed"),
        ("slices.csv", lambda path: path.unlink(), "missing"),
        ("manifest.json", lie, "was changed"),
        ("manifest.json", cut_short, "not readable as JSON|was changed"),
        ("manifest.json", lambda path: path.write_text("{}"), "damaged"),
        ("manifest.json", lambda path: path.write_text("[]"), "damaged"),
        ("folder.json", lambda path: path.unlink(), "not made by this program"),
    ],
)
def test_damage_is_named(tmp_path, file, damage, reason):
    write(tmp_path / "store")
    damage(tmp_path / "store" / file)
    if file == "manifest.json" and damage is cut_short:  # only the last newline is gone
        cut_short(tmp_path / "store" / file)
    with pytest.raises(UserError, match=reason) as error:
        SliceStore.open(tmp_path / "store")
    assert str(tmp_path / "store") in str(error.value)


@pytest.mark.parametrize(
    ("value", "places"),
    [
        *((value, ("settings", "size")) for value in (0, -16, 10**9)),
        *((value, ("shards", 0, "slices")) for value in (0, -1, 10**14, 2**62, 10**30)),
        *((value, ("shards", 0, "file")) for value in ("", "a\0b", "\udc80", "x" * 70_000, "../x.npy")),
        *((5, (name,)) for name in ("counts", "versions", "asked_for")),
    ],
)
def test_a_manifest_of_no_store_is_refused_by_readers_and_writers(tmp_path, value, places):
    write(tmp_path)
    path = tmp_path / "manifest.json"
    manifest = read_object(path)
    *outer, last = places
    functools.reduce(lambda part, key: part[key], outer, manifest)[last] = value
    write_card(path, manifest | {"fingerprint": fingerprint_of(manifest)})
    for read in (SliceStore.open, lambda folder: StoreWriter(folder, SETTINGS)):
        with pytest.raises(
            UserError, match=r"manifest.json: is damaged \((settings|shards|counts|versions|asked)"
        ):
            read(tmp_path)


def test_a_flipped_pixel_is_found_by_verify(tmp_path):
    write(tmp_path / "store")
    flip(tmp_path / "store" / "shards" / "00000.npy")
    store = SliceStore.open(tmp_path / "store")
    with pytest.raises(UserError, match=r"00000.npy"):
        store.verify()


def test_what_is_no_finished_store(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        SliceStore.open(tmp_path / "none")
    claim_folder(tmp_path / "run", "pretraining run")
    with pytest.raises(UserError, match="holds a pretraining run"):
        SliceStore.open(tmp_path / "run")
    with StoreWriter(tmp_path / "store", SETTINGS) as writer:
        writer.add(entry(0, 3), pixels(0, 3))
    with pytest.raises(UserError, match="not finished"):
        SliceStore.open(tmp_path / "store")


@pytest.mark.parametrize("most_open", [1, 2, 99])
def test_few_files_are_held_open_and_threads_may_share_them(tmp_path, monkeypatch, most_open):
    monkeypatch.setattr(store_module, "_SHARD_BYTES", 1000)  # three slices
    write(tmp_path / "store", slices=20)
    store = SliceStore.open(tmp_path / "store")
    monkeypatch.setattr(store, "_most_open", most_open)
    expected = np.concatenate([pixels(number, 20) for number in range(5)])

    def read(seed: int) -> int:
        order = np.random.default_rng(seed).integers(0, 100, 300)
        np.testing.assert_array_equal(store.images(order), expected[order])
        return len(store._open)

    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(read, range(20))) <= most_open + 4
    if sys.platform == "linux":
        assert sum(str(tmp_path) in path for path in _open_files()) <= most_open + 4


def _open_files() -> list[str]:
    paths = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # that of the listing itself
            paths.append(str(entry.readlink()))
    return paths


def test_a_shard_that_is_cut_while_it_is_open_is_an_error_and_not_a_crash(tmp_path):
    write(tmp_path / "store")
    store = SliceStore.open(tmp_path / "store")
    store.images([0])
    os.truncate(tmp_path / "store" / "shards" / "00000.npy", 128 + 20 * 256)
    np.testing.assert_array_equal(store.images([19])[0], pixels(2, 7)[5])
    with pytest.raises(UserError, match="shorter than when it was opened"):
        store.images([3, 20])


def test_reading_without_the_call_that_reads_at_a_place(tmp_path, small_shards, monkeypatch):
    write(tmp_path / "store")
    monkeypatch.delattr(os, "preadv")
    store = SliceStore.open(tmp_path / "store")
    expected = np.concatenate([pixels(number, 7) for number in range(5)])
    np.testing.assert_array_equal(store.images(np.arange(35)[::-1]), expected[::-1])
