"""Interrupted anywhere, a store comes out the same; what can't be continued is refused."""

from __future__ import annotations

import errno
import os
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mri_transfer.datasets.extraction.mend import ledger_of_whole_lines, mend
from mri_transfer.datasets.store import pixels
from mri_transfer.datasets.store import store as store_module
from mri_transfer.datasets.store.store import SliceStore, fingerprint_of
from mri_transfer.datasets.store.writer import StoreWriter
from mri_transfer.errors import UserError
from mri_transfer.storage.files import claim_folder, read_object, sha256, write_card
from mri_transfer.storage.json_lines import line_of, value_of

SETTINGS = {"size": 16, "spacing": 4.0, "planes": ["axial"], "min_foreground": 0.1}
COUNTS = [3, 11, 1, 25, 7, 4]  # slices of each volume; a shard holds 10


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(store_module, "_SHARD_BYTES", 10 * 16 * 16)


def add(writer, number):
    slices = COUNTS[number]
    entry = {
        "subject": "s",
        "session": "",
        "sequence": "T1",
        "source": f"{number}.nii",
        "path": f"/{number}.nii",
    }
    entry |= {"sha256": str(number), "content": str(number), "bytes": 1, "mtime_ns": 1}
    entry |= {"planes": ["axial"] * slices, "position_mm": [0.0] * slices, "position": [0.5] * slices}
    writer.add(entry, np.random.default_rng(number).integers(0, 256, (slices, 16, 16), dtype=np.uint8))


def finish(folder):
    """What a user's second run does: continue where the journal ends."""
    with StoreWriter(folder, SETTINGS) as writer:
        for number in range(len(writer.ledger.used), len(COUNTS)):
            add(writer, number)
        writer.finish()


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.suffix in (".npy", ".csv", ".jsonl") or path.name == "manifest.json"
    }


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_crash_at_any_byte_of_any_file(tmp_path_factory, data):
    """A crash leaves the journal cut anywhere and, in the shards, anything beyond what the journal counts."""
    folder = tmp_path_factory.mktemp("crash")
    finish(folder / "whole")
    shutil.copytree(folder / "whole", folder / "crashed")
    journal = folder / "crashed" / "volumes.jsonl"
    cut = data.draw(st.integers(0, journal.stat().st_size), label="journal bytes left")
    os.truncate(journal, cut)
    count = sum(COUNTS[: max(journal.read_bytes().count(b"\n") - 1, 0)])
    (folder / "crashed" / "manifest.json").unlink()
    rubbish = data.draw(st.integers(0, 700), label="bytes of half-written pixels")
    first, rows = divmod(count, 10)
    for path in sorted((folder / "crashed" / "shards").iterdir()):
        if int(path.stem) == first:
            os.truncate(path, 128 + rows * 256)
            with path.open("ab") as file:
                file.write(b"\xee" * rubbish)
        elif int(path.stem) > first and data.draw(st.booleans(), label="later shard gone"):
            path.unlink()
    finish(folder / "crashed")
    assert content(folder / "crashed") == content(folder / "whole")
    SliceStore.open(folder / "crashed").verify()


def test_volumes_added_later_come_behind(tmp_path):
    with StoreWriter(tmp_path / "a", SETTINGS) as writer:
        for number in range(3):
            add(writer, number)
        writer.finish()
    before = SliceStore.open(tmp_path / "a")
    images, fingerprint = before.images(range(len(before))), before.fingerprint
    finish(tmp_path / "a")
    after = SliceStore.open(tmp_path / "a")
    assert len(after) == sum(COUNTS)
    np.testing.assert_array_equal(after.images(range(len(before))), images)
    assert after.fingerprint != fingerprint
    finish(tmp_path / "b")
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_a_store_that_is_being_changed_can_not_be_read(tmp_path):
    with StoreWriter(tmp_path / "a", SETTINGS) as writer:
        add(writer, 0)
        writer.finish()
    with StoreWriter(tmp_path / "a", SETTINGS) as writer:
        add(writer, 1)
    with pytest.raises(UserError, match="not finished"):
        SliceStore.open(tmp_path / "a")


def test_nothing_new_writes_nothing(tmp_path):
    finish(tmp_path / "a")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}
    finish(tmp_path / "a")
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}


def test_other_settings_are_named(tmp_path):
    finish(tmp_path / "a")
    with pytest.raises(UserError, match="planes axial and not axial,coronal, size 16 and not 32"):
        StoreWriter(tmp_path / "a", {**SETTINGS, "size": 32, "planes": ["axial", "coronal"]})


