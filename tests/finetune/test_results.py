"""What `summarise` says of predictions, against scikit-learn and by invariance."""

import dataclasses
import json

import numpy as np
import pytest
from sklearn import metrics as reference

from mri_transfer.errors import UserError
from mri_transfer.finetune.results import Predictions, summarise

CLASSES = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")


def make(
    skill, *, seeds=2, groups=60, modes=("probe",), fractions=(1.0,), published=0, random=0, noise=0.3
) -> Predictions:
    """Predictions of arms with a given skill on groups of about six similar images."""
    generator = np.random.default_rng(random)
    group = np.sort(np.concatenate([np.arange(groups), generator.integers(groups, size=5 * groups)]))
    labels = generator.integers(4, size=groups)[group]
    labels[:4] = labels[group == group[0]][0]
    hard = generator.normal(size=(groups, 4))[group] + generator.normal(size=(group.size, 4))

    def predict(strength, truth, base):
        scores = base + strength * np.eye(4)[truth] + noise * generator.normal(size=(seeds, truth.size, 4))
        odds = np.exp(scores)
        return (odds / odds.sum(-1, keepdims=True)).astype(np.float32)

    probabilities = {
        (arm, mode, fraction): predict(strength * (0.5 + 0.5 * fraction), labels, hard)
        for arm, strength in skill.items()
        for mode in modes
        for fraction in fractions
    }
    truth = generator.integers(4, size=published)
    leaked = np.arange(published) < 0.6 * published
    base = generator.normal(size=(published, 4)) * np.where(leaked, 0.1, 2.0)[:, None]
    shown = {(arm, "probe"): predict(s, truth, base) for arm, s in skill.items()} if published else {}
    return Predictions(
        tuple(skill), CLASSES, labels, group, tuple(range(seeds)), probabilities, shown, truth, leaked
    )


def entry(report, arm, mode="probe", fraction=1.0):
    return next(e for e in report["results"] if (e["arm"], e["mode"], e["fraction"]) == (arm, mode, fraction))


def test_estimates_are_means_over_seeds_of_sklearns_scores():
    predictions = make({"random": 1.0, "imagenet": 2.0})
    report = summarise(predictions, draws=50)
    y = predictions.labels
    for arm in predictions.arms:
        found = entry(report, arm)
        p = predictions.probabilities[arm, "probe", 1.0].astype(np.float64)
        guesses = p.argmax(-1)

        def mean(score, *arguments, guesses=guesses, **options):
            return pytest.approx(np.mean([score(y, g, *arguments, **options) for g in guesses]))

        assert found["macro_f1"]["estimate"] == mean(reference.f1_score, average="macro")
        assert found["balanced_accuracy"]["estimate"] == mean(reference.balanced_accuracy_score)
        assert found["accuracy"]["estimate"] == mean(reference.accuracy_score)
        recalls = np.mean([reference.recall_score(y, g, average=None) for g in guesses], axis=0)
        assert [found["recall"][name]["estimate"] for name in CLASSES] == pytest.approx(list(recalls))
        areas = [
            reference.roc_auc_score(y, each / each.sum(-1, keepdims=True), multi_class="ovr") for each in p
        ]
        assert found["auroc"]["estimate"] == pytest.approx(np.mean(areas), rel=1e-5)
        counts = np.mean([reference.confusion_matrix(y, g) for g in guesses], axis=0)
        np.testing.assert_allclose(found["confusion"], counts)
        for name in ("macro_f1", "balanced_accuracy", "accuracy", "auroc", "log_loss", "brier"):
            assert found[name]["low"] < found[name]["estimate"] < found[name]["high"]


