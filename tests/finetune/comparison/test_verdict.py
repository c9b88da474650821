"""The sentence follows from the figures by the rule in the module, whoever wins."""

import pytest

from mri_transfer.finetune.comparison.verdict import headline_cell, oriented, outcome, points, verdict


def report(scores, differences, mode="probe", fraction=1.0):
    """Entries from macro-F1 by arm and {(a, b): (difference, half width, p, corrected p)}."""
    return {
        "results": [
            {"arm": arm, "mode": mode, "fraction": fraction, "macro_f1": {"estimate": score}}
            for arm, score in scores.items()
        ],
        "pairs": [
            {
                "a": a,
                "b": b,
                "mode": mode,
                "fraction": fraction,
                "difference": {"estimate": d, "low": d - half, "high": d + half},
                "p_a_better": 0.9995 if d > 0 else 0.0005,
                "p_value": p,
                "p_holm": corrected,
                "smallest_detectable": 1.43 * half,
            }
            for (a, b), (d, half, p, corrected) in differences.items()
        ],
    }


def test_mri_wins():
    found = verdict(
        report({"imagenet": 0.8, "mri": 0.85}, {("imagenet", "mri"): (-0.05, 0.02, 0.001, 0.001)})
    )
    assert found["outcome"] == "ahead"
    assert found["short"] == "This encoder is the better start"
    assert found["sentence"] == (
        "This encoder is the better start: mri is 5.0 points of macro-F1 ahead of imagenet "
        "(95% interval +3.0 to +7.0; probability that mri is better: above 99.9%)."
    )


def interval(estimate, low, high):
    return {"estimate": estimate, "low": low, "high": high}


def test_a_pair_turned_round_says_the_same_of_the_other_arm():
    pair = {
        "a": "imagenet", "b": "mri", "p_value": 0.01, "p_holm": 0.03, "p_a_better": 0.25, "smallest_detectable": 0.06,
        "difference": interval(-0.05, -0.08, 0.01), "by_seed": [-0.04, -0.07, 0.0],
        "by_class": {"glioma": interval(-0.2, -0.3, -0.05), "none": interval(None, None, None)},
        "without_largest_class": {"class": "glioma", "difference": interval(-0.01, -0.03, 0.02)},
    }  # fmt: skip
    assert oriented([pair], "imagenet", "mri") is pair
    turned = oriented([pair], "mri", "imagenet")
    assert turned == pair | {
        "a": "mri", "b": "imagenet", "p_a_better": 0.75,
        "difference": interval(0.05, -0.01, 0.08), "by_seed": [0.04, 0.07, 0.0],
        "by_class": {"glioma": interval(0.2, 0.05, 0.3), "none": interval(None, None, None)},
        "without_largest_class": {"class": "glioma", "difference": interval(0.01, -0.02, 0.03)},
    }  # fmt: skip
    assert oriented([turned], "imagenet", "mri") == pair
    with pytest.raises(KeyError):
        oriented([pair], "mri", "random")


def test_the_headline_gives_the_probability_of_the_arm_it_names():
    given = report({"imagenet": 0.8, "mri": 0.81}, {("imagenet", "mri"): (-0.01, 0.02, 0.4, 0.4)})
    given["pairs"][0]["p_a_better"] = 0.2
    assert "probability that mri is better: 80.0%)" in verdict(given)["sentence"]


def test_imagenet_wins_and_it_is_said_just_as_well():
    found = verdict(report({"imagenet": 0.85, "mri": 0.8}, {("imagenet", "mri"): (0.05, 0.02, 0.001, 0.001)}))
    assert found["outcome"] == "behind"
    assert found["sentence"].startswith("ImageNet is the better start: mri is 5.0 points of macro-F1 behind")
    assert "−7.0 to −3.0" in found["sentence"]


def test_no_difference_says_what_could_have_been_shown():
    found = verdict(report({"imagenet": 0.8, "mri": 0.81}, {("imagenet", "mri"): (-0.01, 0.02, 0.4, 0.4)}))
    assert found["outcome"] == "no difference"
    assert found["sentence"].startswith("No difference shown: mri is 1.0 points of macro-F1 ahead")
    assert found["sentence"].endswith("This data could have shown a difference of 2.9 points.")


@pytest.mark.parametrize(
    ("doubled", "said"),
    [
        (0.02, "a difference of 2.9 points, twice as many seeds about 2.0."),
        (0.028, "a difference of 2.9 points; more seeds would hardly help, more groups of images would."),
        (None, "a difference of 2.9 points."),
    ],
)
def test_no_difference_says_whether_more_seeds_would_help(doubled, said):
    given = report({"imagenet": 0.8, "mri": 0.81}, {("imagenet", "mri"): (-0.01, 0.02, 0.4, 0.4)})
    given["pairs"][0]["detectable_with_twice_the_seeds"] = doubled
    assert verdict(given)["sentence"].endswith(said)


def test_what_the_correction_takes_away_is_not_settled():
    found = verdict(report({"imagenet": 0.8, "mri": 0.83}, {("imagenet", "mri"): (-0.03, 0.025, 0.03, 0.09)}))
    assert found["outcome"] == "not settled"
    assert "corrected p = 0.09" in found["sentence"]