def test_folders_that_are_not_ours(tmp_path):
    claim_folder(tmp_path / "run", "comparison")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    (tmp_path / "file").write_bytes(b"")
    for name, reason in (
        ("run", "holds a comparison"),
        ("photos", "holds something else"),
        ("file", "is a file"),
    ):
        with pytest.raises(UserError, match=reason):
            StoreWriter(tmp_path / name, SETTINGS)
    assert (tmp_path / "photos" / "cat.jpg").read_bytes() == b"cat"


def test_two_processes_do_not_write_at_once(tmp_path):
    with (
        StoreWriter(tmp_path / "a", SETTINGS),
        pytest.raises(UserError, match="another process"),
    ):
        StoreWriter(tmp_path / "a", SETTINGS)
    StoreWriter(tmp_path / "a", SETTINGS).__exit__(None)


def test_a_damaged_journal_or_lost_pixels_are_refused(tmp_path):
    finish(tmp_path / "a")
    journal = tmp_path / "a" / "volumes.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole.replace(b'"kind"', b'"kind', 1))
    with pytest.raises(UserError, match=r"volumes.jsonl: damaged"):
        StoreWriter(tmp_path / "a", SETTINGS)
    journal.write_bytes(whole)
    os.truncate(tmp_path / "a" / "shards" / "00002.npy", 1000)
    with pytest.raises(UserError, match=r"00002.npy: shorter than the journal says"):
        StoreWriter(tmp_path / "a", SETTINGS)


def change_lines(folder, change):
    """Of a store's journal, with fitting checksums."""
    journal = folder / "volumes.jsonl"
    events = [value_of(line) for line in journal.read_bytes().splitlines(keepends=True)]
    journal.write_bytes(b"".join(map(line_of, change(events))))


EVIDENCE = {"parts": ["d", "0"], "top": "/d"}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda events: events[1:], "first line, the settings, is missing"),
        (lambda events: [{"kind": "settings"}, *events[1:]], r"\(size\)"),
        *(
            (lambda events, more=more: [*events[:-1], {**events[-1], **more}], rf"\({fault}\)")
            for more, fault in (
                ({"redundant": -1}, "redundant"),
                ({"evidence": {**EVIDENCE, "parts": []}}, "parts"),
                ({"evidence": {**EVIDENCE, "parts": ["a"] * 3000}}, "parts"),
                ({"evidence": {**EVIDENCE, "told": [["subject"]]}}, "told"),
                ({"evidence": {**EVIDENCE, "told": [["subject", "a", "b"]]}}, "told"),
                ({"evidence": {**EVIDENCE, "told": [["session", "a"]]}}, "told"),
            )
        ),
    ],
)
def test_a_journal_with_values_that_no_event_has_is_refused(tmp_path, change, fault):
    finish(tmp_path)
    change_lines(tmp_path, change)
    with pytest.raises(UserError, match=fault):
        StoreWriter(tmp_path, SETTINGS)


def test_a_journal_is_not_mended_if_other_lines_are_not_understood(tmp_path):
    finish(tmp_path)
    change_lines(tmp_path, lambda events: [*events, {"kind": "gone"}])
    journal = tmp_path / "volumes.jsonl"
    before = journal.read_bytes().replace(b'"planes"', b'"plane5"', 1)
    journal.write_bytes(before)
    for read in (ledger_of_whole_lines, lambda folder: mend(folder, [], lambda *_: None)):
        with pytest.raises(UserError, match=r"journal not understood \(path\)|is damaged, and no file here"):
            read(tmp_path)
    assert journal.read_bytes() == before


def test_a_file_that_was_mended_is_no_longer_listed_as_skipped(tmp_path):
    with StoreWriter(tmp_path / "a", SETTINGS) as writer:
        writer.skip({"source": "0.nii", "reason": "truncated", "path": "/0.nii", "bytes": 0, "mtime_ns": 0})
        add(writer, 1)
        assert len(writer.finish()["skipped"]) == 1
    for _ in range(2):
        with StoreWriter(tmp_path / "a", SETTINGS) as writer:
            if len(writer.ledger.used) == 1:
                add(writer, 0)
            assert writer.finish()["skipped"] == []


@pytest.mark.parametrize("counts", [None, {}, {"by_plane": 3}])
def test_a_manifest_with_other_counts_is_no_hindrance(tmp_path, counts):
    finish(tmp_path)
    manifest = read_object(tmp_path / "manifest.json")
    damaged = {key: value for key, value in manifest.items() if key not in ("notes", "skipped", "counts")}
    write_card(tmp_path / "manifest.json", damaged | ({} if counts is None else {"counts": counts}))
    with StoreWriter(tmp_path, SETTINGS) as writer:
        assert writer.finish() == manifest


