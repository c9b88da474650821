"""The command `audit`, through the command line: what it says, writes, finds in a slice store, and refuses."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

from mri_transfer.cli import main
from mri_transfer.datasets.audit.leaks import leaks_between
from mri_transfer.datasets.extract import SlicesConfig, extract
from mri_transfer.datasets.synthetic import write_tumors, write_volumes
from mri_transfer.datasets.tumors import load_tumors


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tumors")
    write_tumors(folder, per_class=8, seed=1)
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    place = tmp_path_factory.mktemp("volumes")
    write_volumes(place / "volumes", subjects=2, seed=0, spacing=4.0)
    extract(SlicesConfig(paths=(place / "volumes",), out=place / "store", size=128, workers=1))
    return place / "store"


class Slices:
    """As much of a slice store as the comparison uses."""

    def __init__(self, images):
        self._images = images
        names = ("subject", "sequence", "plane", "source")
        self.table = {name: np.array([name] * len(images)) for name in names}
        self.table["position_mm"] = np.arange(len(images), dtype=float)

    def __len__(self):
        return len(self._images)

    def images(self, indices):
        return self._images[indices]


def test_audit_says_what_it_found_and_writes_it(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["audit", str(folder), "--out", str(out), "--json", str(tmp_path / "a.json")]) == 0
    said = capsys.readouterr().err
    assert "40 files, 36 distinct images" in said
    assert "identical to a training image: 4 of 16" in said
    assert "grouped folds" in said
    summary = json.loads((tmp_path / "a.json").read_text())
    assert summary["command"] == "audit"
    assert summary["test_near_duplicate"] == 8
    assert json.loads((out / "summary.json").read_text())["fingerprint"] == summary["fingerprint"]
    rows = list(csv.DictReader((out / "groups.csv").open(encoding="utf-8")))
    found = load_tumors(folder, 32)
    assert [(row["file"], int(row["group"])) for row in rows] == list(
        zip(found.paths, found.groups.tolist(), strict=True)
    )


def test_json_alone_goes_to_standard_output(folder, capsys):
    assert main(["audit", str(folder), "--json", "-", "--quiet"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["files"] == 40
    assert printed.err == ""


def test_a_store_of_other_heads_holds_no_leak(folder, store, capsys):
    assert main(["audit", str(folder), "--against", str(store), "--json", "-"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["against"]["leaks"] == []
    assert "slices of" in printed.err


def test_planted_leaks_are_found_exactly(folder, store):
    from mri_transfer.datasets.store import SliceStore

    tumors = load_tumors(folder, 128)
    honest = SliceStore.open(store)
    slices = honest.images(slice(0, len(honest))).copy()
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(tumors), 10, replace=False)
    rows = rng.choice(len(slices), 10, replace=False)
    for n, (image, row) in enumerate(zip(chosen, rows, strict=True)):
        copy = Image.fromarray(tumors.images[image])
        if n % 3 == 0:
            copy = copy.crop((4, 3, 124, 126))
        if n % 3 == 1:
            copy = copy.transpose(Image.Transpose(n % 7))
        content = io.BytesIO()
        copy.resize((128, 128), Image.Resampling.BILINEAR).save(content, "JPEG", quality=75)
        slices[row] = np.asarray(Image.open(content))
    found = leaks_between(tumors, Slices(slices))
    # Planted near-duplicates within the tumour set may answer to the same slice: every finding must be right.
    assert all(finding["correlation"] >= tumors.calibration.threshold for finding in found)
    direct = {(tumors.paths[image], int(row)) for image, row in zip(chosen, rows, strict=True)}
    # An image with a near-copy of itself in the set may be as like to that one's slice as to its own.
    assert {finding["image"] for finding in found} >= {image for image, _ in direct}
    assert {finding["slice"] for finding in found} <= {row for _, row in direct}
    extra = {finding["image"] for finding in found} - {tumors.paths[image] for image in chosen}
    assert all(tumors.groups[tumors.paths.index(image)] in tumors.groups[chosen] for image in extra)


def test_a_corrupt_jpeg_is_counted_or_fatal_if_strict(folder, tmp_path, capsys):
    import shutil

    copy = tmp_path / "tumors"
    shutil.copytree(folder, copy)
    bad = copy / "Training" / "glioma_tumor" / "gg (1).jpg"
    bad.write_bytes(bad.read_bytes()[:900])
    (copy / "Testing" / "no_tumor" / "image(99).jpg").write_text("a text")
    assert main(["audit", str(copy)]) == 0
    said = capsys.readouterr().err
    assert "Unreadable, left out: 2" in said
    assert "gg (1).jpg" in said
    assert "not an image" in said
    assert main(["audit", str(copy), "--strict"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "gg (1).jpg" in line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["empty"], "two or more classes"),
        (["tumors", "--against", "nowhere"], "nowhere: no such folder"),
        (["tumors", "--against", "empty"], "slice store is needed"),
        (["tumors", "--out", "full"], "holds something else"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, says, folder, tmp_path, capsys, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    (tmp_path / "tumors").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    assert main(["audit", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
