"""The verdict on histories of figures: those of real runs, and made-up ones for each rule."""

from __future__ import annotations

import pytest

from mri_transfer.pretrain.health.run_verdict import (
    COLLAPSED,
    DIVERGED,
    EARLY,
    FORGETFUL,
    HEALTHY,
    NOT_LEARNING,
    REMEDY,
    verdict,
)

START = {
    "step": 1, "share": 0.0, "finite": True, "loss_mean": 4.1, "loss_sd": 0.0, "loss_chance": 3.85,
    "knn_plane": 0.63, "knn_plane_chance": 0.33, "knn_plane_error": 0.02, "score": 0.33, "score_error": 0.02,
    "spread": 0.15, "rankme": 93.0, "rankme_limit": 512,
    "embedding_spread": 0.84, "embedding_rank": 85.0, "alignment_ratio": 1.0,
}  # fmt: skip
GOOD = {
    "loss_mean": 2.9,
    "loss_sd": 0.15,
    "alignment_ratio": 0.6,
    "spread": 0.4,
    "rankme": 250.0,
    "embedding_rank": 70.0,
}
FLAT = {
    "embedding_spread": 0.05,
    "embedding_rank": 7.0,
    "alignment_ratio": 0.98,
    "loss_mean": 3.84,
    "loss_sd": 0.02,
}
SAME = {"loss_mean": 4.08, "loss_sd": 0.17}


def history(*changes, step=500):
    """A start, and measurements evenly over the run, each the start's figures with changes."""
    count = len(changes)
    return [
        START,
        *(
            START | {"step": (i + 1) * step, "share": round((i + 1) / count, 4)} | change
            for i, change in enumerate(changes)
        ),
    ]


def test_a_run_that_learns_is_healthy_and_the_sentence_has_its_figures():
    conclusion = verdict(history(GOOD, GOOD, GOOD | {"knn_plane": 0.94, "rankme": 87.4}))
    assert (conclusion.state, conclusion.stop) == (HEALTHY, False)
    assert conclusion.sentence == (
        "healthy: neighbours of other subjects share the plane in 94% (33% by chance, 63% at the start), effective "
        "rank 87 of 512, the loss is 2.9 (3.85 by chance, 4.1 at the start)"
    )


@pytest.mark.parametrize(
    "evidence",
    [
        {"loss_mean": 2.9, "loss_sd": 0.15},
        {"alignment_ratio": 0.7},
        {"score": 0.5, "score_error": 0.03},
    ],
)
def test_any_one_sign_of_learning_is_enough(evidence):
    assert verdict(history(*[evidence] * 4)).state == HEALTHY


@pytest.mark.parametrize(
    "noise",
    [
        {"loss_mean": 3.7, "loss_sd": 0.2},  # below the start and chance, but not clearly
        {"loss_mean": 3.9, "loss_sd": 0.01},  # clearly below the start, and still above chance
        {"alignment_ratio": 0.95},
        {"score": 0.38, "score_error": 0.03},
        {"score": 0.1},  # worse
    ],
)
def test_noise_is_no_learning(noise):
    conclusion = verdict(history(*[SAME | noise] * 4))
    assert conclusion.state == NOT_LEARNING
    assert not conclusion.stop
    assert "--learning-rate" in conclusion.sentence


def test_a_good_start_that_only_keeps_its_neighbours_is_healthy_by_its_loss():
    """ImageNet weights: neighbours were good before, and a little worse while batch statistics adapt."""
    good = START | {"knn_plane": 0.89, "score": 0.58, "alignment_ratio": 0.88, "loss_mean": 3.96}
    latest = good | {"step": 2000, "share": 1.0, "knn_plane": 0.85, "score": 0.55, "alignment_ratio": 0.78}
    assert verdict([good, latest | {"loss_mean": 3.15, "loss_sd": 0.16}], final=True).state == HEALTHY
    assert verdict(
        [good, latest | {"loss_mean": 3.94, "loss_sd": 0.16, "alignment_ratio": 0.88}], final=True
    ).state == (NOT_LEARNING)


WORSE = GOOD | {"score": 0.2, "score_error": 0.02}


