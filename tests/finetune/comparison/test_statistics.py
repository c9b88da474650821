"""The statistics are right: false alarms, coverage and power by simulation, the rest against hand-made examples."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, stats

from mri_transfer.evaluation import metrics
from mri_transfer.finetune.comparison import statistics
from mri_transfer.finetune.comparison.verdict import oriented

CLASSES = 4


def simulate(generator, groups=200, seeds=3, arms=2, *, advantage=0.0, of_seed=0.1, mean_size=8):
    """Images in groups of unequal size, classified correctly where a latent score is above zero.

    The score holds what is hard for every arm (group and image), what is hard for one arm, the chance of one
    training run for a group and for an image, and how good a training run is as a whole (`of_seed`).
    """
    sizes = 1 + generator.geometric(1 / mean_size, size=groups)
    group = np.repeat(np.arange(groups), sizes)
    n = group.size
    labels = generator.choice(CLASSES, size=groups, p=[0.31, 0.29, 0.11, 0.29])[group]
    wrong = (labels + 1 + generator.choice(3, size=n, p=[0.6, 0.3, 0.1])) % CLASSES
    hard = 0.8 * generator.normal(size=groups)[group] + 0.6 * generator.normal(size=n)
    predicted = []
    for arm in range(arms):
        score = 1.2 + arm * advantage + hard + 0.5 * generator.normal(size=groups)[group]
        score = (
            score + 0.5 * generator.normal(size=n) + 0.5 * generator.normal(size=(seeds, groups))[:, group]
        )
        score += 0.5 * generator.normal(size=(seeds, n)) + of_seed * generator.normal(size=(seeds, 1))
        predicted.append(np.where(score > 0, labels, wrong))
    return labels, group, predicted


def macro_f1(labels, predicted, resampling):
    by_group = metrics.confusion_by_group(labels, predicted, resampling.groups, resampling.count, CLASSES)
    return metrics.macro_f1(resampling.sums(by_group))


def experiment(runs, seed, draws=2000, **settings):
    """Paired differences and first arm's intervals of many simulated comparisons."""
    generator = np.random.default_rng(seed)
    pairs, singles = [], []
    for run in range(runs):
        labels, group, predicted = simulate(generator, **settings)
        resampling = statistics.Resampling.of(group, draws, seed=run)
        scores = [macro_f1(labels, guess, resampling) for guess in predicted]
        pairs.append(statistics.compare(scores[1], scores[0], resampling))
        singles.append(statistics.estimate(scores[0], resampling).interval())
    return pairs, singles


def truth(seed=99, **settings):
    """Macro-F1 of each arm on very many groups, mean over very many training runs."""
    generator = np.random.default_rng(seed)
    scores = []
    for _ in range(20):
        labels, _, predicted = simulate(generator, groups=4000, seeds=40, **settings)
        everything = np.zeros(labels.size, dtype=int)
        scores.append(
            [
                metrics.macro_f1(metrics.confusion_by_group(labels, guess, everything, 1, CLASSES)[0]).mean()
                for guess in predicted
            ]
        )
    return np.mean(scores, axis=0)


def rejections(pairs):
    return np.mean([pair["p_value"] < 0.05 for pair in pairs])


def coverage(intervals, value):
    return np.mean([interval["low"] <= value <= interval["high"] for interval in intervals])


def test_equal_arms_are_told_apart_rarely():
    pairs, _ = experiment(200, seed=1, draws=400)
    # 200 runs at 5%: more than 23 or fewer than 2 happens once in a thousand times.
    assert 2 <= 200 * rejections(pairs) <= 23


@pytest.mark.slow
def test_equal_arms_are_told_apart_in_at_most_five_per_cent():
    """With three seeds in fewer: what they say of the variance between seeds is little, and is not overrated."""
    pairs, _ = experiment(2000, seed=2)
    assert 0.025 <= rejections(pairs) <= 0.06


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "of_seed"), [(3, 0.0), (1, 0.0), (3, 0.25), (5, 0.1)])
def test_false_alarms_stay_near_five_per_cent_whatever_seeds_do(seeds, of_seed):
    """Near it or below: three seeds that do not differ at all can't show that others would not."""
    pairs, _ = experiment(1000, seed=3, draws=1000, seeds=seeds, of_seed=of_seed)
    assert 0.01 <= rejections(pairs) <= 0.085


