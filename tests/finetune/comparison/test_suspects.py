"""Suspicious labels: planted wrong ones rank first, by the method of Northcutt et al. written out once more."""

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mri_transfer.finetune.comparison.results import Predictions
from mri_transfer.finetune.comparison.suspects import SHOWN, chosen_arm, find, rank


def plain_issues(probabilities, labels):
    """The off-diagonal of the confident joint, image by image (equation 2 of the paper)."""
    classes = probabilities.shape[1]
    usual = [
        np.mean([p[j] for p, y in zip(probabilities, labels, strict=True) if y == j])
        if j in labels
        else np.inf
        for j in range(classes)
    ]
    issues = []
    for p, y in zip(probabilities, labels, strict=True):
        sure = [j for j in range(classes) if p[j] >= usual[j]]
        issues.append(bool(sure) and max(sure, key=lambda j: p[j]) != y)
    return issues


@given(st.integers(0, 10_000), st.integers(2, 5))
def test_issues_are_the_off_diagonal_of_the_confident_joint(seed, classes):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=40)
    probabilities = rng.dirichlet(np.ones(classes), 40)
    ranking = rank(probabilities, labels)
    assert ranking.issue.tolist() == plain_issues(probabilities, labels.tolist())
    assert sorted(ranking.order.tolist()) == list(range(40))
    assert (ranking.suggested != labels).all()
    issues = ranking.issue[ranking.order]
    assert (np.diff(issues.astype(int)) <= 0).all()  # issues first
    own = probabilities[np.arange(40), labels]
    unusual = own - np.array([own[labels == label].mean() for label in labels])
    for rows in (issues, ~issues):
        assert (np.diff(unusual[ranking.order][rows]) >= -1e-12).all()


def simulated(wrong=12, n=400, seed=0):
    """Answers that are right about the truth, and labels of which a few are not."""
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % 4
    labels = truth.copy()
    labels[:wrong] = (truth[:wrong] + 1) % 4
    logits = rng.normal(0, 1, (3, n, 4)) + 4 * np.eye(4)[truth]
    probabilities = (np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)).astype(np.float32)
    flat = np.full_like(probabilities, 0.25)
    return Predictions(
        arms=("random", "mri", "imagenet"),
        classes=("a", "b", "c", "d"),
        labels=labels,
        groups=np.arange(n) // 2,
        seeds=(0, 1, 2),
        probabilities={
            ("random", "probe", 1.0): flat,
            ("mri", "probe", 1.0): probabilities,
            ("imagenet", "probe", 1.0): flat,
            ("mri", "probe", 0.1): flat,
            ("random", "finetune", 1.0): flat,
        },
        kinds={"random": "random", "mri": "encoder", "imagenet": "imagenet"},
    )


def test_planted_wrong_labels_rank_first_and_are_written(tmp_path):
    predictions = simulated()
    assert chosen_arm(predictions) == ("mri", "probe", 1.0)
    report = find(predictions, [f"{n}.png" for n in range(400)], tmp_path / "suspicious_labels.csv")
    assert {entry["index"] for entry in report["first"][:12]} == set(range(12))
    assert 8 <= report["issues"] < 40
    with (tmp_path / "suspicious_labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["rank"]) for row in rows] == list(range(1, 401))
    assert [row["file"] for row in rows[:100]] == [entry["file"] for entry in report["first"]]
    assert rows[0]["label"] != rows[0]["suggested"]
    assert float(rows[0]["p_label"]) < float(rows[0]["p_suggested"])
    assert sum(int(row["issue"]) for row in rows) == report["issues"]
    # One of a group of two, and nothing but issues.
    entries = [report["first"][place - 1] for place in report["shown"]]
    assert len(entries) <= SHOWN
    assert len({entry["index"] // 2 for entry in entries}) == len(entries)
    assert all(entry["issue"] for entry in entries)


def test_the_rule_takes_a_control_only_where_there_is_nothing_else():
    predictions = simulated()
    controls = {cell: values for cell, values in predictions.probabilities.items() if cell[0] == "random"}
    alone = Predictions(
        **{
            **predictions.__dict__,
            "probabilities": controls,
            "arms": ("random",),
            "kinds": {"random": "random"},
        }
    )
    assert chosen_arm(alone) == ("random", "probe", 1.0)


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 1]])
def test_a_class_without_images_is_never_suggested_with_confidence(labels):
    ranking = rank(np.array([[0.2, 0.2, 0.6]] * 3), np.array(labels))
    assert not (ranking.issue & (ranking.suggested == 2)).any()
