"""A disk that is really full while an export is written: one line, and what was there before stays."""

from __future__ import annotations

import os
import re
import subprocess

import numpy as np
import pytest

from mri_transfer.finetune.heads.classifier import build_classifier, save_classifier
from tests.pretrain import small_network


@pytest.fixture
def disk(tmp_path):
    """A file system of 2 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if os.name != "posix" or os.geteuid() or subprocess.run(mount).returncode:
        pytest.skip("a small disk can't be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)


@pytest.fixture
def classifier(tmp_path, monkeypatch, tumor_folder):
    small_network.use(monkeypatch.setattr)
    encoder = small_network.build_small(size=32)
    rng = np.random.default_rng(0)
    head = {"kernel": rng.normal(0, 1, (12, 4)).astype(np.float32), "bias": np.zeros(4, np.float32)}
    model = build_classifier(
        encoder, tuple("abcd"), mean=np.zeros(12, np.float32), scale=np.ones(12, np.float32), **head
    )
    provenance = {"config": {"tumors": str(tumor_folder)}}
    save_classifier(model, tmp_path / "run", backbone="mobilenet", provenance=provenance)
    return tmp_path / "run"


def tree(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("format", ["saved_model", "litert", "onnx"])
def test_an_export_on_a_full_disk_is_one_line_and_leaves_the_former_one(classifier, disk, cli, format):
    if format == "onnx":
        pytest.importorskip("tf2onnx")
        pytest.importorskip("onnxruntime")
    command = ("export", classifier, "--format", format, "--out", disk / "out")
    assert cli(*command).returncode == 0
    before = tree(disk / "out")
    free = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(free.f_bavail * free.f_frsize - 12_000))
    done = cli(*command)
    assert done.returncode == 2
    of_tensorflow = re.compile(r"[A-Z]0000 |[\d: .-]+[A-Z] tensorflow/")  # newer ones and 2.16
    lines = [line for line in done.stderr.splitlines() if not of_tensorflow.match(line)]
    assert len(lines) == 1, done.stderr
    assert "no space left on the device; free some" in lines[0]
    assert tree(disk / "out") == before
    (disk / "filler").unlink()
    assert cli(*command).returncode == 0