@pytest.mark.parametrize("change", [{}, {"score_error": 0.05}])  # the second: 2.4 standard errors
def test_a_run_that_ends_worse_than_it_began_is_not_healthy_whatever_its_loss(change):
    conclusion = verdict(history(WORSE | change, WORSE | change), final=True)
    assert (conclusion.state, conclusion.worse, conclusion.stop) == (FORGETFUL, True, False)
    assert conclusion.sentence.startswith(
        "worse than its start: its features say less about the free labels (0.20, 0.33 at the start); neighbours"
    )
    assert conclusion.sentence.endswith(
        "the loss is 2.9 (3.85 by chance, 4.1 at the start); " + REMEDY[FORGETFUL]
    )


@pytest.mark.parametrize(
    ("change", "final"),
    [
        ({}, False),  # good weights are forgotten first and learnt again later
        ({"score": 0.28}, True),  # by less than chance does
        ({"score_error": 0.07}, True),
        ({"score": 0.5}, True),
    ],
)
def test_it_is_not_said_midway_nor_of_noise(change, final):
    conclusion = verdict(history(WORSE | change, WORSE | change), final=final)
    assert (conclusion.state, conclusion.worse) == (HEALTHY, False)
    assert "started from" not in conclusion.sentence


def test_a_store_without_labels_can_not_tell():
    bare = [{k: v for k, v in line.items() if not k.startswith(("knn", "score"))} for line in history(WORSE)]
    assert not verdict(bare, final=True).worse


def test_not_learning_is_not_said_early():
    slow = history(*[SAME] * 20)
    states = [verdict(slow[: n + 1]).state for n in range(21)]
    assert states[:5] == [EARLY] * 5  # up to 20% of the time
    assert states[5:] == [NOT_LEARNING] * 16
    # At the end there is nothing to wait for any more, but for steps.
    assert verdict(history(SAME), final=True).state == NOT_LEARNING
    assert verdict(history(SAME, step=12), final=True).state == EARLY


def test_a_collapse_is_said_after_two_measurements_and_stops_a_run_after_three():
    runs = history(GOOD, FLAT, FLAT, FLAT, GOOD, FLAT)
    conclusions = [verdict(runs[: n + 1]) for n in range(len(runs))]
    assert [conclusion.state for conclusion in conclusions] == [
        *(EARLY, HEALTHY, NOT_LEARNING, COLLAPSED, COLLAPSED, HEALTHY, NOT_LEARNING)
    ]
    assert [conclusion.stop for conclusion in conclusions] == [False, False, False, False, True, False, False]
    assert "--learning-rate" in conclusions[4].sentence
    assert "0.05" in conclusions[4].sentence


def test_a_collapse_that_only_the_last_measurement_shows_is_said_at_the_end():
    assert verdict(history(GOOD, FLAT), final=True).state == COLLAPSED


@pytest.mark.parametrize(
    "figures",
    [
        {"spread": 0.001, "rankme": 3.0},
        {"rankme": 1.2},
        {"embedding_rank": 1.9, "alignment_ratio": 0.86, "loss_mean": -0.73},  # a normalised last layer
        {"embedding_spread": 0.24, "alignment_ratio": 0.96},
    ],
)
def test_kinds_of_collapse(figures):
    assert verdict(history(*[GOOD | figures] * 3)).state == COLLAPSED


@pytest.mark.parametrize(
    "figures",
    [
        {"embedding_spread": 0.2, "alignment_ratio": 0.3},  # close together, and still telling pairs apart
        {
            "embedding_spread": 0.5,
            "alignment_ratio": 0.97,
            "loss_mean": 3.3,
            "loss_sd": 0.1,
        },  # early, random weights
    ],
)
def test_no_collapse(figures):
    assert verdict(history(*[GOOD | figures] * 3)).state == HEALTHY


def test_what_happens_in_the_warm_up_or_the_first_steps_is_not_held_against_a_run():
    early = [START, *(START | FLAT | {"step": 200 + i, "share": 0.01 * i} for i in range(1, 6))]
    assert [verdict(early[:n], warmup=0.05).state for n in range(1, 7)] == [EARLY] * 6
    assert (
        verdict([START, *(START | FLAT | {"step": 10 * i, "share": 0.2 * i} for i in range(1, 6))]).state
        == EARLY
    )


