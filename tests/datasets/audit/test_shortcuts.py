"""Shortcuts: found where they were planted, and nowhere else."""

import dataclasses
import json

import numpy as np
import pytest

from mri_transfer.datasets.audit.advice import advice
from mri_transfer.datasets.audit.measure import SIDE, Measurements
from mri_transfer.datasets.audit.shortcuts import FEATURES, common_sizes, find_shortcuts

CLASSES = ("glioma", "meningioma", "none")


def measured(count: int, seed: int, **fields) -> Measurements:
    """Figures that say nothing, but for those given."""
    rng = np.random.default_rng(seed)
    values = {field.name: rng.normal(100, 20, count) for field in dataclasses.fields(Measurements)}
    values |= {
        "mode": np.full(count, "L"),
        "marks": ((),) * count,
        "hints": ((),) * count,
        "small": np.zeros((count, SIDE, SIDE), np.uint8),
    }
    return Measurements(**(values | fields))


def layout(count=240):
    """Labels, groups of four, and splits of a set with so many files."""
    labels = np.repeat(np.arange(3), count // 3)
    groups = np.arange(count) // 4
    splits = np.where(groups % 4 == 0, "Testing", "Training")
    return labels, groups, splits


@pytest.mark.parametrize("seed", range(2))
def test_figures_that_say_nothing_are_no_shortcuts(seed):
    findings = find_shortcuts(measured(240, seed), *layout(), CLASSES)
    assert [entry["feature"] for entry in findings["features"] if entry["shortcut"]] == []
    assert findings["chance"] == pytest.approx(1 / 3)
    assert all(abs(entry["balanced_accuracy"]["estimate"] - 1 / 3) < 0.2 for entry in findings["features"])
    assert "No feature" in findings["sentences"][0]


def test_what_belongs_to_groups_and_not_to_classes_is_no_shortcut():
    labels, groups, splits = layout()
    of_group = np.random.default_rng(5).normal(size=60)[
        groups
    ]  # without whole groups in folds, this names the class
    findings = find_shortcuts(measured(240, 0, contrast=of_group), labels, groups, splits, CLASSES)
    entry = next(entry for entry in findings["features"] if entry["feature"] == "contrast")
    assert not entry["shortcut"]
    assert entry["balanced_accuracy"]["estimate"] < 0.5


def test_a_planted_shortcut_is_ranked_first_and_named():
    labels, groups, splits = layout()
    size = 10_000.0 + 5000 * labels + np.random.default_rng(1).normal(0, 100, len(labels))
    findings = find_shortcuts(measured(240, 2, bytes=size), labels, groups, splits, CLASSES)
    single = [entry for entry in findings["features"] if entry["feature"] != "all"]
    assert single[0]["feature"] == "bytes"
    assert single[0]["shortcut"]
    assert single[0]["balanced_accuracy"]["estimate"] > 0.95
    assert single[0]["transfer"]["test"]["balanced_accuracy"] > 0.95
    assert not next(entry for entry in single if entry["feature"] == "number")["shortcut"]
    assert any("File size alone" in line for line in findings["sentences"])
    json.dumps(findings, allow_nan=False)


def test_a_size_that_holds_in_training_only_is_told():
    labels, groups, splits = layout()
    rng = np.random.default_rng(3)
    width = rng.integers(200, 400, len(labels)).astype(float)
    width[(labels == 0) & (splits == "Training")] = 512
    height = width.copy()
    findings = find_shortcuts(measured(240, 4, width=width, height=height), labels, groups, splits, CLASSES)
    assert findings["sizes"]["size"] == [512, 512]
    shares = {(row["split"], row["class"]): row["share"] for row in findings["sizes"]["table"]}
    assert shares[("Training", "glioma")] == 1
    assert shares[("Testing", "glioma")] == 0
    entry = next(entry for entry in findings["features"] if entry["feature"] == "width")
    assert entry["transfer"]["training"]["recall"][0] > 0.95
    assert entry["transfer"]["test"]["recall"][0] < 0.3
    assert any("does not carry over" in line and "glioma" in line for line in findings["sentences"])


def test_unreadable_and_ungrouped_files_are_left_out():
    labels, groups, splits = layout()
    figures = measured(240, 0)
    figures.width[:4] = np.nan
    groups = np.where(np.arange(240) < 8, -1, groups)
    assert find_shortcuts(figures, labels, groups, splits, CLASSES)["images"] == 232


def test_too_few_groups_are_told_and_not_scored():
    findings = find_shortcuts(
        measured(6, 0),
        np.array([0, 0, 0, 1, 1, 1]),
        np.array([0, 0, 0, 1, 2, 3]),
        np.full(6, "all"),
        ("a", "b"),
    )
    assert findings["features"] == []
    assert "could not be tested" in findings["sentences"][0]


def test_common_size_of_nothing():
    empty = np.array([])
    assert common_sizes(empty, empty, empty, empty, CLASSES) == {"size": None, "table": []}


def test_the_advice_names_features_or_says_that_no_single_one_tells():
    def sentence(*features: str) -> str:
        entries = [
            {"feature": name, "name": FEATURES.get(name, "all of these together"), "shortcut": True}
            for name in features
        ]
        findings = {
            "test_files": 0,
            "test_near_duplicate": 0,
            "readable": 1,
            "distinct": 1,
            "near_duplicate_pairs": 0,
        }
        findings |= {"nearest": {"grouped": None, "alarm": False}, "label_conflicts": [], "skipped": []}
        findings |= {"shortcuts": {"features": entries}, "markings": {"kinds": {}}, "others": {"kinds": {}}}
        findings |= {"sources": {"by_class": {}}, "source_conflicts": []}
        (line,) = advice(findings)
        return line

    assert "anatomy (by figures of the file and the picture together, though by no single one)" in sentence(
        "all"
    )
    assert "anatomy (image width)" in sentence("all", "width")
    five = sentence("width", "height", "bytes", "sharpness", "mean")
    assert "anatomy (image width, image height, file size, sharpness)" in five
    assert "()" not in sentence("all")
