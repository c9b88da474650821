"""The command `slices` as a user runs it: real files, real processes, real kills."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import mri_transfer
from mri_transfer.cli import main
from mri_transfer.datasets.extraction import extract as extract_module
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.errors import UserError

CHECKOUT = str(Path(mri_transfer.__file__).resolve().parent.parent)
OPTIONS = ("--size", "32", "--workers", "1", "--quiet")


def run(*arguments) -> int:
    return main(["slices", *map(str, arguments), *OPTIONS])


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.suffix in (".npy", ".csv")
    }


@pytest.fixture
def volumes(tmp_path, head, save):
    folder = tmp_path / "volumes"
    for number in range(4):
        for sequence in ("T1", "FLAIR"):
            voxels = head((24, 28, 26), seed=number) * (1 if sequence == "T1" else 3)
            save(
                folder / f"p{number}_{sequence}.nii.gz",
                voxels,
                zooms=(4.0, 4.0, 4.0),
                axes=("RAS", "LPS")[number % 2],
            )
    return folder


def test_a_folder_becomes_a_store(tmp_path, volumes):
    assert run(volumes, "--out", tmp_path / "store") == 0
    store = SliceStore.open(tmp_path / "store")
    assert store.size == 32
    assert set(store.table["subject"]) == {"p0", "p1", "p2", "p3"}
    assert set(store.table["sequence"]) == {"T1", "FLAIR"}
    assert set(store.table["plane"]) == {"axial", "coronal", "sagittal"}
    assert len(store.volumes) == 8
    summary = json.loads((tmp_path / "store" / "summary.json").read_text())
    assert (
        summary["slices"]
        == len(store)
        == sum(summary["by_plane"].values())
        == sum(summary["by_sequence"].values())
    )
    assert (summary["volumes"], summary["subjects"], summary["skipped"]) == (8, 4, [])
    assert summary["fingerprint"] == store.fingerprint
    assert (tmp_path / "store" / "contact_sheet.png").stat().st_size > 1000
    assert store.images(range(len(store))).max() == 255


def test_the_number_of_workers_changes_nothing(tmp_path, volumes):
    for workers in ("1", "3"):
        command = [
            "slices",
            str(volumes),
            "--out",
            str(tmp_path / workers),
            "--size",
            "32",
            "--workers",
            workers,
        ]
        assert main([*command, "--quiet"]) == 0
    assert content(tmp_path / "1") == content(tmp_path / "3")


def test_workers_import_no_tensorflow(tmp_path, volumes):
    code = (
        "import sys\nfrom mri_transfer.cli import main\n"
        f"assert main(['slices', {str(volumes)!r}, '--out', {str(tmp_path / 'store')!r}, '--quiet']) == 0\n"
        "print([name for name in ('tensorflow', 'keras', 'jax', 'skimage') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"if __name__ == '__main__':\n  exec({code!r})"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": CHECKOUT}, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


KILLED = """
import sys
sys.path.insert(0, {checkout!r})
import mri_transfer.datasets.store.writer as writer
writer.COMMIT_SECONDS = 0.0
real = writer.StoreWriter.add
def slow(self, entry, images):
    import time
    time.sleep(0.03)
    real(self, entry, images)
writer.StoreWriter.add = slow
from mri_transfer.cli import main
if __name__ == "__main__":
    sys.exit(main({arguments!r}))
"""


@pytest.mark.slow
def test_killed_with_kill_9_it_continues_and_ends_the_same(tmp_path, volumes):
    """With two workers; with one, `tests/mri_transfer/test_killed.py` kills it."""
    moments = (1, 2, 4, 7)
    arguments = ["slices", str(volumes), "--size", "32", "--workers", "2", "--quiet", "--out"]
    script = tmp_path / "run.py"
    script.write_text(KILLED.format(checkout=CHECKOUT, arguments=[*arguments, str(tmp_path / "killed")]))
    journal = tmp_path / "killed" / "volumes.jsonl"
    kills = 0
    for volumes_done in moments:
        process = subprocess.Popen([sys.executable, str(script)])
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if journal.is_file() and journal.read_bytes().count(b'"kind": "volume"') >= volumes_done:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        kills += process.wait() == -signal.SIGKILL
    assert kills >= len(moments) // 2  # the last may have been too late
    subprocess.run([sys.executable, str(script)], check=True)
    assert main([*arguments, str(tmp_path / "whole")]) == 0
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    SliceStore.open(tmp_path / "killed").verify()


# A worker finds it by the name of its module.
DIES_OF_ONE = """
import os
from mri_transfer.datasets.extraction.extract import _extract_one