def test_divergence():
    sentence = "diverged: the loss was not finite at step 7; start again with a lower --learning-rate"
    assert verdict(history(GOOD), stopped=sentence)[:2] == (DIVERGED, sentence)
    broken = {
        "step": 40,
        "share": 0.2,
        "finite": False,
        "loss_mean": 5.0,
        "loss_sd": 1.0,
        "loss_chance": None,
    }
    assert verdict([START, broken]).state == DIVERGED
    assert verdict([broken, *history(GOOD, GOOD)]).state == HEALTHY  # judged from the first that are finite
    ran_away = verdict(history({"loss_mean": 900.0, "loss_sd": 20.0}))
    assert ran_away.state == DIVERGED
    assert "900" in ran_away.sentence
    assert "--learning-rate" in ran_away.sentence


def test_losses_of_any_sign_and_scale():
    """SimSiam's begins at 0 and falls to -1, VICReg's begins at 50, BYOL's has no chance level."""
    for first, later, chance in ((0.0, -0.9, None), (50.0, 30.0, 45.0), (4.0, 1.8, None)):
        runs = history(*[{"loss_mean": later, "loss_sd": 0.02 * abs(later), "loss_chance": chance}] * 4)
        runs[0] = START | {"loss_mean": first, "loss_chance": chance}
        assert verdict(runs).state == HEALTHY


def test_a_store_that_tells_no_labels_and_a_run_whose_loss_is_not_known():
    bare = [
        {k: v for k, v in line.items() if not k.startswith(("knn", "score"))} for line in history(GOOD, GOOD)
    ]
    conclusion = verdict(bare)
    assert conclusion.state == HEALTHY
    assert "neighbours" not in conclusion.sentence
    unknown = [
        line | {"loss_mean": None} for line in history({"alignment_ratio": 0.5}, {"alignment_ratio": 0.5})
    ]
    assert verdict(unknown).state == HEALTHY
    assert verdict([]).state == EARLY


