"""The sentence follows from the figures by the rule in the module, whoever wins."""

import pytest

from mri_transfer.finetune.comparison.statistics import LEAST_P
from mri_transfer.finetune.comparison.verdict import (
    describe_cell,
    headline_cell,
    oriented,
    outcome,
    p_in_words,
    points,
    verdict,
)


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
    conclusion = verdict(
        report({"imagenet": 0.8, "mri": 0.85}, {("imagenet", "mri"): (-0.05, 0.02, 0.001, 0.001)})
    )
    assert conclusion["outcome"] == "ahead"
    assert conclusion["short"] == "This encoder is the better start"
    assert conclusion["sentence"] == (
        "This encoder is the better start: mri is 5.0 points of macro-F1 ahead of imagenet "
        "(95% interval +3.0 to +7.0; probability that mri is better: above 99.9%)."
    )


@pytest.mark.parametrize(
    ("mode", "backbones", "advice"),
    [
        ("probe", {"imagenet": "mobilenet", "mri": "mobilenet"}, True),
        ("nearest", {"imagenet": "mobilenet", "mri": "mobilenet"}, True),
        ("finetune", {"imagenet": "mobilenet", "mri": "mobilenet"}, False),
        ("probe", {"imagenet": "mobilenet", "mri": "mobilenet", "x": "mobilenet/16"}, False),
        ("probe", {}, False),
    ],
)
def test_where_only_the_last_map_was_read_the_one_before_is_advised(mode, backbones, advice):
    figures = report(
        {"imagenet": 0.8, "mri": 0.85}, {("imagenet", "mri"): (-0.05, 0.02, 0.001, 0.001)}, mode=mode
    )
    (*_, last) = verdict(figures | {"backbones": backbones})["about"] or [""]
    assert last.endswith("--backbone mobilenet --backbone mobilenet/16 compares both.") == advice


def test_the_part_that_was_read_is_named_and_imagenet_is_taken_where_it_is_better():
    scores = {"imagenet (m/16)": 0.86, "mri (m)": 0.84, "mri (m/16)": 0.83, "imagenet (m)": 0.81}
    names = list(scores)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    figures = report(scores, {(a, b): (scores[a] - scores[b], 0.01, 0.001, 0.001) for a, b in pairs})
    figures["backbones"] = {name: name.partition("(")[2][:-1] for name in names}
    figures["kinds"] = {name: "imagenet" if name.startswith("imagenet") else "encoder" for name in names}
    conclusion = verdict(figures)
    assert (conclusion["arm"], conclusion["baseline"]) == ("mri (m)", "imagenet (m/16)")
    assert conclusion["outcome"] == "behind"
    assert conclusion["about"][-1] == "Starts were read from m and from m up to output stride 16."
    figures["backbones"] = dict.fromkeys(names, "m/16")
    assert verdict(figures)["about"][-1] == "Both starts were read from m up to output stride 16."


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
    comparison = report({"imagenet": 0.8, "mri": 0.81}, {("imagenet", "mri"): (-0.01, 0.02, 0.4, 0.4)})
    comparison["pairs"][0]["p_a_better"] = 0.2
    assert "probability that mri is better: 80.0%)" in verdict(comparison)["sentence"]


def test_imagenet_wins_and_it_is_said_just_as_well():
    conclusion = verdict(
        report({"imagenet": 0.85, "mri": 0.8}, {("imagenet", "mri"): (0.05, 0.02, 0.001, 0.001)})
    )
    assert conclusion["outcome"] == "behind"
    assert conclusion["sentence"].startswith(
        "ImageNet is the better start: mri is 5.0 points of macro-F1 behind"
    )
    assert "−7.0 to −3.0" in conclusion["sentence"]


def test_no_difference_says_what_could_have_been_shown():
    conclusion = verdict(
        report({"imagenet": 0.8, "mri": 0.81}, {("imagenet", "mri"): (-0.01, 0.02, 0.4, 0.4)})
    )
    assert conclusion["outcome"] == "no difference"
    assert conclusion["sentence"].startswith("No difference shown: mri is 1.0 points of macro-F1 ahead")
    assert conclusion["sentence"].endswith("only a difference of about 2.9 points or more would show.")