def dies_of_one(source, config):
    if source.path.name == "p0_FLAIR.nii.gz":
        os._exit(9)
    return _extract_one(source, config)
"""


def test_a_volume_that_ends_its_reader_is_skipped_and_tried_again(tmp_path, volumes, monkeypatch, capfd):
    (tmp_path / "reader_that_dies.py").write_text(DIES_OF_ONE)
    monkeypatch.syspath_prepend(tmp_path)
    dies_of_one = importlib.import_module("reader_that_dies").dies_of_one
    monkeypatch.setattr(extract_module, "_extract_one", dies_of_one)
    code = main(["slices", str(volumes), "--out", str(tmp_path / "store"), "--size", "32", "--workers", "2"])
    assert code == 0
    output = capfd.readouterr().err
    assert "p0_FLAIR.nii.gz: ended the process that read it, twice" in output
    assert "p0_T1" not in output.partition("ended the process")[2]  # nor is any other to blame
    assert len(SliceStore.open(tmp_path / "store").volumes) == 7
    monkeypatch.undo()
    assert run(volumes, "--out", tmp_path / "store") == 0
    assert len(SliceStore.open(tmp_path / "store").volumes) == 8


def test_adding_volumes_adds_and_the_rest_is_not_read_again(tmp_path, volumes, monkeypatch):
    assert run(volumes / "p0_T1.nii.gz", volumes / "p1_T1.nii.gz", "--out", tmp_path / "store") == 0
    before = SliceStore.open(tmp_path / "store")
    reads = []
    real = extract_module.read_volume
    monkeypatch.setattr(
        extract_module, "read_volume", lambda files, **rest: reads.append(files) or real(files, **rest)
    )
    assert run(volumes, "--out", tmp_path / "store") == 0
    assert len(reads) == 6
    after = SliceStore.open(tmp_path / "store")
    assert len(after.volumes) == 8
    np.testing.assert_array_equal(after.images(range(len(before))), before.images(range(len(before))))
    reads.clear()
    assert run(volumes, "--out", tmp_path / "store") == 0
    assert reads == []


def test_a_table_names_subjects_and_may_not_change_its_mind(tmp_path, volumes, capfd):
    table = tmp_path / "volumes.csv"
    table.write_text("file,subject,sequence\nvolumes/p0_T1.nii.gz,anna,PD\nvolumes/p0_FLAIR.nii.gz,anna,\n")
    assert run(volumes, "--out", tmp_path / "store", "--table", table) == 0
    store = SliceStore.open(tmp_path / "store")
    assert {volume["subject"] for volume in store.volumes} == {"anna", "p1", "p2", "p3"}
    assert run(volumes, "--out", tmp_path / "store") == 2
    assert "is in the store as anna" in capfd.readouterr().err


BAD = {
    "truncated.nii.gz": lambda path, good: path.write_bytes(good.read_bytes()[:-2000]),
    "notes.nii": lambda path, good: path.write_text("my notes\n" * 100),
    "empty.nii.gz": lambda path, good: path.write_bytes(b""),
    "half.hdr": lambda path, good: path.write_bytes(b"\0" * 348),
    "link.nii": lambda path, good: path.symlink_to("nowhere"),
}


@pytest.fixture
def with_bad(volumes, head, save):
    for name, make in BAD.items():
        make(volumes / name, volumes / "p0_T1.nii.gz")
    series = np.stack([head((24, 28, 26))] * 3, axis=-1)
    nib.save(nib.Nifti1Image(series, np.eye(4)), volumes / "series.nii.gz")
    save(volumes / "zeros.nii.gz", np.zeros((24, 28, 26)))
    save(volumes / "nan.nii.gz", np.full((24, 28, 26), np.nan), dtype=np.float32)
    holes = np.where(head((24, 28, 26), 7) > 179, np.nan, head((24, 28, 26), 7))
    save(volumes / "some_nan.nii.gz", holes, dtype=np.float32)
    return volumes


def test_bad_files_among_good_ones_are_skipped_counted_and_listed(tmp_path, with_bad):
    assert run(with_bad, "--out", tmp_path / "store", "--json", tmp_path / "out.json") == 0
    summary = json.loads((tmp_path / "out.json").read_text())
    reasons = {Path(skip["file"]).name: skip["reason"] for skip in summary["skipped"]}
    assert set(reasons) == {*BAD, "series.nii.gz", "zeros.nii.gz", "nan.nii.gz"}
    for name, reason in {
        "truncated.nii.gz": "truncated",
        "notes.nii": "not a volume",
        "empty.nii.gz": "empty",
        "half.hdr": "missing",
        "link.nii": "not there",
        "series.nii.gz": "4-D series",
        "zeros.nii.gz": "zero",
        "nan.nii.gz": "no finite voxel",
    }.items():
        assert reason in reasons[name], name
    assert summary["volumes"] == 9
    assert [note["file"] for note in summary["notes"]] == ["volumes/some_nan.nii.gz"]
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_text())
    assert manifest["skipped"] == summary["skipped"]
    assert run(with_bad, "--out", tmp_path / "store") == 0  # nothing is tried or listed twice
    assert json.loads((tmp_path / "store" / "manifest.json").read_text()) == manifest


@pytest.mark.parametrize("name", ["truncated.nii.gz", "notes.nii", "link.nii", "half.hdr"])
def test_strict_makes_a_bad_file_fatal(tmp_path, volumes, name, capfd):
    BAD[name](volumes / name, volumes / "p0_T1.nii.gz")
    assert run(volumes, "--out", tmp_path / "store", "--strict") == 2
    error = capfd.readouterr().err
    assert name in error
    assert error.count("\n") == 1
    with pytest.raises(UserError):
        SliceStore.open(tmp_path / "store")


def test_nothing_usable_is_an_error_that_names_the_first_reason(tmp_path, capfd):
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "notes.nii").write_text("notes")
    assert run(tmp_path / "v", "--out", tmp_path / "store") == 2
    assert "v/notes.nii: not a volume" in capfd.readouterr().err
    with pytest.raises(UserError):
        SliceStore.open(tmp_path / "store")


def test_an_existing_store_with_other_settings(tmp_path, volumes, capfd):
    assert run(volumes, "--out", tmp_path / "store") == 0
    before = content(tmp_path / "store")
    assert run(volumes, "--out", tmp_path / "store", "--spacing", "8") == 2
    assert "spacing 4.0 and not 8.0" in capfd.readouterr().err
    assert content(tmp_path / "store") == before


@pytest.mark.parametrize(
    "option", [("--spacing", "0"), ("--planes", "axial,oblique"), ("--size", "7"), ("--size", "x")]
)
def test_options_that_make_no_sense(tmp_path, volumes, option, capfd):
    with pytest.raises(SystemExit) as stop:
        main(["slices", str(volumes), "--out", str(tmp_path / "store"), *option])
    assert stop.value.code == 2
    assert option[0] in capfd.readouterr().err


def test_the_real_volumes():
    folder = os.environ.get("MRI_TRANSFER_DATA")
    if not folder:
        pytest.skip("MRI_TRANSFER_DATA does not name a folder with volumes/ and volumes.tsv")
    from mri_transfer.datasets.volumes.find import find_volumes

    named = find_volumes([Path(folder) / "volumes"])
    inventory = find_volumes([Path(folder) / "volumes"], Path(folder) / "volumes.tsv")
    assert [(source.name, source.identity.subject, source.identity.sequence) for source in named.sources] == [
        (source.name, source.identity.subject, source.identity.sequence) for source in inventory.sources
    ]
