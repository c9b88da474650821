"""Within one source: other models, the same folds, the source's labels, and a verdict that tells where it differs."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest

from mri_transfer.datasets.tumors.tumors import load_tumors
from mri_transfer.finetune.compare import compare
from mri_transfer.finetune.comparison.one_source_verdict import with_one_source
from mri_transfer.finetune.config import CompareConfig
from mri_transfer.finetune.data.one_source import NONE, one_source
from mri_transfer.finetune.data.protocol import grouped_splits
from mri_transfer.finetune.data.scored_images import scored_images

SMALL = {"size": 32, "seeds": 1, "folds": 3, "draws": 200, "workers": 1, "arm": ("pixels", "figures")}


@pytest.fixture(scope="module")
def finished(known_set, tmp_path_factory):
    out = tmp_path_factory.mktemp("compare") / "report"
    compare(CompareConfig(tumors=known_set[0], out=out, **SMALL))
    return out, json.loads((out / "report.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def cell(known_set, finished):
    tumors = load_tumors(known_set[0], 32, cache=finished[0] / "cache")
    splits = list(grouped_splits(tumors.labels, tumors.groups, folds=3, seeds=(0,)))
    subset, _ = one_source(tumors, scored_images(tumors, "headline"), splits)
    return tumors, splits, subset


def test_the_cell_is_the_recognised_pictures_by_their_sources_labels(cell):
    tumors, splits, subset = cell
    assert np.array_equal(subset.images, tumors.known.bound)
    for image in np.flatnonzero(subset.images):
        assert tumors.known.tumours[image] in subset.classes[subset.labels[image]]
    assert (subset.labels[~subset.images] == -1).all()
    assert len(subset.classes) == 3
    for whole, within in zip(splits, subset.within(splits), strict=True):
        assert set(within.train) == set(whole.train) & set(np.flatnonzero(subset.images))
        assert set(within.test) == set(whole.test) & set(np.flatnonzero(subset.images))
        persons = np.array(tumors.persons)
        assert not set(persons[within.train]) & set(persons[within.test])


def test_no_picture_from_elsewhere_trains_or_is_scored(finished, cell):
    out, report = finished
    tumors, _, subset = cell
    within = report["one_source"]
    scored = subset.images & scored_images(tumors, "headline").images
    assert within["images"] == scored.sum() < report["images"]
    assert within["classes"] == list(subset.classes)
    rows = list(csv.DictReader((out / "trials.csv").open(encoding="utf-8")))
    own_rows = [row for row in rows if row["split"] == "source"]
    assert len(own_rows) == 2 * 3
    for row in own_rows:
        with np.load(out / "trials" / row["file"]) as trial:
            assert subset.images[trial["test"]].all()
            assert trial["probabilities"].shape[1] == 3
    assert {entry["arm"] for entry in within["results"]} == {"pixels", "figures"}
    assert {floor["floor"] for floor in within["floors"]} == {"pixels", "figures"}


def test_its_scores_are_those_of_models_trained_there_alone(finished, cell):
    """Macro-F1 of nothing but scikit-learn, on the features that the comparison kept."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score

    out, report = finished
    tumors, splits, subset = cell
    (path,) = (out / "features").glob("pixels-*.npz")
    features = np.load(path)["features"]
    rows = [
        row for row in csv.DictReader((out / "trials.csv").open(encoding="utf-8")) if row["split"] == "source"
    ]
    scored = scored_images(tumors, "headline").images & subset.images
    answers = np.full(len(tumors), -1)
    for split in subset.within(splits):
        (row,) = [line for line in rows if (line["arm"], line["fold"]) == ("pixels", str(split.fold))]
        mean, scale = features[split.train].mean(0), features[split.train].std(0)
        scale[scale <= 1e-6 * np.abs(mean)] = 1
        model = LogisticRegression(C=float(row["strength"]), max_iter=5000)
        model.fit((features[split.train] - mean) / scale, subset.labels[split.train])
        answers[split.test] = model.predict((features[split.test] - mean) / scale)
    score = f1_score(subset.labels[scored], answers[scored], average="macro")
    entry = next(result for result in report["one_source"]["results"] if result["arm"] == "pixels")
    assert entry["macro_f1"]["estimate"] == pytest.approx(score, abs=0.02)


def test_one_family_of_pairs_over_both_cells(finished):
    _, report = finished
    assert report["compared"] == len(report["pairs"]) + len(report["one_source"]["pairs"]) == 2
    pairs = [*report["pairs"], *report["one_source"]["pairs"]]
    least = min(pair["p_value"] for pair in pairs)
    assert min(pair["p_holm"] for pair in pairs) == pytest.approx(min(1, 2 * least))


