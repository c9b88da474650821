"""`--dry-run` says what the command then does, from headers alone, and leaves no trace."""

from __future__ import annotations

import os
import shutil

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from mri_transfer.datasets.extraction.extract import SlicesConfig, extract
from mri_transfer.datasets.volumes import volume as volumes_module
from mri_transfer.errors import UserError


@pytest.fixture
def volumes(tmp_path, head, save):
    folder = tmp_path / "v"
    for number in range(3):
        save(
            folder / f"p{number}_T1.nii.gz",
            head((60, 72, 66), seed=number),
            zooms=(2.5, 2.5, 2.5),
            axes="PSR",
        )
    save(folder / "p0_FLAIR.nii", head((60, 72, 14)), zooms=(2.5, 2.5, 6.0))
    save(folder / "p0_mask.nii.gz", head((20, 20, 20)))
    save(folder / "odd_T2.nii", head((24, 24, 24)), zooms=(1.0, 3.0, 9.0))
    nib.save(nib.Nifti1Image(np.ones((8, 8, 8, 5), np.int16), np.eye(4)), folder / "series.nii.gz")
    (folder / "notes.nii").write_text("my notes\n" * 100)
    save(folder / "big.nii", np.zeros((8, 8, 8)))
    with (folder / "big.nii").open("r+b") as file:  # promises 65 GB
        file.seek(42)
        file.write(np.array([32000, 32000, 32], "<i2").tobytes())
    return folder


def config(volumes, **options):
    return SlicesConfig(
        (volumes,), volumes.parent / "store", size=32, min_foreground=0.02, workers=1, **options
    )


def tree(folder):
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}


def test_it_foretells_what_the_command_does_and_writes_nothing(volumes, monkeypatch, capfd):
    before = tree(volumes.parent)
    with monkeypatch.context() as patch:
        patch.setattr(volumes_module, "read_volume", None)
        summary = extract(config(volumes, dry_run=True))
    assert tree(volumes.parent) == before
    output = capfd.readouterr().err
    assert "4 volumes of 3 subjects would be read (1 FLAIR, 3 T1; from 4 v)" in output
    assert "v/series.nii.gz: 4-D series" in output
    done = extract(config(volumes, max_correlation=1.0))
    assert (summary["volumes"], summary["subjects"]) == (done["volumes"], done["subjects"])
    assert {skip["file"] for skip in summary["skipped"]} == {skip["file"] for skip in done["skipped"]}
    reasons = {skip["file"]: skip["reason"] for skip in done["skipped"]}
    for skip in summary["skipped"]:
        if skip["file"] != "v/notes.nii":  # of which the header says less than the whole
            assert skip["reason"] == reasons[skip["file"]]
    assert summary["expected_slices"] == pytest.approx(done["slices"], rel=0.15)
    for plane, count in done["by_plane"].items():
        assert summary["expected_by_plane"][plane] == pytest.approx(count, rel=0.25)
    assert summary["expected_mb"] == pytest.approx(summary["expected_slices"] * 32 * 32 / 1e6, abs=0.1)


def test_a_store_that_is_there_counts_as_known(volumes, head, save, capfd):
    extract(config(volumes))
    save(volumes / "p9_T2.nii", head((60, 72, 66), seed=9), zooms=(2.5, 2.5, 2.5))
    before = tree(volumes.parent)
    summary = extract(config(volumes, dry_run=True))
    assert tree(volumes.parent) == before
    assert (summary["volumes"], summary["by_sequence"]) == (1, {"T2": 1})
    assert summary["in_store"]["volumes"] == 4
    assert len(summary["skipped"]) == 5
    assert extract(config(volumes))["volumes"] == 5
    capfd.readouterr()
    extract(config(volumes, dry_run=True))
    assert "no new volumes" in capfd.readouterr().err
    with pytest.raises(UserError, match=r"max_correlation 0\.97 and not 0\.5"):
        extract(config(volumes, dry_run=True, max_correlation=0.5))


def test_it_refuses_what_the_command_refuses(volumes):
    with pytest.raises(UserError, match=r"big.nii|notes.nii"):
        extract(config(volumes, dry_run=True, strict=True))
    (volumes.parent / "store").mkdir()
    (volumes.parent / "store" / "thesis.tex").write_text("text")
    with pytest.raises(UserError, match="holds something else"):
        extract(config(volumes, dry_run=True))
    shutil.rmtree(volumes.parent / "store")
    for path in volumes.glob("p*"):
        path.unlink()
    with pytest.raises(UserError, match="none of 4 volumes can be used"):
        extract(config(volumes, dry_run=True))
    assert not (volumes.parent / "store").exists()


def test_a_crash_in_the_middle_of_a_line_is_left_for_the_command_to_mend(volumes):
    extract(config(volumes))
    journal = volumes.parent / "store" / "volumes.jsonl"
    os.truncate(journal, journal.stat().st_size - 5)
    size = journal.stat().st_size
    extract(config(volumes, dry_run=True))
    assert journal.stat().st_size == size


def test_a_picture_is_a_slice(tmp_path):
    folder = tmp_path / "pictures" / "anna"
    folder.mkdir(parents=True)
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    summary = extract(SlicesConfig((tmp_path / "pictures",), tmp_path / "store", images=True, dry_run=True))
    assert summary["expected_by_plane"] == {"unknown": 3}
    assert summary["expected_slices"] == 3
