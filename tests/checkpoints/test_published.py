"""The encoders that come with this program: whole, small, installed, and honest on where they come from."""

import json
import re
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

from mri_transfer.checkpoints import initialisation
from mri_transfer.checkpoints.encoders import load_encoder, read_card
from mri_transfer.checkpoints.initialisation import PUBLISHED, Initialisation, describe_start
from mri_transfer.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
PUBLISH = runpy.run_path(str(ROOT / "benchmarks" / "publish.py"))
SOURCES = {"IXI", "OpenNeuro ds002748", "OpenfMRI ds000011"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_encoder_is_small_whole_and_names_its_sources(name):
    start = Initialisation.read(name)
    model, description = start.load(64)
    assert np.isfinite(np.asarray(model(np.zeros((1, 64, 64, 1), np.float32)))).all()
    assert (description["init"], description["path"]) == ("encoder", name)
    card = start.card
    assert (PUBLISHED[name] / card["weights"]).stat().st_size < 8e6
    assert "17935 slices of 172 subjects" in describe_start(description)
    published = card["provenance"]["published"]
    assert {source["source"] for source in published["data"]} == SOURCES
    assert sum(source["people"] for source in published["data"]) == card["provenance"]["data"]["subjects"]
    assert sum(source["slices"] for source in published["data"]) == card["provenance"]["data"]["slices"]
    assert published["licence"] == "CC BY-SA 4.0"
    assert published["audit"]["shared"] == 0


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_card_names_no_place_of_the_machine_that_made_it(name):
    text = (PUBLISHED[name] / "encoder.json").read_text()
    assert not re.search(r'"(\.|/|[A-Za-z]:)[^"]*/', text)
    assert not {"store", "out"} & json.loads(text)["provenance"]["config"].keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_damaged_one_is_refused(name, tmp_path):
    folder = tmp_path / name
    shutil.copytree(PUBLISHED[name], folder)
    weights = folder / read_card(folder)["weights"]
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        load_encoder(folder)


def test_the_page_is_that_of_the_cards():
    assert (ROOT / "docs" / "encoders.md").read_text(encoding="utf-8") == PUBLISH["page"]()


def test_every_file_of_them_is_installed():
    tomllib = pytest.importorskip("tomllib")
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    installed = {path for pattern in patterns for path in (ROOT / "checkpoints").glob(pattern)}
    files = {path for path in (ROOT / "checkpoints" / "published").rglob("*") if path.is_file()}
    assert files
    assert files <= installed


def test_a_folder_of_the_same_name_is_not_passed_over(tmp_path, monkeypatch):
    monkeypatch.setitem(initialisation.PUBLISHED, "mri", tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mri" / "encoder").mkdir(parents=True)
    initialisation.check("mri")  # a folder of anything else
    (tmp_path / "mri" / "encoder" / "encoder.json").write_text("{}")
    with pytest.raises(UserError, match=r"--init mri: .* write --init \./mri for the folder"):
        initialisation.check("mri")
    initialisation.check("./mri")


def test_kernels_are_halved_and_statistics_are_not():
    arrays = {
        "a/kernel": np.full((3, 3, 1, 2), 0.1, np.float32),
        "a/moving_variance": np.full(2, 1e9, np.float32),
    }
    half = PUBLISH["halved"](arrays)
    assert [half[name].dtype for name in arrays] == [np.float16, np.float32]
    with pytest.raises(SystemExit, match="a/kernel"):
        PUBLISH["halved"]({"a/kernel": np.full((1, 1), 1e9, np.float32)})


def test_what_a_store_says_comes_along_without_its_place():
    provenance = {
        "config": {"store": "/home/a/store", "out": "runs/x", "batch": 64},
        "data": {"store": "/home/a/store", "slices": 2},
    }
    summary = {
        "by_sequence": {"T1": 2},
        "by_plane": {},
        "licences": [{"file": "x", "text": "CC0"}],
        "out": "/home/a/store",
    }
    cleaned = PUBLISH["cleaned"](provenance, summary)
    assert "/home" not in json.dumps(cleaned)
    assert cleaned["config"] == {"batch": 64}
    from mri_transfer.finetune.arms.origins import origins
    from mri_transfer.finetune.arms.wording import pretraining_of

    card = {"provenance": {**cleaned, "method": "simclr", "start": {"init": "random"}}}
    assert pretraining_of({"mri": card})["modality"] == "MRI"
    assert {"file": "x", "text": "CC0"} in origins(card["provenance"])[-1]["licences"]


def test_scores_are_read_from_a_report():
    def interval(value):
        return {"estimate": value, "low": value - 0.02, "high": value + 0.02}

    cell = {
        "results": [
            {"arm": arm, "mode": "probe", "fraction": 1.0, "macro_f1": interval(value)}
            for arm, value in (("imagenet", 0.8), ("mri", 0.7))
        ],
        "pairs": [
            {
                **{"a": "imagenet", "b": "mri", "mode": "probe", "fraction": 1.0, "p_a_better": 0.99},
                "difference": interval(0.1),
            }
        ],
    }
    (line,) = PUBLISH["scores_of"](
        {**cell, "one_source": None, "settings": {"options": {"size": 160}}}, "mri"
    )
    assert "macro-F1 70.0 (68.0 to 72.0); −10.0 (−12.0 to −8.0) points beside ImageNet's weights" in line
