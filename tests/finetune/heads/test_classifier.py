"""A classifier whose files were changed, with fitting checksums, is refused before it answers anything."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from mri_transfer.checkpoints.encoders import read_card
from mri_transfer.cli import main
from mri_transfer.errors import UserError
from mri_transfer.finetune.config import RUN_KIND
from mri_transfer.finetune.heads.classifier import CARD, build_classifier, load_classifier, save_classifier
from mri_transfer.finetune.prediction.out_of_distribution import fit, save_in_distribution
from mri_transfer.storage.arrays import read_arrays
from mri_transfer.storage.files import claim_folder, read_object, sha256, write_card
from tests.pretrain.small_network import build_small

PROVENANCE = {"start": {"init": "random", "backbone": "mobilenet", "seed": 0}, "method": "fine-tuning"}


@pytest.fixture
def run(tmp_path):
    claim_folder(tmp_path / "run", RUN_KIND)
    rng = np.random.default_rng(0)
    head = {
        "mean": np.zeros(12),
        "scale": np.ones(12),
        "kernel": rng.normal(size=(12, 2)),
        "bias": np.zeros(2),
    }
    classifier = build_classifier(
        build_small(), ("a", "b"), **{name: array.astype(np.float32) for name, array in head.items()}
    )
    save_classifier(classifier, tmp_path / "run", backbone="mobilenet", provenance=PROVENANCE)
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr("mri_transfer.checkpoints.encoders.build_encoder", build_small)


def change_weights(run, change):
    """Change the first array of the encoder; returns its file."""
    card = read_card(run)
    path = run / "encoder" / card["weights"]
    arrays = read_arrays(path, card["weights_sha256"])
    name = next(iter(arrays))
    np.savez(path, **arrays | {name: change(arrays[name])})
    for file, field in (("encoder/encoder.json", "weights_sha256"), (CARD, "encoder_sha256")):
        write_card(run / file, read_object(run / file) | {field: sha256(path)})
    return path.name


@pytest.mark.parametrize(
    "change",
    [
        lambda array: np.full_like(array, np.nan),
        lambda array: np.full_like(array, np.inf),
        lambda array: array.astype(complex),
        lambda array: np.full(array.shape, "abc"),
    ],
)
def test_weights_that_are_no_numbers(run, change):
    name = change_weights(run, change)
    with pytest.raises(
        UserError, match=rf"{name}: holds (numbers that are not finite|no arrays).*; copy it again"
    ):
        load_classifier(run)


def test_a_head_that_is_no_numbers(run):
    card = read_object(run / CARD)
    path = run / card["head"]
    arrays = read_arrays(path, card["head_sha256"])
    np.savez(path, **arrays | {"kernel": arrays["kernel"] * np.nan})
    write_card(run / CARD, card | {"head_sha256": sha256(path)})
    with pytest.raises(UserError, match=rf"{path.name}: holds numbers that are not finite \(kernel\); "):
        load_classifier(run)


def test_a_head_whose_name_no_file_can_have(run):
    write_card(run / CARD, read_object(run / CARD) | {"head": "a\0.npz"})
    with pytest.raises(UserError, match="is missing; "):
        load_classifier(run)


@pytest.mark.parametrize("size", [0, 2000, 99_999])
def test_a_size_that_no_training_has(run, size):
    """It would be the memory of a network on images of this size."""
    write_card(run / CARD, read_object(run / CARD) | {"size": size})
    with pytest.raises(UserError, match=r"classifier\.json: is damaged \(size\); "):
        load_classifier(run)
    path = run / "encoder" / "encoder.json"
    write_card(path, read_object(path) | {"size": size})
    with pytest.raises(
        UserError, match=r"encoder\.json: is not the card of an encoder \(weights or size\); "
    ):
        read_card(run)


@pytest.mark.parametrize("start", [{"init": []}, {"source": 5}, {"scale_of": "x"}])
def test_a_start_that_is_none(run, start):
    path = run / "encoder" / "encoder.json"
    write_card(path, read_object(path) | {"provenance": PROVENANCE | {"start": start}})
    with pytest.raises(UserError, match=r"provenance: start: (init|source|scale_of)\); "):
        load_classifier(run)


def test_answers_without_a_threshold_are_json(run, tmp_path):
    features = np.random.default_rng(1).normal(size=(60, 12))
    save_in_distribution(fit(features, features[:0]), run)
    Image.fromarray(np.full((40, 40), 99, np.uint8)).save(tmp_path / "picture.png")
    out = tmp_path / "out.json"
    assert main(["predict", str(run), str(tmp_path / "picture.png"), "--json", str(out), "--quiet"]) == 0
    assert json.loads(out.read_text())["images"][0]["threshold"] is None