@pytest.mark.slow
def test_intervals_cover():
    settings = {"advantage": 0.15}
    worse, better = truth(**settings)
    pairs, singles = experiment(2000, seed=4, **settings)
    # With three seeds rather more than 95%: see the tests of false alarms.
    assert 0.93 <= coverage(singles, worse) <= 0.98
    assert 0.93 <= coverage([pair["difference"] for pair in pairs], better - worse) <= 0.98


@pytest.mark.slow
def test_an_advantage_is_found_as_often_as_promised():
    settings = {"advantage": 0.33, "of_seed": 0.05}
    worse, better = truth(**settings)
    pairs, _ = experiment(600, seed=5, **settings)
    detectable = np.mean([pair["smallest_detectable"] for pair in pairs])
    error = detectable / (1.96 + 0.8416)
    promised = stats.norm.cdf((better - worse) / error - 1.96)
    assert 0.5 < promised < 0.99
    assert rejections(pairs) == pytest.approx(promised, abs=0.07)


@pytest.mark.parametrize("of_seed", [0.0, 0.25])
def test_what_twice_the_seeds_could_show_is_foretold(of_seed):
    settings = {"advantage": 0.2, "of_seed": of_seed, "draws": 200}
    three, _ = experiment(60, seed=9, seeds=3, **settings)
    six, _ = experiment(60, seed=10, seeds=6, **settings)
    foretold = np.median([pair["detectable_with_twice_the_seeds"] for pair in three])
    came = np.median([pair["smallest_detectable"] for pair in six])
    assert foretold == pytest.approx(came, rel=0.15)
    assert came < 0.9 * np.median([pair["smallest_detectable"] for pair in three])


def test_one_seed_foretells_nothing():
    pairs, _ = experiment(1, seed=11, seeds=1, draws=200)
    assert pairs[0]["detectable_with_twice_the_seeds"] is None


def test_a_large_advantage_is_found():
    pairs, _ = experiment(40, seed=6, draws=500, advantage=1.0, of_seed=0.05)
    assert rejections(pairs) > 0.95
    assert all(pair["difference"]["estimate"] > 0.05 for pair in pairs)
    assert np.mean([pair["p_a_better"] for pair in pairs]) > 0.99


def test_identical_arms_differ_by_exactly_nothing():
    labels, group, predicted = simulate(np.random.default_rng(7))
    resampling = statistics.Resampling.of(group, 300)
    scores = macro_f1(labels, predicted[0], resampling)
    pair = statistics.compare(scores, scores.copy(), resampling)
    assert pair["difference"] == {"estimate": 0, "low": 0, "high": 0}
    assert pair["p_value"] == 1
    assert pair["p_a_better"] == 0.5
    assert pair["smallest_detectable"] == 0


def test_swapping_the_arms_turns_the_difference_round():
    labels, group, predicted = simulate(np.random.default_rng(8))
    resampling = statistics.Resampling.of(group, 2000)
    a, b = (macro_f1(labels, guess, resampling) for guess in predicted)
    there, back = statistics.compare(a, b, resampling), statistics.compare(b, a, resampling)
    assert there["difference"]["estimate"] == -back["difference"]["estimate"]
    assert np.mean(there["by_seed"]) == pytest.approx(there["difference"]["estimate"])
    turned = oriented([{"a": "a", "b": "b", **there}], "b", "a")
    assert turned["by_seed"] == back["by_seed"]
    assert there["p_a_better"] == pytest.approx(1 - back["p_a_better"], abs=0.02)
    # The seeds' noise is not mirrored, so the ends agree only as well as 2,000 draws can tell.
    assert there["difference"]["low"] == pytest.approx(-back["difference"]["high"], abs=0.006)


