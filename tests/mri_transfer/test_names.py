"""Names that a terminal would obey, that a spreadsheet would compute, that are no UTF-8, that are as long as can be."""

import csv
import io
import json
import os
import shutil
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mri_transfer.progress import visible
from mri_transfer.storage.files import atomic_write, name_with
from mri_transfer.storage.locks import alone_in
from mri_transfer.storage.tables import Table, defused, restored
from tests.pretrain import small_network

HOSTILE = os.fsdecode(b"r\xe9s \x1b[31m=1\x07")  # no UTF-8, red, a formula, a bell
NETWORK = ("--size", 32, "--backbone", "mobilenet")
FEW = ("--folds", 2, "--seeds", 1, "--draws", 50, "--workers", 1)


@given(st.text(alphabet="='+-@\t\rab1.", max_size=6) | st.text(max_size=5))
def test_any_text_comes_back_from_a_table_in_which_none_is_a_formula(text):
    cell = defused(text)
    assert restored(cell) == text
    if cell[:1] and cell[0] in "=+-@\t\r":
        float(cell)  # a number, which computes nothing


def test_tables_that_commands_write_hold_no_formulas():
    file = io.StringIO()
    table = Table(file, ("file", "=x"))
    table.write(("=HYPERLINK(1)", -1.5))
    table.write_named({"file": "@a", "other": 1})
    assert list(csv.reader(io.StringIO(file.getvalue()))) == [
        ["file", "'=x"],
        ["'=HYPERLINK(1)", "-1.5"],
        ["'@a", ""],
    ]


def test_what_a_terminal_would_obey_is_shown_instead():
    assert visible("a\x1b[31m\x9b2J\u202eb\udce9\tc\n") == "a\\x1b[31m\\x9b2J\\u202eb\\xe9\tc\n"


def test_names_of_255_bytes_are_written(tmp_path):
    for name in ("x" * 255, "é" * 127 + "x", "x" * 251 + ".csv"):
        with atomic_write(tmp_path / name) as file:
            file.write("whole")
        assert (tmp_path / name).read_text() == "whole"
    assert len({name_with("x" * 250 + end, ".part") for end in ("a", "b", "c")}) == 3
    assert name_with("short", ".part") == "short.part"


def test_leftovers_of_killed_writes_are_cleared_by_whoever_holds_the_folder(tmp_path):
    (tmp_path / "trials").mkdir()
    for name in ("report.json.0123abcd.part", "trials/a.npz.0123abcd.part"):
        (tmp_path / name).write_text("torn")
    (tmp_path / "download.part").write_text("goes on")
    with alone_in(tmp_path):
        assert sorted(path.name for path in tmp_path.rglob("*.part")) == ["download.part"]


@pytest.fixture
def base(tmp_path, small_volumes):
    """A folder of this kind of name with volumes and pictures of the same kind."""
    base = tmp_path / HOSTILE
    try:
        base.mkdir()
    except OSError:
        pytest.skip("the file system takes no such names")
    shutil.copytree(small_volumes, base / "volumes")
    (base / "volumes" / "sub-02_T1w.nii.gz").rename(
        base / "volumes" / os.fsdecode(b"sub-\xe92\x07_T1w.nii.gz")
    )
    return base


@pytest.fixture
def says(cli):
    """Run a command that is to end with a code, and see that nothing of it would be obeyed by a terminal."""

    def run(*arguments, code=0):
        done = cli(*arguments)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        lines = (done.stderr + done.stdout).replace("\t", " ").split("\n")
        assert all(line.isprintable() for line in lines), lines
        return done

    return run


@pytest.mark.skipif(sys.platform == "darwin", reason="names are UTF-8 there")
def test_volumes_of_such_names_become_a_store(base, says):
    done = says(
        "slices", base / "volumes", "--out", base / "store", "--size", 32, "--workers", 1, "--json", "-"
    )
    assert json.loads(done.stdout)["volumes"] == 5
    says("verify", base / "store")
    says("slices", base / "volumes" / "nowhere\x1b[2J", "--out", base / "other", code=2)
    says("verify", base / "\x1b]0;title\x07", code=2)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "darwin", reason="names are UTF-8 there")
def test_every_command_works_with_such_names_or_refuses_them_at_once(base, says, monkeypatch):
    from mri_transfer.datasets.synthetic.generate import write_tumors

    small_network.use(monkeypatch.setattr)
    write_tumors(base / "tumors", per_class=14, seed=0)
    tumors = base / "tumors"
    picture, long = base / os.fsdecode(b"p\xe9\x1b]0;x\x07.png"), base / ("é" * 125 + "a.png")
    for path in (picture, long):
        shutil.copy(next(tumors.rglob("*.*g")), path)
    says("slices", base / "volumes", "--out", base / "store", "--size", 32, "--workers", 1)
    says("audit", tumors, "--against", base / "store", "--out", base / "audit")
    says("pretrain", base / "store", "--out", base / "run", *NETWORK, "--steps", 2, "--batch", 4)
    assert list((base / "run" / "tensorboard").iterdir())
    probe = ("--size", 32, "--epochs", 0, "--folds", 2, "--groups", base / "audit" / "groups.csv")
    says("finetune", tumors, "--init", base / "run", "--out", base / "classifier", *probe)
    arms = ("--arm", "random", "--arm", f"mri={base / 'run'}", "--backbone", "mobilenet", "--size", 32)
    says("compare", tumors, *arms, *FEW, "--out", base / "report", "--plan", base / "plan.json")
    names = ("--csv", base / ("c" * 251 + ".csv"), "--json", base / ("j" * 250 + ".json"))
    says("predict", base / "classifier", picture, long, "--gradcam", base / "maps", *names)
    assert len(list((base / "maps").iterdir())) == 2
    says("predict", base / "classifier", picture, "--json", "-")
    for name in ("store", "run", "classifier", "report"):
        says("verify", base / name)
    exported = ("export", base / "classifier", "--format", "litert", "--images", picture)
    assert "UTF-8" in says(*exported, "--out", base / "exported", code=2).stderr
    says(*exported, "--out", base.parent / "exported")
    graph = ("export", "--format", "training-graph", "--for", "tf2.7", *NETWORK, "--batch", 4)
    assert "UTF-8" in says(*graph, "--out", base / "graph", code=2).stderr
    says("import-graph", base / "graph", "--out", base / "imported", code=2)
    says("fetch", "tumors", "--zip", base / "none.zip", "--out", base / "fetched", code=2)
    for name in ("store", "run", "classifier", "report", "maps"):
        assert not list((base / name).rglob("*.part"))


def test_no_cell_of_a_store_is_a_formula(tmp_path, small_volumes, cli):
    folder = tmp_path / "=1+1"
    shutil.copytree(small_volumes, folder)
    assert cli("slices", folder, "--out", tmp_path / "store", "--size", 32, "--workers", 1).returncode == 0
    from mri_transfer.datasets.store.store import SliceStore

    with (tmp_path / "store" / "slices.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert any("=1+1" in cell for cell in cells)
    assert not any(cell.startswith("=") for cell in cells)
    store = SliceStore.open(tmp_path / "store")
    assert {str(name).split("/")[0] for name in np.unique(store.table["source"].astype(str))} == {"=1+1"}