def test_every_contender_is_named_and_controls_are_not_contenders():
    scores = {"random": 0.9, "imagenet": 0.8, "mri": 0.7, "imagenet+mri": 0.85}
    differences = {
        ("random", "imagenet"): (0.1, 0.02, 0.001, 0.006),
        ("imagenet", "mri"): (0.1, 0.02, 0.001, 0.006),
        ("imagenet", "imagenet+mri"): (-0.05, 0.02, 0.001, 0.006),
    }
    found = verdict(report(scores, differences))
    assert found["arm"] == "imagenet+mri"
    assert len(found["details"]) == 1
    assert "mri is 10.0 points of macro-F1 behind imagenet" in found["details"][0]


def test_only_controls():
    found = verdict(
        report({"random": 0.7, "imagenet": 0.8}, {("random", "imagenet"): (-0.1, 0.02, 0.001, 0.001)})
    )
    assert found["short"] == "ImageNet is the better start"


def test_without_imagenet_the_best_two_are_compared():
    scores = {"random": 0.7, "a": 0.8, "b": 0.85}
    found = verdict(report(scores, {("a", "b"): (-0.05, 0.02, 0.001, 0.003)}))
    assert (found["arm"], found["baseline"]) == ("b", "a")
    assert found["sentence"].startswith("This encoder is the better start: b is 5.0 points")


def test_without_imagenet_a_control_is_what_is_compared_with_and_not_what_wins():
    scores = {"pixels": 0.9, "random": 0.8, "mri": 0.7}
    differences = {
        ("pixels", "random"): (0.1, 0.02, 0.001, 0.003),
        ("pixels", "mri"): (0.2, 0.02, 0.001, 0.003),
    }
    found = verdict(report(scores, differences))
    assert (found["arm"], found["baseline"], found["outcome"]) == ("mri", "pixels", "behind")


def test_one_arm():
    found = verdict(report({"mri": 0.8}, {}))
    assert found["outcome"] == "single"
    assert "80.0 points" in found["sentence"]


@pytest.mark.parametrize(
    ("cells", "chosen"),
    [
        ([("probe", 1.0), ("finetune", 1.0), ("finetune", 0.25)], ("finetune", 1.0)),
        ([("probe", 1.0), ("finetune", 0.25), ("finetune", 0.5)], ("finetune", 0.5)),
        ([("probe", 0.05), ("probe", 0.5)], ("probe", 0.5)),
    ],
)
def test_the_headline_cell_follows_the_rule(cells, chosen):
    assert headline_cell([{"mode": mode, "fraction": fraction} for mode, fraction in cells]) == chosen


def test_other_settings_are_told_too():
    headline = report({"imagenet": 0.8, "mri": 0.81}, {("imagenet", "mri"): (-0.01, 0.02, 0.4, 0.4)})
    few = report(
        {"imagenet": 0.5, "mri": 0.6}, {("imagenet", "mri"): (-0.1, 0.02, 0.001, 0.001)}, fraction=0.05
    )
    found = verdict({key: headline[key] + few[key] for key in headline})
    assert found["outcome"] == "no difference"
    (sentence,) = found["elsewhere"]
    assert sentence.startswith("Linear probe on 5% of the labels: mri is 10.0 points")


def test_points_and_outcome():
    assert points(-0.0123) == "−1.2"
    assert points(0.05, signed=True) == "+5.0"
    assert outcome({"difference": {"estimate": None}}) == "undefined"


def test_each_arm_is_compared_with_imagenet_of_its_own_network():
    scores = {"imagenet (a)": 0.80, "imagenet (b)": 0.86, "mri": 0.84, "other": 0.7, "pixels": 0.9}
    names = list(scores)
    differences = {
        (first, second): (scores[first] - scores[second], 0.01, 0.001, 0.001)
        for place, first in enumerate(names)
        for second in names[place + 1 :]
    }
    known = {
        "kinds": {
            "imagenet (a)": "imagenet",
            "imagenet (b)": "imagenet",
            "mri": "encoder",
            "other": "encoder",
            "pixels": "pixels",
        },
        "backbones": {"imagenet (a)": "a", "imagenet (b)": "b", "mri": "a", "other": "c", "pixels": ""},
        "arm_names": names,
    }
    found = verdict(report(scores, differences) | known)
    assert (found["arm"], found["baseline"], found["outcome"]) == ("mri", "imagenet (a)", "ahead")
    assert found["details"][0].startswith("ImageNet (b) is the better start: other is 16.0 points")

    pure = {name: scores[name] for name in names[:2]}
    found = verdict(report(pure, {tuple(pure): (-0.06, 0.01, 0.001, 0.001)}) | known)
    assert found["short"] == "ImageNet (b) is the better start"
    assert found["baseline"] == "imagenet (a)"


def test_controls_are_known_by_what_they_are_and_not_by_their_names():
    scores = {"imagenet": 0.8, "of good scale": 0.9, "mri": 0.7}
    differences = {
        ("imagenet", "of good scale"): (-0.1, 0.02, 0.001, 0.001),
        ("imagenet", "mri"): (0.1, 0.02, 0.001, 0.001),
    }
    known = {"kinds": {"imagenet": "imagenet", "of good scale": "scaled", "mri": "encoder"}}
    assert verdict(report(scores, differences) | known)["arm"] == "mri"
