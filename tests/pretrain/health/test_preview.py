import json

import numpy as np
import pytest
from PIL import Image

from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.pretrain.augmentations.table import NAMES
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.health.preview import sample_views, single_augmentations
from mri_transfer.pretrain.pairs.positives import PairSampler


@pytest.fixture
def config(small_store, tmp_path):
    return PretrainConfig(store=small_store, out=tmp_path / "r", steps=1, seed=3)


def test_samples_are_the_pairs_and_views_of_a_run(small_store, config):
    store = SliceStore.open(small_store)
    samples = sample_views(store, config, pairs=5, count=2)
    sampler = PairSampler(store, positives="adjacent", max_mm=6, batch=5, seed=3)
    for side, index in zip("ab", sampler.indices(0), strict=True):
        np.testing.assert_array_equal(samples[f"index_{side}"], index)
        np.testing.assert_array_equal(samples[side], store.images(index))
        views = samples[f"views_{side}"]
        assert (views.shape, views.dtype) == ((5, 2, 48, 48), np.uint8)
        assert np.abs(views[:, 0].astype(int) - views[:, 1]).mean() > 2
        # Views are of their own slices: their histograms tell which.
        assert views.mean((1, 2, 3)).min() > 5
    assert samples["kind"].tolist() == ["adjacent"] * 5


def test_each_augmentation_is_shown_alone_on_its_slice(small_store, config):
    import dataclasses

    images = SliceStore.open(small_store).images([40, 60])
    config = dataclasses.replace(config, view=("jpeg=0",))
    singles = single_augmentations(images, config, 48, 2)
    assert list(singles) == [name for name in NAMES if name != "jpeg"]
    for number, (name, tiles) in enumerate(singles.items()):
        np.testing.assert_array_equal(tiles[0], images[number % 2])
        changed = np.abs(tiles[1:].astype(int) - tiles[0]).mean((1, 2))
        assert changed.max() > 0.2, name
    np.testing.assert_array_equal(singles["flip"][1], singles["flip"][0][:, ::-1])
    # To the one end and to the other.
    first, second = singles["brightness"][1:].mean((1, 2)) - singles["brightness"][0].mean()
    assert first * second < 0


def test_the_preview_is_a_picture_and_leaves_no_run(small_store, cli, tmp_path):
    file, summary = tmp_path / "views.png", tmp_path / "summary.json"
    options = ("--preview", file, "--view", "jpeg=0", "--json", summary)
    done = cli("pretrain", small_store, "--out", tmp_path / "r", *options)
    assert done.returncode == 0, done.stderr
    picture = np.asarray(Image.open(file))
    assert picture.shape[1] > 8 * 128
    assert picture.std() > 30
    content = json.loads(summary.read_text())
    assert content["kinds"] == ["adjacent"] * 8
    assert "noise" in content["augmentations"]
    assert "jpeg" not in content["augmentations"]
    assert not (tmp_path / "r").exists()


def test_options_that_make_no_sense_are_told_so(small_store, cli, capfd, tmp_path):
    for option, value, says in (
        ("--view", "jpg=0", "there are crop"),
        ("--view", "jpeg", "NAME=X"),
        ("--positives", "near", "there are adjacent, sequence, same"),
    ):
        with pytest.raises(SystemExit) as error:
            cli("pretrain", small_store, "--out", tmp_path / "r", "--steps", 1, option, value)
        assert error.value.code == 2
        assert says in capfd.readouterr().err.strip().splitlines()[-1]


def test_a_store_without_other_sequences_is_told_so(small_store, refuses, tmp_path):
    options = ("--out", tmp_path / "r", "--steps", 1, "--positives", "sequence")
    refuses("pretrain", small_store, *options, words=("no slice has a partner", "--positives adjacent"))
    assert not (tmp_path / "r").exists()