@pytest.mark.parametrize("fail_at", range(8))
def test_a_full_disk_loses_nothing(tmp_path, monkeypatch, fail_at):
    """Every fsync in turn fails as on a full disk; the error names a file, and the next run makes the whole store."""
    calls = 0
    real = os.fsync

    def full(descriptor):
        nonlocal calls
        calls += 1
        if calls > fail_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space") as error:
            finish(tmp_path / "a")
    assert error.value.errno == errno.ENOSPC
    with pytest.raises(UserError):
        SliceStore.open(tmp_path / "a")
    finish(tmp_path / "a")
    finish(tmp_path / "b")
    assert content(tmp_path / "a") == content(tmp_path / "b")


@pytest.mark.parametrize("interrupt_at", range(12))
def test_interrupted_from_the_keyboard_in_any_fsync_no_line_is_written_twice(
    tmp_path, monkeypatch, interrupt_at
):
    """Unlike after a kill, the writer still closes, and commits what it has."""
    monkeypatch.setattr("mri_transfer.datasets.store.writer.COMMIT_SECONDS", 0.0)
    calls = 0
    real = os.fsync

    def interrupted(descriptor):
        nonlocal calls
        real(descriptor)
        calls += 1
        if calls == interrupt_at + 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            finish(tmp_path / "a")
    finish(tmp_path / "a")
    finish(tmp_path / "b")
    assert content(tmp_path / "a") == content(tmp_path / "b")


def overwrite(path, place, count):
    content = bytearray(path.read_bytes())
    content[place : place + count] = bytes(count)
    path.write_bytes(content)


@pytest.mark.parametrize("shard", ["00000", "00005"])  # a full one, and the last
def test_overwritten_pixels_are_neither_relied_on_nor_signed_anew(tmp_path, shard):
    finish(tmp_path)
    SliceStore.open(tmp_path).check_pixels()
    damaged = tmp_path / "shards" / f"{shard}.npy"
    overwrite(damaged, 128 + 40, 150)
    with pytest.raises(UserError, match=f"{shard}.npy: damaged.*extract it again"):
        SliceStore.open(tmp_path).check_pixels()
    signed = (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(UserError, match=f"{shard}.npy: damaged.*extract it again"):
        StoreWriter(tmp_path, SETTINGS)
    assert (tmp_path / "manifest.json").read_bytes() == signed


def test_what_a_killed_process_wrote_is_verified_before_it_is_signed(tmp_path):
    with StoreWriter(tmp_path, SETTINGS) as writer:
        for number in range(4):
            add(writer, number)
    overwrite(tmp_path / "shards" / "00001.npy", 128 + 3 * 256, 100)
    with pytest.raises(UserError, match=r"00000.npy: damaged, the slices of 1.nii have changed"):
        finish(tmp_path)
    assert not (tmp_path / "manifest.json").exists()


def test_shards_that_have_not_changed_are_read_once(tmp_path, monkeypatch):
    finish(tmp_path)
    reads = []
    monkeypatch.setattr(pixels, "sha256", lambda path: reads.append(path.name) or sha256(path))
    SliceStore.open(tmp_path).check_pixels()
    assert not reads  # they were hashed when they were written
    (tmp_path / pixels.VERIFIED).write_text("[" * 500)
    SliceStore.open(tmp_path).check_pixels()
    assert len(reads) == 6
    os.utime(tmp_path / "shards" / "00003.npy")
    SliceStore.open(tmp_path).check_pixels()
    assert reads[6:] == ["00003.npy"]
    SliceStore.open(tmp_path).verify()
    assert len(reads) == 13


def test_a_store_of_a_version_without_checksums_is_continued_with_a_word(tmp_path, capsys):
    with StoreWriter(tmp_path, SETTINGS) as writer:
        for number in range(3):
            add(writer, number)
    journal = tmp_path / "volumes.jsonl"
    events = [value_of(line) for line in journal.read_bytes().splitlines(keepends=True)]
    for event in events:
        event.pop(pixels.CHECKSUM, None)
    journal.write_bytes(b"".join(line_of(event) for event in events))
    finish(tmp_path)
    assert "3 volumes were cut by an older version" in capsys.readouterr().err
    SliceStore.open(tmp_path).verify()


def test_a_manifest_whose_settings_are_not_the_journals_is_written_anew(tmp_path):
    finish(tmp_path / "a")
    path = tmp_path / "a" / "manifest.json"
    whole = path.read_bytes()
    manifest = read_object(path)
    manifest["settings"]["spacing"] = 7
    write_card(path, manifest | {"fingerprint": fingerprint_of(manifest)})
    with StoreWriter(tmp_path / "a", SETTINGS) as writer:
        writer.finish()
    assert path.read_bytes() == whole
