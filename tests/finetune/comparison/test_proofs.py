"""The protocol tells knowledge from memory: permuted labels, and leaks that are planted.

`test_statistics.py` has the simulations of false alarms, coverage and power.
"""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score

from mri_transfer.finetune.compare import compare
from mri_transfer.finetune.comparison.feature_trials import feature_trial
from mri_transfer.finetune.config import CompareConfig
from mri_transfer.finetune.data.protocol import grouped_splits

CHANCE = 0.25


@pytest.mark.parametrize("mode", ["probe", "nearest"])
def test_labels_permuted_by_group_are_at_chance_in_groups_and_known_by_heart_otherwise(mode, tmp_path):
    """80 groups of four alike images, a label drawn for each group."""
    scores: dict[str, list[float]] = {"groups": [], "images": []}
    for seed in range(2):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(80), 4)
        labels = rng.permutation(np.arange(80) % 4)[groups]
        features = rng.normal(size=(80, 64))[groups] + 0.2 * rng.normal(size=(320, 64))
        np.savez(tmp_path / f"{seed}.npz", features=features.astype(np.float32))
        for name, units in (("groups", groups), ("images", np.arange(320))):
            answers = np.full(320, -1)
            for split in grouped_splits(labels, units, folds=4, seeds=(seed,)):
                (probabilities,), _ = feature_trial(
                    mode, tmp_path / f"{seed}.npz", labels, units, split.train, split.test, seed
                )
                answers[split.test] = probabilities.argmax(-1)
            scores[name].append(f1_score(labels, answers, average="macro"))
    # Two times 80 groups at 1/4: a standard error of 3.4 points.
    assert abs(np.mean(scores["groups"]) - CHANCE) < 0.11
    assert min(scores["images"]) > 0.85


def outcome(folder, out) -> dict:
    """Macro-F1 of pixels' nearest neighbours: the headline, and the published split."""
    config = CompareConfig(
        tumors=folder,
        out=out,
        arm=("pixels", "figures"),
        mode="nearest",
        size=48,
        folds=4,
        seeds=3,
        draws=200,
        workers=1,
    )
    compare(config)
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return {
        "headline": report["results"][0]["macro_f1"]["estimate"],
        "published": report["published"][0]["all"]["macro_f1"],
        "test_identical": report["audit"]["test_identical"],
    }


@pytest.mark.slow
def test_images_with_labels_permuted_by_patient(write_patients, tmp_path):
    folder = write_patients(tmp_path / "set", patients=60, mixed=True)
    scores = outcome(folder, tmp_path / "out")
    assert scores["published"] > 0.9
    assert abs(scores["headline"] - CHANCE) < 0.12


@pytest.mark.slow
def test_leaks_that_are_planted_move_the_published_score_and_not_the_headline(write_patients, tmp_path):
    """Every test image gets a copy among the training images: half to the byte, half compressed and shrunk."""
    honest = write_patients(tmp_path / "honest", patients=64, signal=0.08)
    leaky = tmp_path / "leaky"
    shutil.copytree(honest, leaky)
    for number, path in enumerate(sorted(leaky.glob("Testing/*/*.png"))):
        place = leaky / "Training" / path.parent.name / f"copy {number}"
        if number % 2:
            Image.open(path).resize((56, 56)).save(place.with_suffix(".jpg"), quality=60)
        else:
            shutil.copy(path, place.with_suffix(".png"))
    before, after = outcome(honest, tmp_path / "before"), outcome(leaky, tmp_path / "after")
    assert before["test_identical"] == 0 < after["test_identical"]
    assert 0.4 < before["published"] < 0.85
    assert after["published"] > before["published"] + 0.12
    assert abs(after["headline"] - before["headline"]) < 0.05
