"""Uncertainty of scores: bootstrap over groups, paired differences, and corrections for many comparisons.

Images of one patient are alike, so groups, not images, are resampled with replacement, and all predictions of a group
(every arm, every seed) move together (cluster bootstrap: Field & Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x;
pairing: Efron & Tibshirani 1993, chapter 8).

Seeds are a second source of chance, crossed with the groups. Naively resampling three seeds is wrong twice: it shrinks
their variance by a third, and together with the groups it counts the variation of a single training run up to three
times (the pigeonhole bootstrap's bias: Owen 2007, doi:10.1214/07-AOAS122). So each draw resamples the groups, keeps all
seeds, and adds a normal deviate with the variance between seeds that the group draws don't contain.

Few seeds say little about that variance B: three that agree by luck would look like no variance. So B isn't estimated;
each draw samples it from its posterior given the spread of the seeds' scores (chi-squared with seeds - 1 degrees of
freedom around R + B, where R is the part that the group draws contain; Tiao & Tan 1965, Biometrika 52:37-53). Its prior
is weakly informative, as few units require (Gelman 2006, doi:10.1214/06-BA117A): 1 / (B + 0.015 R), log-uniform from
about a hundredth of R on. For B far above R, the result is Student's t over the seeds. The groups' own variance, too,
is only as certain as their number allows: each draw's deviation is stretched by the root of a scaled inverse
chi-squared deviate, turning a normal deviate into Student's t (for few groups compare Hesterberg 2015,
doi:10.1080/00031305.2015.1089789).

With exchangeable random projections of real features (benchmarks/false_alarms.py), two equal arms of three seeds differ
significantly in 2.9% of comparisons at the 5% level and in 0.05% of 2,000 at 1%; a test repeats this on generated
features.

Resampling predictions cannot show how another training *set* would have done (Bengio & Grandvalet 2004, JMLR
5:1089-1105). New folds for each seed cover part of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from mri_transfer.evaluation.numbering import numbered
from mri_transfer.evaluation.resampling import draw_groups

DRAWS = 2000
LEVEL = 0.95
POWER = 0.80
LEAST_P = 1e-6  # below that a tail rests on the model alone; written "≤"
RESOLVED = 20  # with this many draws beyond zero, their share is the p-value
# Fraction of the group-by-seed variance at which the prior of the seed variance levels off.
WITHIN = 0.015
USUAL = 0.3  # for differences of scores in 0..1: seeds hardly deviate by more, see resolved_p_value
NODES = 400  # of the seed variance's posterior


@dataclass(frozen=True)
class Resampling:
    """One set of bootstrap draws, shared by every arm so that differences are paired.

    Attributes:
        groups: int (n,), each image's group as 0..G-1 in order of first appearance, so that renaming groups changes
            nothing.
        weights: float64 (1 + draws, G), how often each draw contains each group; row 0 is all ones: the data
            itself.
        noise: float64 (draws,), standard normal deviates for the seeds' part.
        luck: float64 (draws,), uniform deviates that select the seed variance.
        stretch: float64 (draws,), roots of inverse chi-squared deviates over their degrees of freedom, `effective` - 1.
        effective: the equivalent number of equally large groups: (sum of sizes)² / sum of sizes² (Kish 1965).
    """

    groups: np.ndarray
    weights: np.ndarray
    noise: np.ndarray
    luck: np.ndarray
    stretch: np.ndarray
    effective: float

    @classmethod
    def of(cls, groups: np.ndarray, draws: int = DRAWS, seed: int = 0) -> Resampling:
        """Draw `draws` resamples of the distinct values in `groups` (n,)."""
        first, index = numbered(groups)
        count = len(first)
        generator = np.random.default_rng(seed)
        weights = np.concatenate([np.ones((1, count)), draw_groups(count, draws, generator)])
        sizes = np.bincount(index).astype(np.float64)
        effective = float(sizes.sum() ** 2 / (sizes**2).sum())
        noise, luck = generator.standard_normal(draws), generator.uniform(size=draws)
        freedom = max(1.0, effective - 1)
        stretch = np.sqrt(freedom / generator.chisquare(freedom, draws))
        return cls(index, weights, noise, luck, stretch, effective)

    @property
    def count(self) -> int:
        """Number of groups."""
        return self.weights.shape[1]

    def sums(self, by_group: np.ndarray) -> np.ndarray:
        """Sums (groups, ...) of each group -> sums (1 + draws, ...) of each draw."""
        return (self.weights @ by_group.reshape(self.count, -1)).reshape(-1, *by_group.shape[1:])


@dataclass(frozen=True)
class Sources:
    """Components of the variance of a mean over seeds, to predict it for other numbers of seeds.

    Attributes:
        groups: variance over groups shared by all seeds; more seeds don't reduce it.
        runs: variance over groups specific to each training.
        spread: variance between the seeds' scores on the data itself; 0 for one seed (unknown).
        effective: see :class:`Resampling`.
    """

    groups: float
    runs: float
    spread: float
    effective: float

    @classmethod
    def of(cls, on_data: np.ndarray, resampled: np.ndarray, effective: float) -> Sources:
        """From scores (seeds,) on the data itself and (draws, seeds) on resampled groups."""
        seeds = on_data.size
        if seeds == 1:
            return cls(float(resampled.var(ddof=1)), 0.0, 0.0, effective)
        covariance = np.cov(resampled, rowvar=False)
        groups = (covariance.sum() - np.trace(covariance)) / (seeds * (seeds - 1))
        runs = np.trace(covariance) / seeds - groups
        return cls(float(groups), float(runs), float(on_data.var(ddof=1)), effective)

    def between(self, seeds: int, usual: float = np.inf) -> tuple[np.ndarray, np.ndarray]:
        """Posterior of the variance between `seeds` seeds that resampling groups doesn't show.

        Args:
            seeds: whose spread is known, or would be.
            usual: a deviation between seeds beyond which the prior falls twice as fast.

        Returns:
            Variances (nodes,), ascending, and their weights, which sum to one; a single 0 if nothing is known (one
            seed) or nothing varies.
        """
        largest = max(self.spread, self.runs)
        if seeds < 2 or largest <= 0:
            return np.zeros(1), np.ones(1)
        runs = max(self.runs, 1e-9 * largest)
        shift = WITHIN * runs
        # Nodes are equally spaced in log(B + shift), so the prior's first factor needs no weight.
        steps = (np.arange(NODES) + 0.5) / NODES * np.log1p(1e6 * largest / shift)
        variances = shift * np.expm1(steps)
        total = runs + variances
        log_weights = -(seeds - 1) / 2 * (np.log(total) + self.spread / total) - np.log1p(
            variances / usual**2
        )
        weights = np.exp(log_weights - log_weights.max())
        return variances, weights / weights.sum()

    def drawn(self, seeds: int, luck: np.ndarray) -> np.ndarray:
        """A seed variance for each uniform deviate in `luck` (draws,)."""
        variances, weights = self.between(seeds)
        return np.interp(luck, np.cumsum(weights) - weights / 2, variances)

    def error(self, seeds: int) -> float:
        """Standard error of a mean over `seeds` seeds."""
        return float(np.sqrt(self._of_groups(seeds) + max(0.0, self.spread - self.runs) / seeds))

    def _of_groups(self, seeds: int) -> float:
        return max(0.0, self.groups + self.runs / seeds)

    def beyond(self, distance: float, seeds: int, usual: float = np.inf) -> float:
        """Two-sided probability that a mean over `seeds` seeds is off by more than `distance`; `usual` as above."""
        of_groups = self._of_groups(seeds)
        variances, weights = self.between(seeds, usual)
        total = of_groups + variances / seeds
        if total[-1] <= 0:
            return float(distance <= 0)
        total = np.maximum(total, np.finfo(float).tiny)
        # Given B, only the groups' part is uncertain: Satterthwaite 1946, doi:10.2307/3002019.
        freedom = np.full(total.shape, 1e9)
        if of_groups > 0:
            freedom = np.minimum(freedom, max(1.0, self.effective - 1) * (total / of_groups) ** 2)
        return float(2 * weights @ special.stdtr(freedom, -distance / np.sqrt(total)))

    def half_width(self, seeds: int) -> float:
        """Half a 95% interval of a mean over `seeds` seeds."""
        low, high = 0.0, self.error(seeds)
        if high == 0 and self.beyond(1e-12, seeds) == 0:
            return 0.0
        high = max(high, 1e-9)
        while self.beyond(high, seeds) > 1 - LEVEL:
            low, high = high, 2 * high
        return float(optimize.brentq(lambda x: self.beyond(x, seeds) - (1 - LEVEL), low, high, rtol=1e-6))


@dataclass(frozen=True)
class Estimate:
    """A score or a difference with its bootstrap draws.

    Attributes:
        value: the mean over seeds on the data itself; NaN if undefined.
        draws: (draws,) plausible values on other groups and seeds.
        error: standard error.
        sources: the error's components; None if the value is undefined.
    """

    value: float
    draws: np.ndarray
    error: float
    sources: Sources | None = None

    def interval(self, least: float = -1.0, most: float = 1.0) -> dict[str, float | None]:
        """{"estimate", "low", "high"}: the 95% percentile interval, clipped to `least` and `most`.

        By default to what a difference of two scores in 0..1 can be.
        """
        if not np.isfinite(self.value):
            return {"estimate": None, "low": None, "high": None}
        low, high = np.clip(np.nanquantile(self.draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]), least, most)
        return {"estimate": self.value, "low": float(low), "high": float(high)}


def estimate(values: np.ndarray, resampling: Resampling) -> Estimate:
    """Combine the scores of every draw and seed into one estimate.

    Args:
        values: (1 + draws, seeds); row 0 is the score on the data itself.
    """
    on_data, resampled = values[0], values[1:]
    resampled = resampled[np.isfinite(resampled).all(axis=1)]
    value = float(on_data.mean())
    if not np.isfinite(value) or len(resampled) < 2:
        return Estimate(float("nan"), np.empty(0), float("nan"))
    means = resampled.mean(axis=1)
    seeds, defined = on_data.size, slice(len(means))
    sources = Sources.of(on_data, resampled, resampling.effective)
    between = sources.drawn(seeds, resampling.luck[defined])
    deviations = (means - value) * resampling.stretch[defined]
    deviations += np.sqrt(between / seeds) * resampling.noise[defined]
    return Estimate(value, value + deviations, sources.error(seeds), sources)


def probability_above_zero(draws: np.ndarray) -> float:
    """Share of draws above zero, ties counting half: P(A > B) for draws of A - B."""
    return float(((draws > 0).mean() + (draws >= 0).mean()) / 2)


def p_value(draws: np.ndarray) -> float:
    """Two-sided bootstrap p-value of "the difference is zero": the interval, inverted.

    Twice the smaller share of draws on either side of zero (Davison & Hinkley 1997, chapter 5), with one
    added to both counts so that it is never zero (Phipson & Smyth 2010, doi:10.2202/1544-6115.1585).
    """
    beyond = min((draws <= 0).sum(), (draws >= 0).sum())
    return float(min(1.0, 2 * (1 + beyond) / (1 + draws.size)))


def resolved_p_value(difference: Estimate, seeds: int) -> float:
    """The p-value of a difference, as small as the family of comparisons requires.

    Fewer than 20 draws beyond zero are too few to count, and their smallest share times the number of comparisons would
    leave no lead significant. Then it is the tail of the draws' distribution (see :class:`Sources`), and at least 1e-6.
    That far out, the tail of three seeds comes from seed variances impossible for scores in 0..1, so deviations above
    30 points are down-weighted there.
    """
    assert difference.sources is not None
    beyond = min((difference.draws <= 0).sum(), (difference.draws >= 0).sum())
    if beyond >= RESOLVED:
        return p_value(difference.draws)
    return max(LEAST_P, difference.sources.beyond(abs(difference.value), seeds, USUAL))


def smallest_detectable(half_width: float, error: float) -> float:
    """The true difference detectable with 80% power at the 5% level.

    Half a 95% interval and 0.84 standard errors: with many groups and seeds (1.96 + 0.84) standard errors (Cohen 1988,
    chapter 2).
    """
    return half_width + float(stats.norm.ppf(POWER)) * error


def compare(a: np.ndarray, b: np.ndarray, resampling: Resampling) -> dict[str, Any]:
    """The paired difference A - B of two arms' scores on the same draws and seeds.

    Args:
        a, b: (1 + draws, seeds).

    Returns:
        {"difference": {"estimate", "low", "high"}, "p_a_better", "p_value", "smallest_detectable",
        "detectable_with_twice_the_seeds", "standard_error"}; figures are None if a score is undefined.
        "detectable_with_twice_the_seeds" is estimated from these variances; None for a single seed. "by_seed" is each
        seed's difference on the data itself.
    """
    difference, seeds = estimate(a - b, resampling), a.shape[1]
    if difference.sources is None:
        empty = (
            "p_a_better",
            "p_value",
            "smallest_detectable",
            "detectable_with_twice_the_seeds",
            "standard_error",
        )
        return {"difference": difference.interval(), **dict.fromkeys(empty), "by_seed": []}
    sources = difference.sources
    now, doubled = (
        smallest_detectable(sources.half_width(number), sources.error(number))
        for number in (seeds, 2 * seeds)
    )
    return {
        "difference": difference.interval(),
        "p_a_better": probability_above_zero(difference.draws),
        "p_value": resolved_p_value(difference, seeds),
        "smallest_detectable": now,
        "detectable_with_twice_the_seeds": doubled if seeds > 1 else None,
        "standard_error": difference.error,
        "by_seed": (a - b)[0].tolist(),
    }


def holm(p_values: list[float | None]) -> list[float | None]:
    """p-values corrected for multiplicity (Holm 1979, Scandinavian Journal of Statistics 6:65-70).

    The smallest is multiplied by m, the next by m - 1, and so on, never falling below an earlier one; at most
    1. None (a comparison that could not be made) stays None and is not counted.
    """
    ordered = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(ordered):
        highest = max(highest, min(1.0, (len(ordered) - rank) * p))
        corrected[i] = highest
    return corrected


def mcnemar_exact(right_a: np.ndarray, right_b: np.ndarray) -> dict[str, Any]:
    """Exact McNemar test of two single models on the same images (McNemar 1947, doi:10.1007/BF02295996).

    It treats images as independent, so it is overconfident on images of few patients: the verdict rests on the
    bootstrap over groups above.

    Args:
        right_a, right_b: bool (n,), whether each model classified the image correctly.

    Returns:
        {"only_a", "only_b": images that only one classified correctly, "p_value"}.
    """
    only_a, only_b = int((right_a & ~right_b).sum()), int((~right_a & right_b).sum())
    p = float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return {"only_a": only_a, "only_b": only_b, "p_value": p}
