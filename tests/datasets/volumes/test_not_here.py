"""Files that stand for what is not here: pointers and archives, each with the command that helps."""

from __future__ import annotations

import numpy as np
import pytest

from mri_transfer.datasets.volumes.find import find_volumes
from mri_transfer.errors import UserError

KEY = "MD5E-s4194304--0123456789abcdef0123456789abcdef.nii.gz"
LFS = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 4194304\n"


@pytest.fixture
def dataset(tmp_path, save, head):
    save(tmp_path / "ds" / "here_T1.nii.gz", head((12, 14, 10)), dtype=np.int16)
    return tmp_path / "ds"


def reasons(dataset):
    inventory = find_volumes([dataset])
    assert [source.path.name for source in inventory.sources] == ["here_T1.nii.gz"]
    assert all(skip.broken for skip in inventory.skipped)
    return {skip.path.name: skip.reason for skip in inventory.skipped}


def test_git_annex_and_lfs(dataset):
    (dataset / "link_T1.nii.gz").symlink_to(f"../.git/annex/objects/Xq/1w/{KEY}/{KEY}")
    (dataset / "unlocked_T1.nii.gz").write_text(f"/annex/objects/{KEY}\n")
    (dataset / "lfs_T1.nii").write_text(LFS)
    (dataset / "lfs_T2.nrrd").write_text(LFS)
    (dataset / "gone_T1.nii").symlink_to("nowhere.nii")
    remedies = reasons(dataset)
    assert "git annex get link_T1.nii.gz (or datalad get)" in remedies["link_T1.nii.gz"]
    assert "git annex get unlocked_T1.nii.gz" in remedies["unlocked_T1.nii.gz"]
    assert 'git lfs pull --include "lfs_T1.nii"' in remedies["lfs_T1.nii"]
    assert "git lfs pull" in remedies["lfs_T2.nrrd"]
    assert remedies["gone_T1.nii"] == "a link to a file that is not there"


def test_a_link_of_git_annex_whose_content_is_here_is_read(dataset):
    store = dataset.parent / ".git" / "annex" / "objects"
    store.mkdir(parents=True)
    (dataset / "here_T1.nii.gz").rename(store / KEY)
    (dataset / "here_T1.nii.gz").symlink_to(f"../.git/annex/objects/{KEY}")
    assert reasons(dataset) == {}


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("a_T1.nii.bz2", "bunzip2 a_T1.nii.bz2"),
        ("a_T1.nii.xz", "unxz a_T1.nii.xz"),
        ("a_T1.nii.zip", "unzip a_T1.nii.zip"),
        ("all scans.zip", "unzip 'all scans.zip'"),
        ("all.tar.gz", "tar -xzf all.tar.gz"),
        ("all.tgz", "tar -xzf all.tgz"),
    ],
)
def test_archives(dataset, name, command):
    (dataset / name).write_bytes(b"PK\x03\x04")
    (dataset / "notes.txt.bz2").write_bytes(b"BZh9")
    remedies = reasons(dataset)
    assert list(remedies) == [name]
    assert remedies[name].endswith(f"unpack it first: {command}")
    with pytest.raises(UserError, match="unpack it first"):
        find_volumes([dataset / name])
