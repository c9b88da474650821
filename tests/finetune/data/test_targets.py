"""Encoders of single folds: the stores they are pretrained on, and the proof that they saw no test image."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.datasets.tumors.tumors import load_tumors
from mri_transfer.errors import UserError
from mri_transfer.finetune.arms.arms import Arm
from mri_transfer.finetune.arms.leakage import check_splits
from mri_transfer.finetune.compare import compare
from mri_transfer.finetune.config import CompareConfig
from mri_transfer.finetune.data.protocol import grouped_splits
from mri_transfer.finetune.data.targets import write_target_stores

SETTINGS = {"size": 48, "folds": 2, "seeds": 2}


@pytest.fixture(scope="module")
def folder(write_patients, tmp_path_factory):
    return write_patients(tmp_path_factory.mktemp("target") / "set", patients=20, images=2, signal=0.3)


@pytest.fixture(scope="module")
def stores(folder, tmp_path_factory) -> Path:
    """Written by the command."""
    out = tmp_path_factory.mktemp("stores") / "stores"
    config = CompareConfig(tumors=folder, out=out.parent / "report", target_stores=out, **SETTINGS)
    summary = compare(config)
    assert [Path(store).name for store in summary["target_stores"]] == [
        f"seed-{seed}-fold-{fold}" for seed, fold in itertools.product(range(2), range(2))
    ]
    return out


@pytest.fixture(scope="module")
def tumors(folder):
    return load_tumors(folder, 48)


@pytest.fixture(scope="module")
def splits(tumors):
    return list(grouped_splits(tumors.labels, tumors.groups, folds=2, seeds=(0, 1)))


def target(stores: dict[tuple[int, int], Path], **changes) -> Arm:
    """An arm whose encoders' cards say that each was pretrained on the given store."""
    cards = {
        f"run-{seed}-{fold}": {
            "provenance": {
                "config": {"store": str(path)},
                "data": {"fingerprint": SliceStore.open(path).fingerprint},
            }
            | changes
        }
        for (seed, fold), path in stores.items()
    }
    return Arm("target", "run-{seed}-{fold}", "any", cards)


def own(stores: Path) -> dict[tuple[int, int], Path]:
    return {
        (seed, fold): stores / f"seed-{seed}-fold-{fold}"
        for seed, fold in itertools.product(range(2), range(2))
    }


def test_a_store_holds_the_training_images_of_its_split_and_no_label(stores, tumors, splits):
    for split in splits:
        store = SliceStore.open(stores / f"seed-{split.seed}-fold-{split.fold}")
        store.verify()
        np.testing.assert_array_equal(store.images(slice(None)), tumors.images[split.train])
        assert len(set(store.table["subject"])) == len(np.unique(tumors.groups[split.train]))
        text = (store.folder / "slices.csv").read_text()
        # The paths of images name their class.
        assert "/" not in text
        assert ".png" not in text


def test_written_again_it_is_the_same_store(stores, tumors, splits):
    before = [
        (stores / "seed-1-fold-0" / name).stat().st_mtime_ns for name in ("manifest.json", "slices.csv")
    ]
    write_target_stores(stores, tumors, 48, splits)
    after = [(stores / "seed-1-fold-0" / name).stat().st_mtime_ns for name in ("manifest.json", "slices.csv")]
    assert after == before


def test_encoders_of_their_own_folds_pass(stores, tumors, splits):
    checked = check_splits(tumors, [target(own(stores))], splits)
    assert checked == {"target": {"encoders": 4, "stores": 4, "test_images_found": 0}}


@pytest.mark.parametrize("swap", [((0, 0), (0, 1)), ((0, 0), (1, 0))])
def test_the_encoder_of_another_fold_or_seed_is_refused(stores, tumors, splits, swap):
    mixed = own(stores)
    mixed[swap[0]], mixed[swap[1]] = mixed[swap[1]], mixed[swap[0]]
    with pytest.raises(
        UserError, match=r"--arm target: run-0-0: \d+ test images of seed 0, fold 0 are among"
    ):
        check_splits(tumors, [target(mixed)], splits)