@pytest.mark.parametrize(
    ("doubled", "said"),
    [
        (0.02, "2.9 points or more would show; with twice as many seeds, one of about 2.0."),
        (0.028, "2.9 points or more would show; more groups of images would help, more seeds hardly."),
        (None, "a difference of about 2.9 points or more would show."),
    ],
)
def test_no_difference_says_whether_more_seeds_would_help(doubled, said):
    comparison = report({"imagenet": 0.8, "mri": 0.81}, {("imagenet", "mri"): (-0.01, 0.02, 0.4, 0.4)})
    comparison["pairs"][0]["detectable_with_twice_the_seeds"] = doubled
    assert verdict(comparison)["sentence"].endswith(said)


def test_what_the_correction_takes_away_is_not_settled():
    conclusion = verdict(
        report({"imagenet": 0.8, "mri": 0.83}, {("imagenet", "mri"): (-0.03, 0.025, 0.03, 0.09)})
    )
    assert conclusion["outcome"] == "not settled"
    assert "corrected p = 0.09" in conclusion["sentence"]


def test_every_contender_is_named_and_controls_are_not_contenders():
    scores = {"random": 0.9, "imagenet": 0.8, "mri": 0.7, "imagenet+mri": 0.85}
    differences = {
        ("random", "imagenet"): (0.1, 0.02, 0.001, 0.006),
        ("imagenet", "mri"): (0.1, 0.02, 0.001, 0.006),
        ("imagenet", "imagenet+mri"): (-0.05, 0.02, 0.001, 0.006),
    }
    conclusion = verdict(report(scores, differences))
    assert conclusion["arm"] == "imagenet+mri"
    assert len(conclusion["details"]) == 1
    assert "mri is 10.0 points of macro-F1 behind imagenet" in conclusion["details"][0]


def test_only_controls():
    conclusion = verdict(
        report({"random": 0.7, "imagenet": 0.8}, {("random", "imagenet"): (-0.1, 0.02, 0.001, 0.001)})
    )
    assert conclusion["short"] == "ImageNet is the better start"


def test_without_imagenet_the_best_two_are_compared():
    scores = {"random": 0.7, "a": 0.8, "b": 0.85}
    conclusion = verdict(report(scores, {("a", "b"): (-0.05, 0.02, 0.001, 0.003)}))
    assert (conclusion["arm"], conclusion["baseline"]) == ("b", "a")
    assert conclusion["sentence"].startswith("This encoder is the better start: b is 5.0 points")


def test_without_imagenet_a_control_is_what_is_compared_with_and_not_what_wins():
    scores = {"pixels": 0.9, "random": 0.8, "mri": 0.7}
    differences = {
        ("pixels", "random"): (0.1, 0.02, 0.001, 0.003),
        ("pixels", "mri"): (0.2, 0.02, 0.001, 0.003),
    }
    conclusion = verdict(report(scores, differences))
    assert (conclusion["arm"], conclusion["baseline"], conclusion["outcome"]) == ("mri", "pixels", "behind")


def test_of_two_controls_the_better_is_compared_with_the_other():
    conclusion = verdict(
        report({"random": 0.7, "pixels": 0.8}, {("random", "pixels"): (-0.1, 0.02, 0.001, 0.001)})
    )
    assert (conclusion["arm"], conclusion["baseline"], conclusion["outcome"]) == ("pixels", "random", "ahead")
    assert conclusion["rule"].startswith("the headline cell is fine-tuning on all labels if that was run")


