"""Names, links, pipes and permissions as file systems have them."""

from __future__ import annotations

import os

import numpy as np
import pytest

from mri_transfer.datasets.volumes.find import find_volumes

NAMES = [
    "größe 1.nii.gz",
    "脳 スキャン.nii.gz",
    "мозг (1).mgz",
    "دماغ.nrrd",
    "  two  spaces .nii.gz",
    "a'b\"c;$(x).mnc",
    "x\ny.nii.gz",
]


@pytest.mark.parametrize("file_name", NAMES)
def test_names_in_other_scripts_and_with_spaces(formats, scan, tmp_path, file_name):
    kind = {".mgz": "mgz", ".mnc": "minc2-one-scale", "rrd": "nrrd"}.get(
        file_name[-4:].lstrip("n"), "nifti1-gz"
    )
    kind = "nrrd" if file_name.endswith(".nrrd") else kind
    (file,) = formats.WRITERS[kind](scan, tmp_path)
    (tmp_path / "d ö").mkdir()
    file.rename(tmp_path / "d ö" / file_name)
    (source,) = find_volumes([tmp_path / "d ö"]).sources
    assert source.name == f"d ö/{file_name}"
    assert source.identity.subject
    np.testing.assert_allclose(formats.read(list(source.files)).voxels, formats.canonical(scan), atol=1e-2)


def test_a_name_that_is_no_text_a_pipe_and_a_loop_of_links(formats, scan, tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    (file,) = formats.nifti(scan, tmp_path / "a.nii.gz")
    file.rename(folder / os.fsdecode(b"caf\xe9_T1.nii.gz"))
    os.mkfifo(folder / "pipe.nii")
    os.mkfifo(folder / "pipe")  # asked whether it is DICOM, it would wait for ever
    (folder / "loop.nii").symlink_to("loop.nii")
    (folder / "again").symlink_to(folder, target_is_directory=True)
    inventory = find_volumes([folder])
    assert [source.name for source in inventory.sources] == ["d/caf\ufffd_T1.nii.gz"]
    assert {skip.name: skip.broken for skip in inventory.skipped} == {"d/pipe.nii": True, "d/loop.nii": True}


def test_folders_and_files_that_may_not_be_read(formats, scan, tmp_path):
    (tmp_path / "d" / "closed").mkdir(parents=True)
    (file,) = formats.nifti(scan, tmp_path / "d" / "a.nii.gz")
    (shut,) = formats.nifti(scan, tmp_path / "d" / "b.nii.gz")
    (tmp_path / "d" / "closed").chmod(0)
    shut.chmod(0)
    if os.access(shut, os.R_OK):
        pytest.skip("this user, probably the superuser, may read everything")
    inventory = find_volumes([tmp_path / "d"])
    assert [(skip.name, skip.broken) for skip in inventory.skipped] == [("d/closed", True)]
    assert "permission denied" in formats.read([shut])
    assert not isinstance(formats.read([file]), str)
    (tmp_path / "d" / "closed").chmod(0o700)