def test_scores_by_source_are_those_of_the_models_of_all_images(finished, cell):
    tumors, _, subset = cell
    report = finished[1]
    scored = scored_images(tumors, "headline").images
    entry = next(result for result in report["by_source"] if result["arm"] == "pixels")
    assert list(entry["sources"])[-1] == ""
    assert sum(source["images"] for source in entry["sources"].values()) == report["images"]
    assert entry["sources"][subset.source]["images"] == (subset.images & scored).sum()
    whole = next(result for result in report["results"] if result["arm"] == "pixels")["accuracy"]["estimate"]
    parts = entry["sources"].values()
    assert sum(p["images"] * p["accuracy"] for p in parts) / report["images"] == pytest.approx(whole)


def test_the_page_says_it_on_its_first_screen(finished):
    page = (finished[0] / "report.html").read_text(encoding="utf-8")
    assert page.index("Within one source (") < page.index("<main")
    assert '<h2 id="one-source">' in page
    assert "not recognised" in page


@pytest.mark.slow
def test_it_can_be_left_out(known_set, finished, tmp_path):
    out = tmp_path / "report"
    shutil.copytree(finished[0], out)
    summary = compare(CompareConfig(tumors=known_set[0], out=out, one_source="none", **SMALL))
    assert summary["one_source"] == []
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["results"] == finished[1]["results"]
    assert report["one_source"] is None


def test_labels_are_the_sources_whatever_is_believed_elsewhere(cell):
    tumors, splits, subset = cell
    other = dataclasses.replace(tumors, labels=np.zeros_like(tumors.labels))
    repeated, _ = one_source(other, scored_images(tumors, "headline"), splits)
    assert np.array_equal(repeated.labels, subset.labels)


def test_without_enough_pictures_of_each_class_there_is_none_and_why(cell):
    tumors, splits, _ = cell
    scored = scored_images(tumors, "headline")
    glioma = np.array([tumour == "glioma" for tumour in tumors.known.tumours])
    few = dataclasses.replace(scored, images=scored.images & ~glioma)
    subset, words = one_source(tumors, few, splits)
    assert subset is None
    assert "too few are in a class" in words
    nobody = dataclasses.replace(tumors.known, sources=("",) * len(tumors))
    assert one_source(dataclasses.replace(tumors, known=nobody), scored, splits) == (None, NONE)


def cell_of(difference, p, mode="probe", fraction=1.0):
    pair = {
        **{"a": "mri", "b": "imagenet", "mode": mode, "fraction": fraction, "p_value": p, "p_holm": p},
        "difference": {"estimate": difference, "low": difference - 0.02, "high": difference + 0.02},
        **{"p_a_better": 0.99 if difference > 0 else 0.01, "smallest_detectable": 0.03},
    }
    return {"images": 100, "groups": 30, "classes": ["a", "b", "c"], "pairs": [pair]}


def answer(outcome, short):
    return {
        **{"arm": "mri", "baseline": "imagenet", "outcome": outcome, "mode": "probe", "fraction": 1.0},
        **{"short": short, "sentence": "It is so."},
    }


@pytest.mark.parametrize(
    ("pooled", "difference", "p", "agrees", "title"),
    [
        ("ahead", 0.05, 0.001, True, "T"),
        ("ahead", 0.01, 0.4, False, "T on all images, but that is not shown within one source"),
        ("ahead", -0.05, 0.001, False, "T on all images; within one source ImageNet is"),
        ("no difference", 0.01, 0.4, True, "T"),
        ("not settled", 0.01, 0.4, True, "T"),
        (
            "no difference",
            0.05,
            0.001,
            False,
            "T on all images; within one source This encoder is the better start",
        ),
    ],
)
def test_the_verdict_says_where_one_source_differs(pooled, difference, p, agrees, title):
    conclusion = with_one_source({"one_source": cell_of(difference, p)}, answer(pooled, "T"))
    assert conclusion["one_source"]["agrees"] == agrees
    assert conclusion["short"] == title
    assert (conclusion["one_source"]["sentence"] in conclusion["sentence"]) != agrees
    assert conclusion["one_source"]["sentence"].startswith(
        "Within one source (100 images of 30 persons, 3 classes; "
    )


def test_the_pair_is_that_of_the_headlines_mode_where_there_is_one():
    report = {"one_source": cell_of(0.01, 0.4, "nearest")}
    report["one_source"]["pairs"] += cell_of(0.05, 0.001, "probe")["pairs"]
    assert with_one_source(report, answer("ahead", "T"))["one_source"]["mode"] == "probe"
    assert (
        with_one_source(report, answer("ahead", "T") | {"mode": "finetune"})["one_source"]["mode"] == "probe"
    )
    assert with_one_source(report, answer("ahead", "T") | {"arm": "other"})["one_source"] is None
