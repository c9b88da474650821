"""A store with few people, or with the wrong ones, is talked about before a night is spent on it."""

from __future__ import annotations

import json

import pytest

from mri_transfer.datasets.extraction.extract import SlicesConfig, extract
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.errors import UserError
from mri_transfer.pretrain.pairs.few_people import remarks
from mri_transfer.pretrain.pairs.positives import PairSampler
from mri_transfer.storage.files import read_object


@pytest.fixture(scope="module")
def one_person(small_volumes, tmp_path_factory):
    """A store whose volumes a table gave to one person."""
    folder = tmp_path_factory.mktemp("one")
    names = sorted(path.name for path in small_volumes.iterdir())
    (folder / "t.csv").write_text("file,subject\n" + "".join(f"{name},x\n" for name in names))
    extract(
        SlicesConfig(
            (small_volumes,), folder / "store", size=32, spacing=20.0, workers=1, table=folder / "t.csv"
        )
    )
    return folder / "store"


def test_few_people_are_named_with_the_remedy(small_store):
    (line,) = remarks(SliceStore.open(small_store))
    assert "scans of only 5 people (5 scans)" in line
    assert "slices --subject PATTERN" in line


def test_one_person_is_refused_with_the_remedy_where_contrast_needs_more(one_person):
    store = SliceStore.open(one_person)
    (line,) = remarks(store)  # a table said so
    assert "scans of only one person" in line
    with pytest.raises(UserError, match=r"one subject.*slices --subject PATTERN.*byol"):
        PairSampler(store, positives="adjacent", max_mm=8.0, batch=4, seed=0)


def test_a_store_made_by_single_names_is_told_from_its_own_paths(one_person, tmp_path):
    manifest = read_object(one_person / "manifest.json")
    del manifest["people_decided_together"]
    (one_person / "manifest.json").write_text(json.dumps(manifest))
    lines = remarks(SliceStore.open(one_person))
    assert len(lines) == 2
    assert "5 of 5 volumes seem to be filed under other people" in lines[1]
    assert "sub-00_T1w.nii.gz: x, and by its path sub-00" in lines[1]


def test_many_people_need_no_words(small_store, monkeypatch):
    monkeypatch.setattr("mri_transfer.pretrain.pairs.few_people.FEW", 5)
    assert remarks(SliceStore.open(small_store)) == []
