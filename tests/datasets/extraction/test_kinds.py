"""A store takes scans alone: what else is found is told, and may be asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mri_transfer.datasets.extraction.extract import SlicesConfig, extract
from mri_transfer.errors import UserError


@pytest.fixture
def folder(tmp_path, save, head):
    """A scan, and a label map and a probability whose names say nothing."""
    voxels = head((40, 48, 44))
    save(tmp_path / "d" / "a.nii.gz", voxels)
    save(tmp_path / "d" / "b.nii.gz", np.digitize(voxels, (30, 80, 110)))
    sure = np.where(voxels > 110, 1.0, 0.0)
    sure[20, 20] = 0.5
    save(tmp_path / "d" / "c.nii.gz", sure, dtype=np.float32)
    return tmp_path / "d"


def config(folder, out, **options):
    return SlicesConfig(paths=(folder,), out=out, size=32, workers=1, **options)


def reasons(summary):
    return {entry["file"]: entry["reason"] for entry in summary["skipped"]}


def test_contents_decide_and_can_be_asked_for(folder, tmp_path):
    summary = extract(config(folder, tmp_path / "store", strict=True))  # neither is a bad file
    assert summary["volumes"] == 1
    assert {name: reason.split("; ")[1] for name, reason in reasons(summary).items()} == {
        "d/b.nii.gz": "see --include labels",
        "d/c.nii.gz": "see --include labels"
        if "label" in reasons(summary)["d/c.nii.gz"]
        else "see --include maps",
    }
    second = extract(config(folder, tmp_path / "store", include=("labels", "maps")))
    assert second["volumes"] == 3
    assert second["skipped"] == []


def test_the_first_error_is_of_a_file_that_was_tried(folder, tmp_path, save, head):
    """Not of a mask that was left out before, though that comes first."""
    place = tmp_path / "only"
    save(place / "a_mask.nii.gz", head((12, 14, 10)))
    (place / "z.nii.gz").write_bytes(b"\x1f\x8bnot gzip at all")
    for dry in (False, True):
        with pytest.raises(
            UserError, match=r"none of 1 volumes can be used; the first, only/z\.nii\.gz: "
        ) as error:
            extract(config(place, tmp_path / "out", dry_run=dry))
        assert {entry["file"] for entry in error.value.details["skipped"]} == {
            "only/a_mask.nii.gz",
            "only/z.nii.gz",
        }


def test_json_tells_of_a_failure(cli, folder, tmp_path):
    (folder / "a.nii.gz").unlink()
    arguments = ("slices", folder, "--out", tmp_path / "store", "--workers", 1, "--quiet", "--json")
    done = cli(*arguments, tmp_path / "f.json")
    assert done.returncode == 2
    summary = json.loads((tmp_path / "f.json").read_text())
    assert summary["command"] == "slices"
    assert summary["error"] in done.stderr
    assert len(summary["skipped"]) == 2
    done = cli(*arguments, "-")
    assert json.loads(done.stdout)["error"] == summary["error"]
    done = cli("slices", tmp_path / "nowhere", "--out", tmp_path / "store", "--json", tmp_path / "g.json")
    assert "no such file" in json.loads((tmp_path / "g.json").read_text())["error"]
    if Path("/dev/full").exists():
        done = cli("slices", folder, "--out", tmp_path / "s", "--json", "/dev/full")
        assert done.returncode == 2  # and the first error is told
        assert "none of 2 volumes" in done.stderr
    done = cli("slices", folder, "--out", tmp_path / "s", "--json", tmp_path / "no" / "such" / "folder.json")
    assert done.returncode == 2
    assert "there is no folder" in done.stderr
