"""A store made by older rules says which of its volumes today's would leave out."""

from __future__ import annotations

import json

import pytest

from mri_transfer.datasets.extraction.extract import SlicesConfig, extract
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.datasets.store.unwanted import unwanted
from mri_transfer.pretrain.pairs.few_people import remarks
from mri_transfer.storage.files import read_object
from mri_transfer.storage.json_lines import CHECKSUM

pytestmark = pytest.mark.usefixtures("no_pictures")


def test_names_are_judged_as_they_are_when_files_are_found():
    names = [
        "d/P01_T1.nii.gz",
        "d/P01_ADC.nii.gz",
        "d/masks/P01.nii.gz",
        "d/x/series 5 ADC",
        "d/P02_T1.nii.gz",
    ]
    notice = unwanted(names)
    assert (
        notice
        == "2 of 5 volumes would be left out today (such as d/P01_ADC.nii.gz: a map, no scan, by its name (adc))"
    )
    assert unwanted(names, names[1:3]) == ""
    assert unwanted(["d/c1T1.nii", "d/T1.nii"]).endswith(
        "d/c1T1.nii: a tissue class of d/T1.nii by its name)"
    )
    assert unwanted([]) == ""


def test_what_was_asked_for_is_not_told_and_what_is_of_an_older_store_is(tmp_path, head, save, capfd):
    for number, name in enumerate(("P01_T1", "P02_T1", "P01_lesion")):
        save(tmp_path / "d" / f"{name}.nii.gz", head((16, 18, 17), seed=number), zooms=(8.0, 8.0, 8.0))

    def run(**options):
        capfd.readouterr()
        extract(
            SlicesConfig((tmp_path / "d",), tmp_path / "store", size=32, spacing=30.0, workers=1, **options)
        )
        return capfd.readouterr().err

    def of_pretraining():
        return [line for line in remarks(SliceStore.open(tmp_path / "store")) if "left out today" in line]

    assert "left out today" not in run(include=("labels",))
    assert SliceStore.open(tmp_path / "store").manifest["asked_for"] == ["d/P01_lesion.nii.gz"]
    assert "left out today" not in run()  # it stays asked for
    assert of_pretraining() == []
    journal, manifest = tmp_path / "store" / "volumes.jsonl", tmp_path / "store" / "manifest.json"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:
        line.pop("asked_for", None)
        line.pop(CHECKSUM)
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    content = read_object(manifest)
    del content["asked_for"]
    manifest.write_text(json.dumps(content))
    (line,) = (line for line in run().splitlines() if "left out today" in line)
    assert "1 of 3 volumes" in line
    assert "such as d/P01_lesion.nii.gz: a label or mask image by its name (lesion)" in line
    assert "another --out" in line
    (line,) = of_pretraining()
    assert "1 of 3 volumes" in line
    assert "another --out" in line