def test_seeds_that_disagree_widen_the_interval():
    generator = np.random.default_rng(9)
    labels, group, (predicted,) = simulate(generator, arms=1, of_seed=0)
    resampling = statistics.Resampling.of(group, 2000)
    alike = statistics.estimate(macro_f1(labels, predicted, resampling), resampling)
    scores = macro_f1(labels, predicted, resampling) + np.array([-0.3, 0.0, 0.3])
    apart = statistics.estimate(scores, resampling)
    assert apart.error > 2 * alike.error
    assert apart.error == pytest.approx(np.hypot(alike.error, 0.3 / np.sqrt(3)), rel=0.2)
    # Three seeds that agree don't prove that others would, yet they say more than three that disagree.
    widths = [estimate.sources.half_width(3) / estimate.error for estimate in (apart, alike)]
    assert widths[0] > 3 > 2.6 > widths[1] > 1.96


def test_renaming_groups_changes_nothing():
    generator = np.random.default_rng(10)
    _, group, _ = simulate(generator, groups=50)
    names = generator.permutation(50) * 7 + 3
    first, second = statistics.Resampling.of(group, 100, 5), statistics.Resampling.of(names[group], 100, 5)
    np.testing.assert_array_equal(first.weights, second.weights)
    np.testing.assert_array_equal(first.groups, second.groups)
    assert first.effective == second.effective


def test_a_resample_has_as_many_groups_as_the_data():
    resampling = statistics.Resampling.of(np.repeat(np.arange(30), 4), 500)
    assert resampling.weights.shape == (501, 30)
    assert (resampling.weights[0] == 1).all()
    assert (resampling.weights.sum(1) == 30).all()
    assert resampling.effective == pytest.approx(30)
    assert resampling.weights[1:].mean(0) == pytest.approx(np.ones(30), abs=0.2)


def test_few_unequal_groups_are_worth_less():
    resampling = statistics.Resampling.of(np.repeat(np.arange(3), [98, 1, 1]), 10)
    assert 1 < resampling.effective < 1.1


def test_holm_by_hand():
    # Holm 1979: sorted .005 .01 .03 .04 times 4 3 2 1 = .02 .03 .06 .04, and the last may not fall below .06.
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.9, 0.6]) == [1.0, 1.0]
    assert statistics.holm([0.02, None]) == [0.02, None]
    assert statistics.holm([]) == []


def test_smallest_detectable_is_two_point_eight_errors():
    many = statistics.Sources(groups=1e-4, runs=0.0, spread=0.0, effective=1e6)
    assert statistics.smallest_detectable(many.half_width(3), many.error(3)) == pytest.approx(
        (1.95996 + 0.84162) * 0.01, rel=1e-4
    )


def test_mcnemar_by_hand():
    right_a = np.array([True] * 9 + [False] * 1 + [True] * 50)
    right_b = np.array([False] * 9 + [True] * 1 + [True] * 50)
    result = statistics.mcnemar_exact(right_a, right_b)
    # Two-sided: twice the chance of at most one head in ten tosses, 2 * (1 + 10) / 1024.
    assert result == {"only_a": 9, "only_b": 1, "p_value": pytest.approx(22 / 1024)}
    assert statistics.mcnemar_exact(right_a, right_a)["p_value"] == 1


def test_p_value_is_never_zero_and_inverts_the_interval():
    assert statistics.p_value(np.full(999, 1.0)) == pytest.approx(2 / 1000)
    generator = np.random.default_rng(11)
    for shift in (1.8, 1.9, 2.02, 2.15):
        draws = generator.normal(size=20001) + shift
        assert (np.quantile(draws, 0.025) > 0) == (statistics.p_value(draws) < 0.05)


def test_p_goes_on_below_what_draws_can_resolve_and_ends_at_a_floor():
    resampling = statistics.Resampling.of(np.arange(400), 500)
    rng = np.random.default_rng(12)
    scores = np.repeat(resampling.sums(rng.normal(size=(400, 1)))[:, :1] / 400, 6, axis=1)
    scores = scores + 0.02 * rng.normal(size=6)
    error = statistics.estimate(scores, resampling).error
    centred = scores - scores[0].mean()
    p = [
        statistics.compare(centred + far * error, 0 * scores, resampling)["p_value"]
        for far in (1, 2, 3, 4, 5, 8, 40)
    ]
    assert p == sorted(p, reverse=True)
    assert p[3] < 2 / 501
    assert p[-1] == statistics.LEAST_P