def test_the_report_is_json():
    report = summarise(make({"random": 1.0, "imagenet": 2.0}, published=40), draws=50)
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_identical_arms_show_no_difference():
    predictions = make({"imagenet": 2.0, "mri": 2.0})
    same = {("imagenet", "probe", 1.0): predictions.probabilities["imagenet", "probe", 1.0]}
    same["mri", "probe", 1.0] = same["imagenet", "probe", 1.0].copy()
    report = summarise(dataclasses.replace(predictions, probabilities=same), draws=200)
    (pair,) = report["pairs"]
    assert pair["difference"] == {"estimate": 0, "low": 0, "high": 0}
    assert pair["p_value"] == pair["p_holm"] == 1
    assert report["verdict"]["outcome"] == "no difference"
    assert report["verdict"]["sentence"].startswith("No difference shown")


def test_another_arm_changes_nothing_but_the_correction():
    skill = {"imagenet": 2.0, "mri": 2.3}
    predictions = make({**skill, "random": 1.0})
    fewer = dataclasses.replace(
        predictions,
        arms=tuple(skill),
        probabilities={key: p for key, p in predictions.probabilities.items() if key[0] in skill},
    )
    many, few = summarise(predictions, draws=200), summarise(fewer, draws=200)
    for arm in skill:
        assert entry(many, arm) == entry(few, arm)
    ours = next(pair for pair in many["pairs"] if (pair["a"], pair["b"]) == ("imagenet", "mri"))
    assert {**ours, "p_holm": 0} == {**few["pairs"][0], "p_holm": 0}


def test_renamed_groups_and_reordered_classes_change_nothing():
    predictions = make({"imagenet": 2.0, "mri": 2.3})
    report = summarise(predictions, draws=100)
    renamed = dataclasses.replace(predictions, groups=1000 - 3 * predictions.groups)
    assert summarise(renamed, draws=100) == report

    order = np.array([2, 0, 3, 1])
    turned = dataclasses.replace(
        predictions,
        classes=tuple(CLASSES[k] for k in order),
        labels=np.argsort(order)[predictions.labels],
        probabilities={key: p[..., order] for key, p in predictions.probabilities.items()},
    )
    other = summarise(turned, draws=100)
    for arm in predictions.arms:
        for part, value in entry(report, arm)["macro_f1"].items():
            assert entry(other, arm)["macro_f1"][part] == pytest.approx(value)
        for name in CLASSES:
            assert entry(other, arm)["recall"][name] == pytest.approx(entry(report, arm)["recall"][name])


def test_the_order_of_images_does_not_move_estimates():
    predictions = make({"imagenet": 2.0, "mri": 2.3})
    order = np.random.default_rng(0).permutation(predictions.labels.size)
    shuffled = dataclasses.replace(
        predictions,
        labels=predictions.labels[order],
        groups=predictions.groups[order],
        probabilities={key: p[:, order] for key, p in predictions.probabilities.items()},
    )
    first, second = summarise(predictions, draws=2000), summarise(shuffled, draws=2000)
    difference = first["pairs"][0]["difference"], second["pairs"][0]["difference"]
    assert difference[0]["estimate"] == pytest.approx(difference[1]["estimate"])
    width = difference[0]["high"] - difference[0]["low"]
    assert difference[1]["high"] - difference[1]["low"] == pytest.approx(width, rel=0.1)