# Figures of runs on real slices, 64 px, 24 pairs, EfficientNet-Lite0, 120 to 150 steps of a cosine schedule:
# (loss, its deviation, chance, spread, rank, embedding spread, embedding rank, ratio, score), at the start and later.
REAL = {
    "simclr, ImageNet": (
        FORGETFUL,
        [
            (3.96, 0.0, 3.85, 0.574, 268, 0.84, 81.6, 0.988, 0.584),
            (3.78, 0.198, 3.85, 0.712, 325, 0.782, 78.3, 0.879, 0.532),
            (3.31, 0.230, 3.85, 0.724, 328, 0.792, 74.9, 0.803, 0.478),
            (3.15, 0.162, 3.85, 0.750, 321, 0.796, 74.5, 0.783, 0.421),
        ],
    ),
    "byol, random": (
        FORGETFUL,
        [
            (4.0, 0.0, None, 0.149, 93, 0.811, 96.0, 1.012, 0.327),
            (1.801, 0.051, None, 0.223, 186, 0.807, 38.2, 0.850, 0.046),
            (1.916, 0.088, None, 0.322, 244, 0.805, 36.3, 0.814, 0.046),
        ],
    ),
    "simsiam, ImageNet": (
        FORGETFUL,
        [
            (0.0, 0.0, None, 0.574, 268, 0.993, 104.5, 0.997, 0.584),
            (-0.055, 0.047, None, 0.638, 256, 0.972, 91.4, 0.903, 0.415),
            (-0.279, 0.076, None, 0.596, 161, 0.884, 66.0, 0.766, 0.248),
            (-0.428, 0.043, None, 0.594, 151, 0.862, 60.0, 0.731, 0.228),
        ],
    ),
    "unrelated slices as pairs, ImageNet": (
        NOT_LEARNING,
        [
            (4.1, 0.0, 3.85, 0.574, 268, 0.840, 81.6, 0.988, 0.584),
            (4.094, 0.180, 3.85, 0.740, 345, 0.699, 78.0, 0.969, 0.537),
            (3.971, 0.094, 3.85, 0.753, 357, 0.637, 75.2, 0.962, 0.488),
            (3.968, 0.089, 3.85, 0.800, 365, 0.628, 74.8, 0.969, 0.413),
        ],
    ),
    "the cosine alone, random": (
        COLLAPSED,
        [
            (0.0, 0.0, None, 0.149, 93, 0.84, 85.0, 1.0, 0.327),
            (-0.823, 0.222, None, 0.112, 92.8, 0.126, 15.8, 0.991, 0.133),
            (-0.990, 0.003, None, 0.162, 146, 0.072, 7.3, 0.979, 0.047),
            (-0.995, 0.001, None, 0.251, 209, 0.066, 6.7, 0.986, 0.020),
        ],
    ),
    "the cosine alone, ImageNet": (
        COLLAPSED,
        [
            (0.0, 0.0, None, 0.574, 268, 0.84, 81.6, 0.988, 0.584),
            (-0.669, 0.193, None, 0.655, 249, 0.350, 48.5, 0.968, 0.401),
            (-0.918, 0.016, None, 0.582, 179, 0.252, 33.5, 0.956, 0.291),
            (-0.944, 0.005, None, 0.567, 157, 0.239, 31.3, 0.959, 0.205),
        ],
    ),
    "simsiam without stop-gradient and predictor": (
        COLLAPSED,
        [
            (0.0, 0.0, None, 0.149, 93, 0.996, 111, 1.019, 0.327),
            (-0.307, 0.256, None, 0.123, 104, 0.696, 3.7, 0.914, 0.121),
            (-0.725, 0.141, None, 0.239, 191, 0.581, 1.9, 0.869, 0.052),
        ],
    ),
    "a rate of 1e-9": (
        NOT_LEARNING,
        [
            (4.1, 0.0, 3.85, 0.149, 93, 0.841, 85.3, 1.003, 0.327),
            (4.126, 0.202, 3.85, 0.208, 173, 0.841, 85.3, 1.003, 0.125),
            (4.069, 0.203, 3.85, 0.383, 276, 0.841, 85.3, 1.003, 0.044),
        ],
    ),
    "a rate of 1": (
        COLLAPSED,
        [
            (4.1, 0.0, 3.85, 0.149, 93, 0.841, 85.3, 1.003, 0.327),
            (3.86, 0.059, 3.85, 0.052, 51, 0.137, 13.0, 1.005, 0.005),
        ],
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_real_runs(name):
    state, rows = REAL[name]
    keys = ("loss_mean", "loss_sd", "loss_chance", "spread", "rankme", "embedding_spread", "embedding_rank")
    keys += ("alignment_ratio", "score")
    runs = [
        START | dict(zip(keys, row, strict=True)) | {"step": 1 + 400 * i, "share": i / (len(rows) - 1)}
        for i, row in enumerate(rows)
    ]
    assert verdict(runs, final=True).state == state
    if state == FORGETFUL:  # they learn, and a longer run may learn again what this one forgot
        assert verdict(runs).state == HEALTHY


AT_THE_BOUNDS = {
    "spread": 0.02,
    "rankme": 1.5,
    "embedding_rank": 3.0,
    "embedding_spread": 0.3,
    "alignment_ratio": 0.9,
}


@pytest.mark.parametrize(
    ("figures", "state"),
    [
        (AT_THE_BOUNDS, HEALTHY),
        (AT_THE_BOUNDS | {"spread": 0.0199}, COLLAPSED),
        (AT_THE_BOUNDS | {"rankme": 1.49}, COLLAPSED),
        (AT_THE_BOUNDS | {"embedding_rank": 2.99}, COLLAPSED),
        (AT_THE_BOUNDS | {"embedding_spread": 0.299}, HEALTHY),
        (AT_THE_BOUNDS | {"alignment_ratio": 0.901}, HEALTHY),
        (AT_THE_BOUNDS | {"embedding_spread": 0.299, "alignment_ratio": 0.901}, COLLAPSED),
    ],
)
def test_bounds_of_a_collapse(figures, state):
    assert verdict(history(*[GOOD | figures] * 3)).state == state


@pytest.mark.parametrize(
    ("figures", "sentence"),
    [
        (
            {"spread": 0.0123, "rankme": 2.6},
            "the features of all slices are nearly the same (spread 0.012, ideal 1; effective rank 3 of 512)",
        ),
        (
            {"embedding_rank": 1.94},
            "the embeddings that the loss compares have an effective rank of 1.9 only",
        ),
        (
            {"embedding_spread": 0.05, "alignment_ratio": 0.98},
            "the embeddings of all slices are nearly the same (spread 0.05, ideal 1), those of a pair no closer than "
            "random ones (distance ratio 0.98)",
        ),
    ],
)
def test_a_collapse_in_words(figures, sentence):
    assert verdict(history(*[GOOD | figures] * 2)).sentence == (
        f"collapsed: {sentence}; start again with another --out and a lower --learning-rate or another --method"
    )


@pytest.mark.parametrize(
    ("figures", "learns"),
    [
        ({"loss_mean": 3.65, "loss_sd": 0.1}, True),  # fallen by 0.45; below 95% of chance, 3.6575
        ({"loss_mean": 3.65, "loss_sd": 0.16}, False),  # not by three standard errors
        ({"loss_mean": 3.66, "loss_sd": 0.1}, False),
        ({"loss_mean": 3.94, "loss_sd": 0.0, "loss_chance": None}, False),  # by less than 5%, 0.205
        ({"loss_mean": 3.89, "loss_sd": 0.0, "loss_chance": None}, True),
        ({"alignment_ratio": 0.91}, False),
        ({"alignment_ratio": 0.89}, True),
        (
            {"score": 0.33 + 0.149, "score_error": 0.046},
            False,
        ),  # three times the root of 0.02² + 0.046²: 0.1505
        ({"score": 0.33 + 0.152, "score_error": 0.046}, True),
    ],
)
def test_bounds_of_learning(figures, learns):
    assert verdict(history(*[SAME | figures] * 4)).state == (HEALTHY if learns else NOT_LEARNING)


def test_not_learning_in_words():
    conclusion = verdict(history(*[SAME] * 4)[:3])
    assert conclusion.sentence == (
        "not learning: after 50% of the time the loss is 4.08 (3.85 by chance, 4.1 at the start), and a pair's "
        "views are 1.00 times as far apart as random ones (1.00 at the start); start again with another --out and a "
        "higher --learning-rate, larger --batch or another --method"
    )
    assert verdict(history(SAME), final=True).sentence.startswith("not learning: the loss is 4.08 (")


@pytest.mark.parametrize(
    ("first", "chance", "loss", "diverged"),
    [
        (4.0, 3.0, 8.0, False),  # twice its beginning
        (4.0, 3.0, 8.01, True),
        (4.0, 6.0, 10.0, False),  # its beginning above chance
        (4.0, 6.0, 10.01, True),
        (4.0, None, 8.01, True),
        (0.1, None, 1.09, False),  # a loss that begins near nothing may rise to one
        (0.1, None, 1.11, True),
        (-2.0, None, -0.01, False),
        (-2.0, None, 0.01, True),
        (None, None, 900.0, False),
        (4.0, None, None, False),
    ],
)
def test_bounds_of_a_loss_that_ran_away(first, chance, loss, diverged):
    changes = {"loss_mean": loss, "loss_chance": chance}
    conclusion = verdict([START | {"loss_mean": first}, START | changes | {"step": 500, "share": 1.0}])
    assert (conclusion.state == DIVERGED) == diverged


@pytest.mark.parametrize(
    ("step", "share", "counts"), [(100, 0.06, True), (99, 0.06, False), (100, 0.05, False)]
)
def test_steps_from_which_a_run_is_judged(step, share, counts):
    run = [START, START | GOOD | {"step": step, "share": share}]
    assert (verdict(run, warmup=0.05).state == HEALTHY) == counts


def test_the_first_label_that_a_store_has_is_told():
    planes = {key for key in START if key.startswith("knn_plane")}
    run = [
        {k: v for k, v in line.items() if k not in planes}
        | {"knn_sequence": 0.5, "knn_sequence_chance": 0.25}
        for line in history(GOOD)
    ]
    assert verdict(run).sentence.startswith(
        "healthy: neighbours of other subjects share the sequence in 50% (25% by chance, 50% at the start), effective"
    )
    assert verdict([START]).sentence == (  # nothing to compare the start with
        "too early to tell: neighbours of other subjects share the plane in 63% (33% by chance), effective rank 93 of "
        "512, the loss is 4.1 (3.85 by chance)"
    )
    unknown = {"loss_mean": None, "loss_chance": None}
    assert verdict([START | unknown]).sentence.endswith("of 512, no loss is known")
    assert verdict([]).sentence == "too early to tell: nothing was measured"