@pytest.mark.parametrize(("groups", "between"), [(0, 0), (0, 10), (0, 100), (1, 1), (3, 30)])
def test_false_alarms_of_three_seeds_whatever_the_variances(groups, between):
    """A normal model: variances over groups and between seeds as multiples of the group-by-seed part."""
    rng = np.random.default_rng(13)
    seeds, base, runs = 3, 1e-4, 1500
    error = np.sqrt(base * (groups + (1 + between) / seeds))
    spreads = base * (1 + between) * rng.chisquare(seeds - 1, runs) / (seeds - 1)
    p = [
        statistics.Sources(groups * base, base, spread, 300).beyond(abs(difference), seeds)
        for spread, difference in zip(spreads, error * rng.normal(size=runs), strict=True)
    ]
    # Bounds of 6% and 1.5%, and three standard errors of so many runs.
    assert np.mean(np.array(p) < 0.05) < 0.06 + 0.018
    assert np.mean(np.array(p) < 0.01) < 0.015 + 0.009


@pytest.mark.parametrize("seeds", [3, 6])
def test_a_variance_between_seeds_that_dwarfs_all_else_makes_it_students_t(seeds):
    lone = statistics.Sources(groups=0.0, runs=1e-9, spread=0.04, effective=1e6)
    error = np.sqrt(0.04 / seeds)
    assert lone.half_width(seeds) == pytest.approx(stats.t.ppf(0.975, seeds - 1) * error, rel=0.06)


def test_an_undefined_score_stays_undefined():
    resampling = statistics.Resampling.of(np.arange(10), 50)
    nothing = np.full((51, 2), np.nan)
    assert len(statistics.estimate(nothing, resampling).draws) == 0
    assert statistics.estimate(nothing, resampling).interval() == {
        "estimate": None,
        "low": None,
        "high": None,
    }
    assert statistics.compare(nothing, nothing, resampling)["p_value"] is None


def test_one_training_over_few_groups_is_students_t_of_their_number():
    few = statistics.Sources(groups=4e-4, runs=0.0, spread=0.0, effective=11)
    assert few.error(1) == pytest.approx(0.02)
    assert few.half_width(1) == pytest.approx(stats.t.ppf(0.975, 10) * 0.02, rel=1e-5)
    for distance in (0.01, 0.04, 0.1):
        assert few.beyond(distance, 1) == pytest.approx(2 * stats.t.sf(distance / 0.02, 10))
    lone = statistics.Sources(
        groups=4e-4, runs=0.0, spread=0.0, effective=1.5
    )  # one degree of freedom at least
    assert lone.beyond(0.1, 1) == pytest.approx(2 * stats.t.sf(5, 1))
    nothing = statistics.Sources(0.0, 0.0, 0.0, 11)
    assert (nothing.beyond(0.0, 3), nothing.beyond(1e-9, 3), nothing.half_width(3)) == (1, 0, 0)


def test_where_the_variance_of_a_mean_comes_from():
    rng = np.random.default_rng(20)
    draws = 0.03 * rng.normal(size=(5000, 1)) + 0.04 * rng.normal(size=(5000, 3))
    on_data = np.array([0.7, 0.8, 0.6])
    sources = statistics.Sources.of(on_data, draws, 9.0)
    covariances = [np.cov(draws[:, i], draws[:, j])[0, 1] for i, j in ((0, 1), (0, 2), (1, 2))]
    assert sources.groups == pytest.approx(np.mean(covariances))
    assert sources.groups + sources.runs == pytest.approx(
        np.mean([draws[:, i].var(ddof=1) for i in range(3)])
    )
    assert (sources.spread, sources.effective) == (pytest.approx(0.01), 9)
    single = statistics.Sources.of(on_data[:1], draws[:, :1], 9.0)
    assert (single.groups, single.runs, single.spread) == (pytest.approx(draws[:, 0].var(ddof=1)), 0, 0)
    # The part of each training and what the seeds vary beyond it shrink with their number.
    assert statistics.Sources(1.0, 3.0, 9.0, 9).error(3) == pytest.approx(2)
    assert statistics.Sources(1.0, 3.0, 0.5, 9).error(3) == pytest.approx(np.sqrt(2))