def test_images_of_few_groups_say_less_than_as_many_of_many_groups():
    predictions = make({"imagenet": 2.0, "mri": 2.3})
    lumped = dataclasses.replace(predictions, groups=predictions.groups // 6)
    width = [
        summarise(each, draws=500)["results"][0]["macro_f1"]
        for each in (dataclasses.replace(predictions, groups=np.arange(predictions.labels.size)), lumped)
    ]
    assert width[1]["high"] - width[1]["low"] > 1.2 * (width[0]["high"] - width[0]["low"])


def test_pairs_are_corrected_within_each_mode_and_fraction():
    predictions = make(
        {"random": 1.0, "imagenet": 2.0, "mri": 2.1},
        modes=("probe", "finetune"),
        fractions=(0.25, 1.0),
    )
    report = summarise(predictions, draws=100)
    assert len(report["results"]) == 12
    assert len(report["pairs"]) == 12
    for mode, fraction in predictions.cells():
        pairs = [p for p in report["pairs"] if (p["mode"], p["fraction"]) == (mode, fraction)]
        smallest = min(pairs, key=lambda pair: pair["p_value"])
        assert smallest["p_holm"] == pytest.approx(min(1, 3 * smallest["p_value"]))
    assert (report["verdict"]["mode"], report["verdict"]["fraction"]) == ("finetune", 1.0)


def test_leaked_images_are_counted_apart():
    predictions = make({"imagenet": 3.0}, published=100)
    (found,) = summarise(predictions, draws=50)["published"]
    assert (found["all"]["images"], found["leaked"]["images"], found["rest"]["images"]) == (100, 60, 40)
    right = predictions.published["imagenet", "probe"].argmax(-1) == predictions.published_labels
    assert found["all"]["accuracy"] == pytest.approx(right.mean())
    assert found["leaked"]["accuracy"] == pytest.approx(right[:, :60].mean())
    assert found["rest"]["accuracy"] == pytest.approx(right[:, 60:].mean())
    assert found["leaked"]["accuracy"] > found["rest"]["accuracy"]


def test_a_class_without_images_is_left_out():
    predictions = make({"imagenet": 2.0, "mri": 2.5})
    kept = predictions.labels != 2
    without = dataclasses.replace(
        predictions,
        labels=predictions.labels[kept],
        groups=predictions.groups[kept],
        probabilities={key: p[:, kept] for key, p in predictions.probabilities.items()},
    )
    report = summarise(without, draws=50)
    assert entry(report, "imagenet")["recall"]["no_tumor"] == {"estimate": None, "low": None, "high": None}
    assert entry(report, "imagenet")["balanced_accuracy"]["estimate"] > 0.5
    json.dumps(report, allow_nan=False)


def test_one_seed_gets_mcnemar_beside_the_bootstrap():
    (pair,) = summarise(make({"imagenet": 2.0, "mri": 2.5}, seeds=1), draws=50)["pairs"]
    assert pair["mcnemar"]["only_a"] < pair["mcnemar"]["only_b"]
    assert "mcnemar" not in summarise(make({"imagenet": 2.0, "mri": 2.5}), draws=50)["pairs"][0]


def test_one_group_is_refused():
    predictions = make({"imagenet": 2.0})
    with pytest.raises(UserError, match="one group"):
        summarise(dataclasses.replace(predictions, groups=np.zeros_like(predictions.groups)), draws=10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: {"probabilities": {}}, "no finished trials"),
        (lambda p: {"groups": p.groups[1:]}, "groups"),
        (lambda p: {"labels": p.labels + 1}, "labels outside"),
        (lambda p: {"arms": ("mri",)}, "imagenet probe 1.0"),
        (lambda p: {"seeds": (0, 1, 2)}, "shape"),
        (lambda p: {"probabilities": {k: v * 2 for k, v in p.probabilities.items()}}, "sum to one"),
        (lambda p: {"probabilities": {k: v + np.nan for k, v in p.probabilities.items()}}, "sum to one"),
        (lambda p: {"published_leaked": p.published_leaked[1:]}, "leak"),
    ],
)
def test_predictions_that_do_not_fit_together_are_refused(change, message):
    predictions = make({"imagenet": 2.0}, published=20)
    with pytest.raises(UserError, match=message):
        dataclasses.replace(predictions, **change(predictions))


@pytest.mark.slow
def test_a_thousand_trials_take_less_than_a_minute():
    import time

    skill = {"random": 1.0, "imagenet": 2.0, "mri": 2.1, "imagenet+mri": 2.2}
    predictions = make(
        skill, seeds=5, groups=480, modes=("probe", "finetune"), fractions=(0.05, 0.1, 0.25, 0.5, 1.0)
    )
    started = time.perf_counter()
    summarise(predictions)
    assert time.perf_counter() - started < 60
