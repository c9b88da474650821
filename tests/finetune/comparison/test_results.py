"""What `summarise` says of predictions, against scikit-learn and by invariance."""

import dataclasses
import json

import numpy as np
import pytest
from sklearn import metrics as reference

from mri_transfer.errors import UserError
from mri_transfer.finetune.comparison import statistics
from mri_transfer.finetune.comparison.results import Predictions, summarise

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
    answers = {(arm, "probe"): predict(s, truth, base) for arm, s in skill.items()} if published else {}
    return Predictions(
        tuple(skill), CLASSES, labels, group, tuple(range(seeds)), probabilities, answers, truth, leaked
    )


def entry(report, arm, mode="probe", fraction=1.0):
    return next(e for e in report["results"] if (e["arm"], e["mode"], e["fraction"]) == (arm, mode, fraction))


def test_estimates_are_means_over_seeds_of_sklearns_scores():
    predictions = make({"random": 1.0, "imagenet": 2.0})
    report = summarise(predictions, draws=50)
    y = predictions.labels
    for arm in predictions.arms:
        result = entry(report, arm)
        p = predictions.probabilities[arm, "probe", 1.0].astype(np.float64)
        guesses = p.argmax(-1)

        def mean(score, *arguments, guesses=guesses, **options):
            return pytest.approx(np.mean([score(y, g, *arguments, **options) for g in guesses]))

        assert result["macro_f1"]["estimate"] == mean(reference.f1_score, average="macro")
        assert result["balanced_accuracy"]["estimate"] == mean(reference.balanced_accuracy_score)
        assert result["accuracy"]["estimate"] == mean(reference.accuracy_score)
        recalls = np.mean([reference.recall_score(y, g, average=None) for g in guesses], axis=0)
        assert [result["recall"][name]["estimate"] for name in CLASSES] == pytest.approx(list(recalls))
        areas = [
            reference.roc_auc_score(y, shares / shares.sum(-1, keepdims=True), multi_class="ovr")
            for shares in p
        ]
        assert result["auroc"]["estimate"] == pytest.approx(np.mean(areas), rel=1e-5)
        counts = np.mean([reference.confusion_matrix(y, g) for g in guesses], axis=0)
        np.testing.assert_allclose(result["confusion"], counts)
        for name in ("macro_f1", "balanced_accuracy", "accuracy", "auroc", "log_loss", "brier"):
            assert result[name]["low"] < result[name]["estimate"] < result[name]["high"]


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
        for figure, value in entry(report, arm)["macro_f1"].items():
            assert entry(other, arm)["macro_f1"][figure] == pytest.approx(value)
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
    # With two seeds, what they don't tell of other seeds outweighs the groups.
    predictions = make({"imagenet": 2.0, "mri": 2.3}, seeds=4)
    lumped = dataclasses.replace(predictions, groups=predictions.groups // 6)
    width = [
        summarise(variant, draws=500)["results"][0]["macro_f1"]
        for variant in (dataclasses.replace(predictions, groups=np.arange(predictions.labels.size)), lumped)
    ]
    assert width[1]["high"] - width[1]["low"] > 1.2 * (width[0]["high"] - width[0]["low"])


def test_pairs_are_corrected_over_the_whole_report():
    predictions = make(
        {"random": 1.0, "imagenet": 2.0, "mri": 2.1},
        modes=("probe", "finetune"),
        fractions=(0.25, 1.0),
    )
    report = summarise(predictions, draws=100)
    assert len(report["results"]) == 12
    assert len(report["pairs"]) == 12
    corrected = statistics.holm([pair["p_value"] for pair in report["pairs"]])
    assert [pair["p_holm"] for pair in report["pairs"]] == corrected
    smallest = min(report["pairs"], key=lambda pair: pair["p_value"])
    assert smallest["p_holm"] == pytest.approx(min(1, 12 * smallest["p_value"]))
    assert (report["verdict"]["mode"], report["verdict"]["fraction"]) == ("finetune", 1.0)


def test_leaked_images_are_counted_apart():
    predictions = make({"imagenet": 3.0}, published=100)
    near = np.arange(100) >= 85
    groups = np.arange(100) // 2
    predictions = dataclasses.replace(predictions, published_near=near, published_groups=groups)
    (published,) = summarise(predictions, draws=200)["published"]
    counts = {kind: published[kind]["images"] for kind in ("all", "leaked", "near", "clean")}
    assert counts == {"all": 100, "leaked": 60, "near": 15, "clean": 25}
    right = predictions.published["imagenet", "probe"].argmax(-1) == predictions.published_labels
    assert published["all"]["accuracy"] == pytest.approx(right.mean())
    assert published["leaked"]["accuracy"] == pytest.approx(right[:, :60].mean())
    assert published["near"]["accuracy"] == pytest.approx(right[:, 85:].mean())
    assert published["clean"]["accuracy"] == pytest.approx(right[:, 60:85].mean())
    assert published["leaked"]["accuracy"] > published["clean"]["accuracy"]
    for kind in counts:
        interval = published[kind]["intervals"]["accuracy"]
        assert interval["low"] <= published[kind]["accuracy"] <= interval["high"]
    widths = [
        np.ptp([published[kind]["intervals"]["accuracy"][end] for end in ("low", "high")]) for kind in counts
    ]
    assert widths[3] > widths[0]


def test_macro_f1_of_the_published_split_is_over_the_classes_that_are_there():
    predictions = make({"imagenet": 1.0}, published=200)
    present = predictions.published_labels != 2
    fewer = dataclasses.replace(
        predictions,
        published={key: p[:, present] for key, p in predictions.published.items()},
        published_labels=predictions.published_labels[present],
        published_leaked=predictions.published_leaked[present],
    )
    (published,) = summarise(fewer, draws=50)["published"]
    guesses = fewer.published["imagenet", "probe"].argmax(-1)
    assert (guesses == 2).any()
    scores = [
        reference.f1_score(fewer.published_labels, guess, labels=[0, 1, 3], average="macro")
        for guess in guesses
    ]
    assert published["all"]["macro_f1"] == pytest.approx(np.mean(scores))


def test_differences_by_class_are_those_of_sklearns_f1_and_add_up():
    predictions = make({"imagenet": 2.0, "mri": 2.4}, seeds=3)
    (pair,) = summarise(predictions, draws=200)["pairs"]
    for k, name in enumerate(CLASSES):
        f1 = [
            np.mean(
                [
                    reference.f1_score(predictions.labels, guess, average=None)[k]
                    for guess in predictions.probabilities[arm, "probe", 1.0].argmax(-1)
                ]
            )
            for arm in ("imagenet", "mri")
        ]
        difference = pair["by_class"][name]
        assert difference["estimate"] == pytest.approx(f1[0] - f1[1])
        assert difference["low"] < difference["estimate"] < difference["high"]
    by_class = [difference["estimate"] for difference in pair["by_class"].values()]
    assert np.mean(by_class) == pytest.approx(pair["difference"]["estimate"])
    rest = pair["without_largest_class"]
    others = [d for name, d in zip(CLASSES, by_class, strict=True) if name != rest["class"]]
    assert rest["difference"]["estimate"] == pytest.approx(np.mean(others))


def one_class_better(predictions, arm, classes, share=1.0):
    """The predictions with images of some classes answered correctly by an arm."""
    key = (arm, "probe", 1.0)
    p = predictions.probabilities[key].copy()
    rng = np.random.default_rng(5)
    rows = np.isin(predictions.labels, classes) & (rng.uniform(size=predictions.labels.size) < share)
    p[:, rows] = np.eye(4, dtype=np.float32)[predictions.labels[rows]]
    return dataclasses.replace(predictions, probabilities={**predictions.probabilities, key: p})


def test_a_lead_of_one_class_is_told_from_a_lead_of_all():
    same = make({"imagenet": 1.5, "mri": 1.5}, seeds=3, groups=150)
    # Images of a class that is never taken for another, nor another for it, move no other class's F1.
    p = same.probabilities["imagenet", "probe", 1.0]
    same = dataclasses.replace(same, probabilities={key: p.copy() for key in same.probabilities})
    of_all = one_class_better(same, "mri", [0, 1, 2, 3], 0.5)
    verdict = summarise(of_all, draws=400)["verdict"]
    assert verdict["outcome"] == "ahead"
    assert verdict["one_class"] == ""
    pair = summarise(one_class_better(same, "mri", [0]), draws=400)["verdict"]["pair"]
    assert pair["without_largest_class"]["class"] == CLASSES[0]
    assert pair["by_class"][CLASSES[0]]["low"] > 0


@pytest.mark.parametrize("others", [10, 19])
def test_an_unbeatable_arm_is_settled_among_many(others):
    skill = {f"a{number}": 1.0 + 0.02 * number for number in range(1, others)}
    predictions = make({"imagenet": 1.0, "best": 6.0, **skill}, seeds=3, groups=100)
    report = summarise(predictions, draws=300)
    assert len(report["arm_names"]) == others + 1
    assert report["verdict"]["arm"] == "best"
    assert report["verdict"]["outcome"] == "ahead"


def test_floors_are_scored_by_the_same_folds_and_an_arm_below_is_said_to_be():
    predictions = make({"imagenet": 2.5, "mri": 1.0, "pixels": 1.5, "figures": 0.1}, seeds=3)
    floors = {name: predictions.probabilities[name, "probe", 1.0] for name in ("pixels", "figures")}
    arms = ("imagenet", "mri")
    probabilities = {key: p for key, p in predictions.probabilities.items() if key[0] in arms}
    with_floors = dataclasses.replace(predictions, arms=arms, probabilities=probabilities, floors=floors)
    report = summarise(with_floors, draws=300)
    pixels, figures = report["floors"]
    assert [pixels["floor"], figures["floor"]] == ["pixels", "figures"]
    as_arms = summarise(predictions, draws=300)
    assert pixels["macro_f1"] == entry(as_arms, "pixels")["macro_f1"]
    assert pixels["arms"]["imagenet"]["above"]
    assert not pixels["arms"]["mri"]["above"]
    sentences = report["verdict"]["floors"]
    assert any(sentence.startswith("mri is not shown to be above raw pixels") for sentence in sentences)
    assert len(report["pairs"]) == 1  # they are in no pair and cost no correction


def test_a_class_without_images_is_left_out():
    predictions = make({"imagenet": 2.0, "mri": 2.5})
    rows = predictions.labels != 2
    without = dataclasses.replace(
        predictions,
        labels=predictions.labels[rows],
        groups=predictions.groups[rows],
        probabilities={key: p[:, rows] for key, p in predictions.probabilities.items()},
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