@pytest.mark.parametrize(
    ("runs", "spread", "seeds", "usual"),
    [(1e-4, 4e-4, 3, np.inf), (1e-4, 1e-2, 3, 0.05), (1e-4, 1e-5, 6, np.inf), (1e-4, 1e-2, 2, 0.3)],
)
def test_the_variance_between_seeds_is_drawn_from_its_posterior(runs, spread, seeds, usual):
    """The density of the module's docstring, integrated over the logarithm of the variance."""
    sources, shift = statistics.Sources(0.0, runs, spread, 50), statistics.WITHIN * runs

    def density(log):
        b = np.exp(log) - shift
        return (
            (runs + b) ** (-(seeds - 1) / 2)
            * np.exp(-(seeds - 1) / 2 * spread / (runs + b))
            / (1 + b / usual**2)
        )

    grid = np.linspace(np.log(shift), np.log(shift + 1e6 * max(runs, spread)), 20001)
    cumulative = integrate.cumulative_trapezoid(density(grid), grid, initial=0)
    variances, weights = sources.between(seeds, usual)
    assert weights.sum() == pytest.approx(1)
    assert (np.diff(variances) > 0).all()
    for share in (0.3, 0.5, 0.7, 0.9, 0.975):
        expected = np.exp(np.interp(share, cumulative / cumulative[-1], grid))
        quantile = np.interp(share, np.cumsum(weights) - weights / 2, variances) + shift
        assert quantile == pytest.approx(expected, rel=0.02)
        if usual == np.inf:
            assert sources.drawn(seeds, np.array([share]))[0] + shift == pytest.approx(quantile)


def test_draws_deviate_by_groups_and_by_seeds():
    resampling = statistics.Resampling.of(np.repeat(np.arange(12), 2), 300, seed=3)
    rng = np.random.default_rng(21)
    values = 0.7 + 0.05 * rng.normal(size=(301, 1)) + 0.02 * rng.normal(size=(301, 2))
    estimate = statistics.estimate(values, resampling)
    assert estimate.value == pytest.approx(values[0].mean())
    between = estimate.sources.drawn(2, resampling.luck)
    expected = (values[1:].mean(1) - estimate.value) * resampling.stretch + np.sqrt(
        between / 2
    ) * resampling.noise
    np.testing.assert_allclose(estimate.draws, estimate.value + expected)
    single = statistics.estimate(values[:, :1], resampling)
    np.testing.assert_allclose(
        single.draws, values[0, 0] + (values[1:, 0] - values[0, 0]) * resampling.stretch
    )
    # Draws that hold no image of a class are left out; a single one is no distribution.
    values[5:] = np.nan
    assert statistics.estimate(values, resampling).draws.shape == (4,)
    values[2:] = np.nan
    assert np.isnan(statistics.estimate(values, resampling).value)


def test_few_groups_stretch_the_draws_as_a_chi_squared_deviate_does():
    groups = np.repeat(np.arange(5), 3)
    resampling = statistics.Resampling.of(groups, 20000)
    assert resampling.effective == pytest.approx(5)
    assert stats.kstest(4 / resampling.stretch**2, stats.chi2(4).cdf).pvalue > 0.001
    assert stats.kstest(resampling.noise, stats.norm.cdf).pvalue > 0.001
    assert stats.kstest(resampling.luck, stats.uniform.cdf).pvalue > 0.001
    # Each group is drawn as often as the others, and independently: counts are binomial.
    assert resampling.weights[1:].var(0) == pytest.approx(np.full(5, 5 * 0.2 * 0.8), rel=0.05)
    alone = statistics.Resampling.of(np.zeros(4, int), 20000)
    assert stats.kstest(1 / alone.stretch**2, stats.chi2(1).cdf).pvalue > 0.001
    assert statistics.Resampling.of(groups, 20, seed=1).weights.tolist() != resampling.weights[:21].tolist()


