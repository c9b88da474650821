"""The sheet shows every plane, and slices from many subjects and heights rather than the first ones."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mri_transfer.datasets.extraction.extract import SlicesConfig, extract
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.datasets.store.summary.contact_sheet import choose, write_contact_sheet


@pytest.fixture
def store(tmp_path, head, save):
    for number in range(6):
        for sequence in ("T1", "T2"):
            path = tmp_path / "v" / f"p{number}_{sequence}.nii.gz"
            voxels = head((24, 28, 26), seed=number + 10 * (sequence == "T2"))
            save(path, voxels, zooms=(5.0, 5.0, 5.0 if number else 15.0))
    extract(SlicesConfig((tmp_path / "v",), tmp_path / "store", size=32, max_correlation=1.0, workers=1))
    return SliceStore.open(tmp_path / "store")


def test_slices_are_chosen_evenly(store):
    for plane in ("axial", "coronal", "sagittal"):
        chosen = choose(store, plane, 8)
        assert len(chosen) == len(set(chosen)) == 8
        assert set(store.table["plane"][chosen]) == {plane}
        assert np.unique(store.table["sequence"][chosen], return_counts=True)[1].tolist() == [4, 4]
        assert len(set(store.table["subject"][chosen])) >= 4
        assert np.ptp(store.table["position"][chosen]) > 0.3


def test_the_picture_shows_the_slices(store, tmp_path):
    write_contact_sheet(store, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        sheet.load()
        pixels = np.asarray(sheet)
    first = store.images(choose(store, "axial", 24)[:1])[0]
    expected = np.asarray(Image.fromarray(first).resize((160, 160), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(pixels[4:164, 4:164], expected)
    labels = pixels[164:190]
    assert (labels > 100).any()
