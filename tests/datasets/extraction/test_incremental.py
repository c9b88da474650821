"""A collection that lives: files come, move, are renamed, touched, replaced, mended, and vanish."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from mri_transfer.datasets.extraction import collection as collection_module
from mri_transfer.datasets.extraction import extract as extract_module
from mri_transfer.datasets.extraction.extract import SlicesConfig, extract
from mri_transfer.datasets.store.ledger import Ledger
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.datasets.store.writer import StoreWriter
from mri_transfer.errors import UserError

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def volumes(tmp_path, head, save):
    folder = tmp_path / "v"
    for number in range(4):
        save(folder / f"p{number}_T1.nii.gz", head((24, 28, 26), seed=number), zooms=(4.0, 4.0, 4.0))
    return folder


@pytest.fixture
def run(volumes, monkeypatch):
    """Runs the command on the collection; returns the summary and the names of the files that were read."""
    reads = []
    real = extract_module.read_volume
    monkeypatch.setattr(
        extract_module,
        "read_volume",
        lambda files, **rest: reads.append(files[-1].name) or real(files, **rest),
    )

    def extract_it(*paths, **options):
        reads.clear()
        options = {"size": 32, "workers": 1, **options}
        return extract(SlicesConfig(paths or (volumes,), volumes.parent / "store", **options)), sorted(reads)

    return extract_it


def fingerprint(volumes) -> str:
    return SliceStore.open(volumes.parent / "store").fingerprint


def reasons(summary) -> dict[str, str]:
    return {skip["file"]: skip["reason"] for skip in summary["skipped"]}


def test_moved_and_renamed_files_are_not_new(volumes, run):
    run()
    before = fingerprint(volumes)
    (volumes / "deep").mkdir()
    (volumes / "p0_T1.nii.gz").rename(volumes / "deep" / "p0_T1.nii.gz")
    (volumes / "p1_T1.nii.gz").rename(volumes / "anna_T1.nii.gz")
    summary, reads = run()
    assert reads == ["anna_T1.nii.gz", "p0_T1.nii.gz"]
    assert summary["added_slices"] == 0
    assert (summary["skipped"], summary["missing"]) == ([], [])
    assert summary["moved"] == [
        {"from": "v/p1_T1.nii.gz", "to": "v/anna_T1.nii.gz"},
        {"from": "v/p0_T1.nii.gz", "to": "v/deep/p0_T1.nii.gz"},
    ]
    assert fingerprint(volumes) == before
    summary, reads = run()
    assert reads == []
    assert len(summary["moved"]) == 2
    # On to a third place, and back to the first.
    (volumes / "anna_T1.nii.gz").rename(volumes / "berta_T1.nii.gz")
    (volumes / "deep" / "p0_T1.nii.gz").rename(volumes / "p0_T1.nii.gz")
    summary, reads = run()
    assert reads == ["berta_T1.nii.gz"]
    assert summary["moved"] == [{"from": "v/p1_T1.nii.gz", "to": "v/berta_T1.nii.gz"}]
    assert summary["missing"] == []
    assert fingerprint(volumes) == before


def test_a_copy_is_named_as_one_as_long_as_its_original_is_there(volumes, run):
    run()
    shutil.copyfile(volumes / "p0_T1.nii.gz", volumes / "zz_T1.nii.gz")
    summary, _ = run()
    assert reasons(summary) == {
        "v/zz_T1.nii.gz": "the same scan as v/p0_T1.nii.gz, which counts as another person's"
    }
    (volumes / "p0_T1.nii.gz").unlink()
    summary, reads = run()
    assert reads == []
    assert summary["missing"] == ["v/p0_T1.nii.gz"]
    os.utime(volumes / "zz_T1.nii.gz")
    summary, reads = run()
    assert reads == ["zz_T1.nii.gz"]
    assert summary["moved"] == [{"from": "v/p0_T1.nii.gz", "to": "v/zz_T1.nii.gz"}]
    assert (summary["skipped"], summary["missing"]) == ([], [])


def test_touched_files_are_read_once_more_and_then_known(volumes, run):
    run()
    before = fingerprint(volumes)
    for path in volumes.iterdir():
        os.utime(path, ns=(1, 1))
    summary, reads = run()
    assert len(reads) == 4
    assert (summary["added_slices"], summary["skipped"], summary["moved"]) == (0, [], [])
    assert run()[1] == []
    assert fingerprint(volumes) == before


def test_a_touched_file_may_not_change_its_subject_either(volumes, run, tmp_path):
    run()
    os.utime(volumes / "p0_T1.nii.gz", ns=(1, 1))
    run()
    table = tmp_path / "table.csv"
    table.write_text("file,subject\np0_T1.nii.gz,anna\n")
    with pytest.raises(UserError, match="is in the store as p0"):
        run(table=table)


def test_a_replaced_file_is_reported_and_its_old_slices_stay(volumes, run, head, save):
    run()
    before = fingerprint(volumes)
    save(volumes / "p0_T1.nii.gz", head((24, 28, 26), seed=50), zooms=(4.0, 4.0, 4.0))
    summary, _ = run()
    assert reasons(summary)["v/p0_T1.nii.gz"].startswith(
        "changed since its slices were stored; another --out"
    )
    assert fingerprint(volumes) == before
    assert run()[1] == []


def test_vanished_files_are_reported_and_their_slices_stay(volumes, run, capfd):
    run()
    before = fingerprint(volumes)
    (volumes / "p2_T1.nii.gz").unlink()
    summary, reads = run()
    assert (summary["missing"], summary["volumes"], reads) == (["v/p2_T1.nii.gz"], 4, [])
    assert (
        "of the store's volumes, 1 are gone (such as v/p2_T1.nii.gz); their slices stay"
        in capfd.readouterr().err
    )
    assert fingerprint(volumes) == before
    # What was merely not named this time has not vanished.
    assert run(volumes / "p0_T1.nii.gz")[0]["missing"] == ["v/p2_T1.nii.gz"]


def test_broken_files_that_are_mended_come_in_and_those_removed_are_forgotten(volumes, run, head, save):
    (volumes / "p7_T1.nii.gz").write_bytes((volumes / "p0_T1.nii.gz").read_bytes()[:-100])
    (volumes / "p8_T1.nii").write_text("notes" * 100)
    (volumes / "p9_T1.nii").symlink_to("nowhere.nii")
    summary, _ = run()
    assert len(summary["skipped"]) == 3
    assert run()[1] == []
    save(volumes / "p7_T1.nii.gz", head((24, 28, 26), seed=7), zooms=(4.0, 4.0, 4.0))
    (volumes / "p8_T1.nii").unlink()
    save(volumes.parent / "elsewhere" / "p9_T1.nii", head((24, 28, 26), seed=9), zooms=(4.0, 4.0, 4.0))
    (volumes / "p9_T1.nii").unlink()
    (volumes / "p9_T1.nii").symlink_to("../elsewhere/p9_T1.nii")
    summary, reads = run()
    assert reads == ["p7_T1.nii.gz", "p9_T1.nii"]
    assert (summary["skipped"], summary["volumes"]) == ([], 6)
    assert SliceStore.open(volumes.parent / "store").manifest["skipped"] == []


def test_what_was_too_large_is_tried_again_with_a_higher_limit(volumes, run, head, save):
    save(volumes / "big_T1.nii", head((80, 80, 80)), zooms=(2.0, 2.0, 2.0), dtype=np.float64)
    summary, _ = run(max_mb=1)
    assert "more than --max-mb allows" in reasons(summary)["v/big_T1.nii"]
    assert run(max_mb=1)[1] == []
    summary, reads = run(max_mb=100)
    assert reads == ["big_T1.nii"]
    assert (summary["skipped"], summary["volumes"]) == ([], 5)


def test_what_could_not_be_read_is_tried_again_by_another_version(volumes, run, monkeypatch):
    (volumes / "odd.nii").write_text("of a format to come" * 100)
    run()
    assert run()[1] == []
    monkeypatch.setattr(collection_module.importlib.metadata, "version", lambda name: "99")
    assert run()[1] == ["odd.nii"]
    assert run()[1] == []


def test_too_little_memory_is_no_lasting_verdict(volumes, run, monkeypatch):
    with monkeypatch.context() as patch:
        real = extract_module.cut
        calls = iter([MemoryError])

        def cut(*arguments):
            for error in calls:
                raise error
            return real(*arguments)

        patch.setattr(extract_module, "cut", cut)
        summary, _ = run()
    assert reasons(summary) == {"v/p0_T1.nii.gz": "needs more memory than there is"}
    summary, reads = run()
    assert reads == ["p0_T1.nii.gz"]
    assert (summary["skipped"], summary["volumes"]) == ([], 4)


def test_a_file_that_may_not_be_read_yet_is_tried_again(volumes, run, monkeypatch):
    """Changed permissions change neither size nor date. (Root may read everything, so the refusal is made here.)"""
    real = Path.read_bytes

    def refused(path):
        if path.name == "p1_T1.nii.gz":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refused)
        summary, _ = run()
    assert reasons(summary) == {"v/p1_T1.nii.gz": "permission denied"}
    summary, reads = run()
    assert reads == ["p1_T1.nii.gz"]
    assert (summary["skipped"], summary["volumes"]) == ([], 4)


def test_a_name_that_is_not_utf8_is_found_again(tmp_path, run, volumes):
    try:
        (volumes / "p0_T1.nii.gz").rename(volumes / os.fsdecode(b"caf\xe9_T1.nii.gz"))
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    run()
    summary, reads = run()
    assert (reads, summary["missing"]) == ([], [])


def test_a_store_from_before_redundancy_opens_and_grows(volumes, run, head, save):
    """As version 0.1 wrote it: no max_correlation among the settings, another digest, and "touched" as skipped."""
    store = volumes.parent / "store"
    run(max_correlation=1.0)
    before = SliceStore.open(store)
    images = before.images(range(len(before)))
    journal = [json.loads(line) for line in (store / "volumes.jsonl").read_text().splitlines()]
    for entry in journal:
        del entry["crc32"]
        entry.pop("first", None)
    del journal[0]["max_correlation"]
    for entry in journal[1:]:
        entry["content"] = "0" * 64
        del entry["redundant"]
    journal.append({"kind": "skipped", "source": "v/x.nii", "reason": "truncated"})
    (store / "volumes.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in journal))
    (store / "manifest.json").unlink()
    with StoreWriter(
        store, {key: journal[0][key] for key in ("size", "spacing", "planes", "min_foreground")}
    ) as writer:
        writer.finish()
    old = SliceStore.open(store)
    assert "max_correlation" not in old.manifest["settings"]
    with pytest.raises(
        UserError,
        match=r"max_correlation 1\.0 and not 0\.97; use the same settings \(--max-correlation 1\.0\)",
    ):
        run()
    shutil.copyfile(volumes / "p1_T1.nii.gz", volumes / "copy_T1.nii.gz")
    save(volumes / "p9_T1.nii.gz", head((24, 28, 26), seed=9), zooms=(4.0, 4.0, 4.0))
    summary, _ = run(max_correlation=1.0)
    assert summary["volumes"] == 5
    reason = reasons(summary)["v/copy_T1.nii.gz"]  # by its bytes
    assert reason == "the same scan as v/p1_T1.nii.gz, which counts as another person's"
    after = SliceStore.open(store)
    np.testing.assert_array_equal(after.images(range(len(images))), images)
    assert after.manifest["settings"] == old.manifest["settings"]


def test_the_hash_of_a_full_shard_is_kept_and_not_made_again(volumes, run, monkeypatch, head, save):
    monkeypatch.setattr("mri_transfer.datasets.store.store._SHARD_BYTES", 20 * 32 * 32)
    run()
    hashed = []
    real = extract_module.StoreWriter.finish.__globals__["sha256"]
    monkeypatch.setitem(
        extract_module.StoreWriter.finish.__globals__,
        "sha256",
        lambda path: hashed.append(path.name) or real(path),
    )
    slices = len(SliceStore.open(volumes.parent / "store"))
    save(volumes / "p9_T1.nii.gz", head((24, 28, 26), seed=9), zooms=(4.0, 4.0, 4.0))
    run()
    store = SliceStore.open(volumes.parent / "store")
    store.verify()
    new = [f"{number:05d}.npy" for number in range(slices // 20, -(-len(store) // 20))]
    assert hashed == [*new, "slices.csv"]


def test_memory_grows_with_volumes_and_not_with_slices(tmp_path):
    import tracemalloc

    def events():
        yield {"kind": "settings", "size": 16}
        for number in range(100):
            yield {
                **{"kind": "volume", "subject": f"s{number}", "session": "", "sequence": "T1"},
                **{"source": f"v/{number}.nii", "path": f"/v/{number}.nii", "sha256": f"{number:064x}"},
                **{"planes": ["axial"] * 1000, "position_mm": [i / 7 for i in range(1000)]},
                "position": [i / 9 for i in range(1000)],
            }

    tracemalloc.start()
    ledger = Ledger(tmp_path).replay(events())
    memory, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ledger.slices == 100_000
    assert memory < 100 * 3000