def test_one_arm():
    conclusion = verdict(report({"mri": 0.8}, {}))
    assert conclusion["outcome"] == "single"
    assert "80.0 points" in conclusion["sentence"]


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
    conclusion = verdict({key: headline[key] + few[key] for key in headline})
    assert conclusion["outcome"] == "no difference"
    (sentence,) = conclusion["elsewhere"]
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
    facts = {
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
    conclusion = verdict(report(scores, differences) | facts)
    assert (conclusion["arm"], conclusion["baseline"], conclusion["outcome"]) == (
        "mri",
        "imagenet (a)",
        "ahead",
    )
    assert conclusion["details"][0].startswith("ImageNet (b) is the better start: other is 16.0 points")

    pure = {name: scores[name] for name in names[:2]}
    conclusion = verdict(report(pure, {tuple(pure): (-0.06, 0.01, 0.001, 0.001)}) | facts)
    assert conclusion["short"] == "ImageNet (b) is the better start"
    assert conclusion["baseline"] == "imagenet (a)"


def test_controls_are_known_by_what_they_are_and_not_by_their_names():
    scores = {"imagenet": 0.8, "of good scale": 0.9, "mri": 0.7}
    differences = {
        ("imagenet", "of good scale"): (-0.1, 0.02, 0.001, 0.001),
        ("imagenet", "mri"): (0.1, 0.02, 0.001, 0.001),
    }
    facts = {"kinds": {"imagenet": "imagenet", "of good scale": "scaled", "mri": "encoder"}}
    assert verdict(report(scores, differences) | facts)["arm"] == "mri"


@pytest.mark.parametrize(
    ("p", "holm", "said", "corrected"),
    [
        (LEAST_P, LEAST_P, "≤ 0.000001", "≤ 0.000001"),
        (LEAST_P, 12 * LEAST_P, "≤ 0.000001", "≤ 0.000012"),
        (2 * LEAST_P, 24 * LEAST_P, "0.000002", "0.000024"),
        (0.0123, 0.1476, "0.0123", "0.1476"),
        (None, None, "–", "–"),
    ],
)
def test_a_p_value_at_its_floor_is_written_so(p, holm, said, corrected):
    pair = {"p_value": p, "p_holm": holm}
    assert (p_in_words(pair), p_in_words(pair, corrected=True)) == (said, corrected)


@pytest.mark.parametrize(
    ("d", "p", "corrected", "kind"),
    [
        (0.1, 0.01, 0.049, "ahead"),
        (-0.1, 0.01, 0.049, "behind"),
        (0.1, 0.049, 0.05, "not settled"),
        (0.1, 0.05, 0.05, "no difference"),
    ],
)
def test_a_difference_counts_below_five_per_cent_and_not_at_it(d, p, corrected, kind):
    assert outcome({"difference": interval(d, d, d), "p_value": p, "p_holm": corrected}) == kind


@pytest.mark.parametrize(
    ("p", "corrected", "words"),
    [
        (0.02, 0.0312, "0.0312"),
        (0.0004, 0.001, "0.0010"),
        (0.0004, 0.00099, "0.000990"),
        (1e-6, 0.00001, "≤ 0.000010"),
        (1e-6, 0.0000121, "≤ 0.000013"),  # rounded up: it may be no larger than is said
        (1e-6, 0.00105, "≤ 0.0011"),
        (2e-6, 0.00002, "0.000020"),
    ],
)
def test_p_values_in_words(p, corrected, words):
    pair = {"p_value": p, "p_holm": corrected}
    assert p_in_words(pair, corrected=True) == words
    assert p_in_words({"p_value": None, "p_holm": None}) == "–"
    assert p_in_words({"p_value": 0.25, "p_holm": 1.0}) == "0.2500"


@pytest.mark.parametrize(
    ("p", "words"),
    [(0.9991, "above 99.9%"), (0.999, "99.9%"), (0.5, "50.0%"), (0.001, "0.1%"), (0.0009, "below 0.1%")],
)
def test_probabilities_are_given_as_far_as_draws_can_tell(p, words):
    comparison = report({"imagenet": 0.8, "mri": 0.81}, {("mri", "imagenet"): (0.01, 0.02, 0.4, 0.4)})
    comparison["pairs"][0]["p_a_better"] = p
    assert f"probability that mri is better: {words})" in verdict(comparison)["sentence"]


def test_equal_predictions_and_a_lead_of_nothing():
    comparison = report({"imagenet": 0.8, "mri": 0.8}, {("mri", "imagenet"): (0.0, 0.0, 1.0, 1.0)})
    assert (
        verdict(comparison)["sentence"] == "No difference shown: mri and imagenet give the same predictions."
    )
    comparison["pairs"][0]["smallest_detectable"] = 0.02
    assert "mri is 0.0 points of macro-F1 ahead of imagenet" in verdict(comparison)["sentence"]


def test_a_class_that_is_missing_is_said_in_whole():
    comparison = report({"imagenet": 0.8, "mri": 0.81}, {("imagenet", "mri"): (0.0, 0.02, 0.4, 0.4)})
    comparison["pairs"][0]["difference"] = interval(None, None, None)
    conclusion = verdict(comparison)
    assert (conclusion["outcome"], conclusion["short"]) == ("undefined", "Can't be compared")
    assert (
        conclusion["sentence"]
        == conclusion["reason"]
        == "mri and imagenet can't be compared: a class is missing from the data."
    )


def test_cells_in_words():
    assert describe_cell("finetune", 1.0) == "fine-tuning on all labels"
    assert describe_cell("probe", 0.25) == "linear probe on 25% of the labels"
    assert describe_cell("nearest", 0.005) == "nearest neighbours on 0.5% of the labels"


def with_floors(lead, above, kinds=None):
    """A comparison that mri wins, with two floors; `lead` is what it has over the higher one."""
    comparison = report({"imagenet": 0.7, "mri": 0.8}, {("mri", "imagenet"): (0.1, 0.02, 0.001, 0.001)})
    arms = {
        "mri": {"difference": interval(lead, lead - 0.01, lead + 0.01), "above": above},
        "imagenet": {"difference": interval(-0.01, -0.03, 0.01), "above": False},
    }
    clear = {name: {"difference": interval(0.3, 0.2, 0.4), "above": name != "imagenet"} for name in arms}
    floors = [
        {
            "floor": "forest",
            "words": "random forests (of figures)",
            "macro_f1": interval(None, None, None),
            "arms": {},
        },
        {
            "floor": "figures",
            "words": "global figures (brightness)",
            "macro_f1": interval(0.75, 0.7, 0.8),
            "arms": arms,
        },
        {
            "floor": "pixels",
            "words": "pixels (24 a side)",
            "macro_f1": interval(0.4, 0.3, 0.5),
            "arms": clear,
        },
    ]
    return verdict(comparison | {"floors": floors} | ({"kinds": kinds} if kinds else {}))["floors"]


BELOW = "imagenet is not shown to be above global figures or pixels."


def test_a_winner_near_a_floor_is_told_beside_it():
    near = "Without any network, global figures (brightness) reach 75.0 points of macro-F1 on the same folds; mri is "
    assert with_floors(0.05, True) == [
        f"{near}5.0 points above that (95% interval +4.0 to +6.0).", BELOW
    ]  # fmt: skip
    assert with_floors(0.0, False) == [
        f"{near}0.0 points above that (95% interval −1.0 to +1.0), so it is not shown to be above.", BELOW
    ]  # fmt: skip
    assert with_floors(-0.02, False)[0].startswith(f"{near}2.0 points below that")


def test_a_winner_far_above_every_floor_needs_no_word():
    assert with_floors(0.1, True) == [BELOW]
    assert with_floors(0.3, False) == ["mri is not shown to be above global figures.", BELOW]
    # The floor itself is no finding about itself, nor is another floor.
    assert with_floors(0.0, False, {"mri": "figures"}) == [BELOW]
    assert with_floors(0.05, True, {"mri": "encoder", "imagenet": "pixels"})[1:] == []


@pytest.mark.parametrize(
    ("low", "high", "said"), [(-0.01, 0.03, True), (0.0, 0.03, True), (-0.02, 0.0, True), (0.01, 0.03, False)]
)
def test_a_lead_of_one_class_is_said_where_nothing_is_left_without_it(low, high, said):
    comparison = report({"imagenet": 0.7, "mri": 0.8}, {("mri", "imagenet"): (0.1, 0.02, 0.001, 0.001)})
    comparison["pairs"][0]["without_largest_class"] = {
        "class": "pituitary_tumor",
        "difference": interval(0.01, low, high),
    }
    assert verdict(comparison)["one_class"] == (
        "The lead comes from one class, pituitary tumor: over the others the difference is +1.0 points (95% "
        f"interval {points(low, True)} to {points(high, True)})."
        if said
        else ""
    )
    comparison["pairs"][0]["p_holm"] = 0.5
    assert verdict(comparison)["one_class"] == ""


def test_other_cells_say_whether_they_show_a_difference():
    pair = ("imagenet", "mri")
    cells = [report({"imagenet": 0.8, "mri": 0.81}, {pair: (-0.01, 0.02, 0.4, 0.4)})]
    for fraction, (d, p, corrected) in (
        (0.5, (0.1, 0.001, 0.001)),
        (0.25, (0.02, 0.02, 0.2)),
        (0.1, (None, 1, 1)),
    ):
        cells.append(
            report({"imagenet": 0.5, "mri": 0.6}, {pair: (d or 0, 0.02, p, corrected)}, fraction=fraction)
        )
        if d is None:
            cells[-1]["pairs"][0]["difference"] = interval(None, None, None)
    cells.append(
        report({"other": 0.5, "mri": 0.6}, {("other", "mri"): (0.1, 0.02, 0.001, 0.001)}, fraction=0.5)
    )
    conclusion = verdict(
        {key: [entry for cell in cells for entry in cell[key]] for key in ("results", "pairs")}
    )
    first, second = conclusion["elsewhere"]
    assert first.startswith(
        "Linear probe on 50% of the labels: mri is 10.0 points of macro-F1 behind imagenet"
    )
    assert first.endswith("; shown as a difference.")
    assert second.endswith("; not shown as a difference.")