def test_intervals_are_percentiles_kept_within_bounds():
    estimate = statistics.Estimate(0.5, np.linspace(0, 1, 1001), 0.1)
    assert estimate.interval() == {"estimate": 0.5, "low": pytest.approx(0.025), "high": pytest.approx(0.975)}
    assert estimate.interval(0.1, 0.9) == {"estimate": 0.5, "low": 0.1, "high": 0.9}


def test_shares_of_draws_by_hand():
    draws = np.array([-1.0, 0.0, 0.0, 2.0, 3.0])
    assert statistics.probability_above_zero(draws) == pytest.approx(0.6)
    assert statistics.p_value(np.repeat([-1.0, 1.0], [5, 94])) == pytest.approx(0.12)
    assert statistics.p_value(np.zeros(9)) == 1


@pytest.mark.parametrize("beyond", [19, 20, 40])
def test_p_is_counted_where_twenty_draws_lie_beyond_zero(beyond):
    sources = statistics.Sources(1e-4, 1e-5, 1e-5, 50)
    estimate = statistics.Estimate(0.03, np.repeat([-0.01, 0.03], [beyond, 2000 - beyond]), 0.01, sources)
    counted, modelled = 2 * (1 + beyond) / 2001, sources.beyond(0.03, 3, 0.3)
    assert abs(counted - modelled) > 1e-3
    assert statistics.resolved_p_value(estimate, 3) == pytest.approx(modelled if beyond == 19 else counted)
    mirrored = statistics.Estimate(-0.03, -estimate.draws, 0.01, sources)
    assert statistics.resolved_p_value(mirrored, 3) == pytest.approx(statistics.resolved_p_value(estimate, 3))


@pytest.mark.slow
def test_equal_starts_with_three_seeds_are_told_apart_no_more_often_than_promised():
    """Exchangeable random projections, half of the groups each time: see benchmarks/false_alarms.py."""
    script = Path(__file__).resolve().parents[3] / "benchmarks" / "false_alarms.py"
    false_alarms = runpy.run_path(str(script))
    features, labels, groups = false_alarms["generated"]()
    answers = false_alarms["predictions"](features, labels, groups, projections=8)
    alarms = false_alarms["comparisons"](answers, labels, groups, seeds=3, runs=2000, draws=400)
    assert (alarms["p"] < 0.05).mean() <= 0.06
    assert (alarms["p"] < 0.01).mean() <= 0.015
    assert (alarms["shifted"] < 0.05).mean() >= 0.25  # no cure by never seeing anything
    few, many = np.quantile(alarms["widths"], [0.01, 0.99])
    assert many < 6 * few


def test_of_equal_methods_no_pretraining_is_called_better_on_the_strength_of_one_run():
    """The small version of benchmarks/false_alarms.py: runs differ, methods don't."""
    script = Path(__file__).resolve().parents[3] / "benchmarks" / "false_alarms.py"
    false_alarms = runpy.run_path(str(script))
    features, labels, groups = false_alarms["generated"](groups=60)
    settings = {"anew": False, "fold_seeds": 3, "dimensions": 8}
    answers = false_alarms["predictions"](features, labels, groups, 24, **settings)
    alarms = false_alarms["claims"](answers, labels, groups, seeds=3, runs=150, draws=200)
    once, repeated = alarms["once"], alarms["repeated"]
    assert once["p"] > 0.2  # the encoders do differ, and a claim about the method would be wrong that often
    assert (once["pretraining"], once["encoder"]) == (0, once["p"])
    assert (repeated["encoder"], repeated["pretraining"]) == (0, repeated["p"])
    assert repeated["p"] < once["p"] / 2  # so few projections say no more; the script has the rates
