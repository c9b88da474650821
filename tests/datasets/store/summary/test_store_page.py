"""The page about a store: it tells all of it, holds everything it shows, and no name can break it."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image

from mri_transfer.datasets.extraction.extract import SlicesConfig, extract
from mri_transfer.datasets.extraction.licences import find_licences
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.datasets.store.summary.store_charts import neighbour_likeness
from tests.html_page import Page

EVIL = "<script>alert(1)</script>&amp;_T2"


def read(store) -> tuple[str, str]:
    html = (store / "summary.html").read_text(encoding="utf-8")
    page = Page(html)
    assert not page.open
    return html, page.text


@pytest.fixture
def volumes(tmp_path, head, save):
    folder = tmp_path / "collection"
    for number in range(3):
        for sequence in ("T1", "FLAIR"):
            voxels = head((30, 36, 32), seed=10 * number + len(sequence))
            save(folder / "a" / f"p{number}_{sequence}.nii.gz", voxels, zooms=(5.0, 5.0, 5.0))
    save(folder / f"{EVIL.replace('/', '∕')}.nii", head((30, 36, 32), seed=99), zooms=(5.0, 5.0, 5.0))
    (folder / "a" / "copy_T1.nii.gz").write_bytes((folder / "a" / "p0_T1.nii.gz").read_bytes())
    for number in range(3):
        (folder / f"broken{number}.nii").write_text("x" * 1000)
    (folder / "a" / "LICENSE").write_text("You may look, <b>not</b> touch.")
    (folder / "dataset_description.json").write_text(json.dumps({"License": "CC0", "Name": "d"}))
    return folder


def config(volumes, **options):
    return SlicesConfig((volumes,), volumes.parent / "store", size=32, workers=1, **options)


def test_it_tells_all_of_the_store_and_loads_nothing(volumes):
    summary = extract(config(volumes))
    html, text = read(volumes.parent / "store")
    page = Page(html)
    assert all(address.startswith(("data:image/", "#")) for address in page.addresses)
    assert not page.tags & {"script", "link", "iframe"}
    assert "url(http" not in html
    cut = summary["slices"] + summary["redundant"]
    assert f"{summary['slices']:,} slices of {summary['subjects']} subjects" in text
    share = f"{100 * summary['redundant'] / cut:.1f}%"
    assert f"{summary['redundant']:,} of {cut:,} slices dropped as redundant ({share})" in text
    for sequence, count in summary["by_sequence"].items():
        assert f"collection{sequence}" in text.replace(" ", "")
        assert f"{count:,}" in text
    for plane, count in summary["by_plane"].items():
        assert f"{count:,} {plane}" in text
    for skip in summary["skipped"]:
        assert skip["file"] in text
    assert "the same scan as collection/a/copy_T1.nii.gz" in text
    assert '<td class="n">3</td><td>not a volume' in html
    assert "You may look, <b>not</b> touch." in text
    assert "Licence: CC0" in text
    assert summary["fingerprint"] in text
    assert "nibabel" in text
    assert "script>alert" in text  # as text, and only so
    assert "generated" not in text


def test_its_pictures_are_those_of_the_store(volumes):
    extract(config(volumes))
    store = SliceStore.open(volumes.parent / "store")
    html, _ = read(volumes.parent / "store")
    assert html.count("data:image/jpeg") == len(re.findall("<img", html)) == 3 * 16
    with Image.open(volumes.parent / "store" / "contact_sheet.png") as sheet:
        assert sheet.width > 8 * 160
    values = neighbour_likeness(store)
    images = store.images(range(len(store))).astype(np.float64).reshape(len(store), -1)
    same = [
        np.corrcoef(images[index], images[index + 1])[0, 1]
        for index in range(len(store) - 1)
        if store.table["volume"][index] == store.table["volume"][index + 1]
        and store.table["plane"][index] == store.table["plane"][index + 1]
    ]
    np.testing.assert_allclose(values, same, atol=1e-6)  # at 32 px a small picture is the slice itself
    assert values.max() <= 0.97


def test_what_is_generated_says_so_everywhere(volumes):
    extract(config(volumes, banner="generated heads, <no> evidence"))
    html, text = read(volumes.parent / "store")
    assert "[generated heads, &lt;no&gt; evidence]" in html
    figures = html.count("<figcaption>")
    assert figures >= 5
    assert text.count("generated heads, <no> evidence") >= figures + 3


def test_pictures_of_no_known_plane(tmp_path):
    for subject in ("anna", "bert"):
        (tmp_path / "pictures" / subject).mkdir(parents=True)
        for number in range(3):
            pixels = np.random.default_rng([number, len(subject), ord(subject[0])]).integers(0, 256, (50, 40))
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "pictures" / subject / f"{number}.png")
    extract(SlicesConfig((tmp_path / "pictures",), tmp_path / "store", size=32, images=True, workers=1))
    _, text = read(tmp_path / "store")
    assert "Unknown" in text
    assert "6 unknown" in text
    assert "mm</p>" not in text


def test_it_is_written_again_when_something_changed_or_it_is_gone(volumes, head, save, monkeypatch):
    page = volumes.parent / "store" / "summary.html"
    extract(config(volumes))
    first = page.stat().st_mtime_ns
    extract(config(volumes))
    assert page.stat().st_mtime_ns == first
    page.unlink()
    extract(config(volumes))
    assert page.is_file()
    save(volumes / "new_PD.nii", head((30, 36, 32), seed=5), zooms=(5.0, 5.0, 5.0))
    # Stopped after the manifest and before the page: the old page must not stand beside the new store.
    with monkeypatch.context() as patch:
        patch.setattr("mri_transfer.datasets.store.summary.store_page.write_page", _stop)
        with pytest.raises(KeyboardInterrupt):
            extract(config(volumes))
    assert not page.is_file()
    extract(config(volumes))
    assert "PD" in read(volumes.parent / "store")[1]


def _stop(*_):
    raise KeyboardInterrupt


def test_licences_beside_the_sources_and_no_others(tmp_path):
    deep = tmp_path / "project" / "ds1" / "sub-1" / "anat"
    (deep / "more").mkdir(parents=True)
    texts = {
        tmp_path / "project" / "LICENSE": "of the project, not of the data",
        tmp_path / "project" / "ds1" / "dataset_description.json": '{"License": "CC0"}',
        tmp_path / "project" / "ds1" / "COPYING.md": "copy" * 2000,
        deep.parent / "TERMS-ixi.txt": "ask",
        deep.parent / "licence.txt": "above, and not of the dataset",
        deep / "licence.txt": "yes",
        deep / "license.png": "a picture",
        deep / "notes.txt": "no licence",
        deep / "more" / "Data Use Agreement.txt": "sign",
    }
    for path, text in texts.items():
        path.write_text(text)
    licences = {licence["file"]: licence["text"] for licence in find_licences([deep, deep])}
    assert list(licences) == [
        "anat/licence.txt",
        "more/Data Use Agreement.txt",
        "ds1/COPYING.md",
        "ds1/dataset_description.json",
        "sub-1/TERMS-ixi.txt",
    ]
    assert licences["ds1/dataset_description.json"] == "Licence: CC0"
    assert 2000 < len(licences["ds1/COPYING.md"]) < 2010
    (deep / "a.nii").write_text("x")
    assert list(find_licences([deep / "a.nii"])) == list(find_licences([deep]))