def test_no_label_fraction_escapes_the_check(stores, tumors):
    few = list(grouped_splits(tumors.labels, tumors.groups, folds=2, seeds=(0, 1), fractions=(0.5,)))
    mixed = own(stores)
    mixed[0, 0], mixed[0, 1] = mixed[0, 1], mixed[0, 0]
    with pytest.raises(UserError, match="test images of seed 0, fold 0"):
        check_splits(tumors, [target(mixed)], few)


def test_an_altered_copy_of_a_test_image_is_found(stores, tumors, splits, tmp_path):
    """In a store of other size, flipped: there its pixels are nobody's."""
    from PIL import Image

    from mri_transfer.datasets.store.writer import StoreWriter

    split = splits[0]
    pictures = [tumors.images[split.train[0]], tumors.images[split.test[5]][:, ::-1]]
    with StoreWriter(tmp_path / "store", {"size": 64}) as writer:
        for number, image in enumerate(pictures):
            picture = np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((64, 64)))
            entry = {"subject": f"s{number}", "session": "", "sequence": "", "source": "x", "sha256": ""}
            places = {"planes": ["unknown"], "position_mm": [0.0], "position": [0.5]}
            writer.add(entry | places, picture[None])
        writer.finish()
    folders = own(stores) | {(0, 0): tmp_path / "store"}
    with pytest.raises(UserError, match=r"\d test images of seed 0, fold 0"):
        check_splits(tumors, [target(folders)], splits)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": {}}, "does not say what it was pretrained on"),
        ({"data": {"fingerprint": "other"}}, "has changed since"),
        ({"config": {"store": "gone"}}, "can't be ruled out without the slices"),
    ],
)
def test_what_cannot_be_shown_is_refused(stores, tumors, splits, changes, message):
    with pytest.raises(UserError, match=message):
        check_splits(tumors, [target(own(stores), **changes)], splits)


@pytest.mark.slow
def test_from_the_stores_to_the_report(folder, stores, tmp_path, cli):
    """As a user does it: pretrain on every store, compare, with a path that has places for seed and fold."""
    for store in sorted(stores.glob("seed-0-*")):
        done = cli(
            *("pretrain", store, "--out", tmp_path / "runs" / store.name, "--positives", "same"),
            *("--steps", 1, "--batch", 4, "--backbone", "mobilenet_v3_small"),
        )
        assert done.returncode == 0, done.stderr
    arm = f"target={tmp_path}/runs/seed-{{seed}}-fold-{{fold}}"
    options = ("--size", 48, "--folds", 2, "--seeds", 1, "--draws", 100, "--workers", 1)
    done = cli("compare", folder, "--arm", "pixels", "--arm", arm, "--out", tmp_path / "report", *options)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["leaks"]["splits"]["target"] == {"encoders": 2, "stores": 2, "test_images_found": 0}
    arms = {entry["name"]: entry for entry in report["arms"]}
    assert len(arms["target"]["sha256"]) == 2
    assert {entry["arm"] for entry in report["published"]} == {"pixels"}
    # The two of them the wrong way round.
    (tmp_path / "runs" / "seed-0-fold-0").rename(tmp_path / "runs" / "seed-0-fold-2")
    (tmp_path / "runs" / "seed-0-fold-1").rename(tmp_path / "runs" / "seed-0-fold-0")
    (tmp_path / "runs" / "seed-0-fold-2").rename(tmp_path / "runs" / "seed-0-fold-1")
    done = cli("compare", folder, "--arm", "pixels", "--arm", arm, "--out", tmp_path / "other", *options)
    assert done.returncode == 2
    assert "test images of seed 0, fold 0 are among its pretraining slices" in done.stderr
