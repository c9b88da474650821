"""How sure a score is: bootstrap over groups, paired differences, and corrections for many comparisons.

Images of one patient are alike, so images are not what is resampled: groups are, with replacement, and all
predictions of a group (every arm, every seed) move together (cluster bootstrap: Field & Welsh 2007,
doi:10.1111/j.1467-9868.2007.00593.x; pairing: Efron & Tibshirani 1993, chapter 8).

Seeds are a second source of chance, crossed with the groups. Resampling three seeds literally goes wrong
twice: it shrinks their variance by a third, and together with the groups it counts the chance of a single
training run up to three times (the pigeonhole bootstrap's bias: Owen 2007, doi:10.1214/07-AOAS122). So each
draw resamples the groups, keeps all seeds, and adds a normal deviate with the variance that is left between
seeds once the group-by-seed part, which the group draws contain already, is taken out. Few seeds say little
about that variance; deviations are widened by t/z with Satterthwaite's degrees of freedom (Satterthwaite
1946, doi:10.2307/3002019), which for few groups is also Hesterberg's expanded percentile interval (2015,
doi:10.1080/00031305.2015.1089789). tests/finetune/test_statistics.py measures the result.

What no resampling of predictions can show: how another training *set* would have done (Bengio & Grandvalet
2004, JMLR 5:1089-1105). New folds for each seed cover part of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

DRAWS = 2000
LEVEL = 0.95
POWER = 0.80


@dataclass(frozen=True)
class Resampling:
    """One set of bootstrap draws, shared by every arm so that differences are paired.

    Attributes:
        groups: int (n,), the group of each image as 0..G-1 in order of first appearance, so that renaming
            groups changes nothing.
        weights: float64 (1 + draws, G), how often each draw contains each group; row 0 is all ones: the data
            itself.
        noise: float64 (draws,), standard normal deviates for the seeds' part.
        effective: the number of equally large groups that would be worth as much: (sum of sizes)² / sum of
            sizes² (Kish 1965).
    """

    groups: np.ndarray
    weights: np.ndarray
    noise: np.ndarray
    effective: float

    @classmethod
    def of(cls, groups: np.ndarray, draws: int = DRAWS, seed: int = 0) -> Resampling:
        """Draw `draws` resamples of the distinct values in `groups` (n,)."""
        _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
        rank = np.empty(first.size, dtype=np.int64)
        rank[np.argsort(first)] = np.arange(first.size)
        index = rank[inverse]
        count = first.size
        generator = np.random.default_rng(seed)
        weights = np.ones((draws + 1, count))
        picks = generator.integers(count, size=(draws, count)) + np.arange(draws)[:, None] * count
        weights[1:] = np.bincount(picks.ravel(), minlength=draws * count).reshape(draws, count)
        sizes = np.bincount(index).astype(np.float64)
        effective = sizes.sum() ** 2 / (sizes**2).sum()
        return cls(index, weights, generator.standard_normal(draws), float(effective))

    @property
    def count(self) -> int:
        """Number of groups."""
        return self.weights.shape[1]

    def sums(self, by_group: np.ndarray) -> np.ndarray:
        """Sums (groups, ...) of each group -> sums (1 + draws, ...) of each draw."""
        return (self.weights @ by_group.reshape(self.count, -1)).reshape(-1, *by_group.shape[1:])


@dataclass(frozen=True)
class Sources:
    """Where the variance of a mean over seeds comes from, so that it can be foretold for other numbers of seeds.

    Attributes:
        groups: variance over groups that all seeds share; more seeds do nothing about it.
        runs: variance over groups that each training has of its own.
        spread: variance between the seeds' scores on the data itself; 0 for one seed, where it is unknown.
        effective: see :class:`Resampling`.
    """

    groups: float
    runs: float
    spread: float
    effective: float

    @classmethod
    def of(cls, on_data: np.ndarray, drawn: np.ndarray, effective: float) -> Sources:
        """From scores (seeds,) on the data itself and (draws, seeds) on resampled groups."""
        seeds = on_data.size
        if seeds == 1:
            return cls(float(drawn.var(ddof=1)), 0.0, 0.0, effective)
        covariance = np.cov(drawn, rowvar=False)
        groups = (covariance.sum() - np.trace(covariance)) / (seeds * (seeds - 1))
        runs = np.trace(covariance) / seeds - groups
        return cls(float(groups), float(runs), float(on_data.var(ddof=1)), effective)

    def of_seeds(self, seeds: int) -> float:
        """Variance of a mean over so many seeds that resampling groups doesn't show."""
        return max(0.0, self.spread - self.runs) / seeds

    def error(self, seeds: int) -> tuple[float, float]:
        """Standard error of a mean over so many seeds, and how many of them half a 95% interval is wide."""
        of_groups, of_seeds = max(0.0, self.groups + self.runs / seeds), self.of_seeds(seeds)
        critical, total = float(stats.norm.ppf((1 + LEVEL) / 2)), of_groups + of_seeds
        if total > 0:
            doubt = of_groups**2 / max(1.0, self.effective - 1)
            if of_seeds > 0:
                doubt += (self.spread / seeds) ** 2 / (seeds - 1)
            critical = float(stats.t.ppf((1 + LEVEL) / 2, total**2 / doubt))
        return float(np.sqrt(total)), critical


@dataclass(frozen=True)
class Estimate:
    """A score or a difference with its bootstrap draws.

    Attributes:
        value: the mean over seeds on the data itself; NaN if undefined.
        draws: (draws,) what it might have been on other groups and seeds.
        error: standard error.
        critical: how many standard errors half a 95% interval is wide (1.96, more with few groups or seeds).
        sources: where the error comes from; None if the value is undefined.
    """

    value: float
    draws: np.ndarray
    error: float
    critical: float
    sources: Sources | None = None

    def interval(self, least: float = -np.inf, most: float = np.inf) -> dict[str, float | None]:
        """{"estimate", "low", "high"}: the 95% percentile interval, kept between `least` and `most`."""
        if not np.isfinite(self.value):
            return {"estimate": None, "low": None, "high": None}
        low, high = np.clip(np.nanquantile(self.draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]), least, most)
        return {"estimate": self.value, "low": float(low), "high": float(high)}


def estimate(values: np.ndarray, resampling: Resampling) -> Estimate:
    """Combine the scores of every draw and seed into one estimate.

    Args:
        values: (1 + draws, seeds); row 0 is the score on the data itself.
    """
    on_data, drawn = values[0], values[1:]
    drawn = drawn[np.isfinite(drawn).all(axis=1)]
    value = float(on_data.mean())
    if not np.isfinite(value) or len(drawn) < 2:
        return Estimate(float("nan"), np.empty(0), float("nan"), float("nan"))
    means = drawn.mean(axis=1)
    sources = Sources.of(on_data, drawn, resampling.effective)
    of_seeds = sources.of_seeds(on_data.size)
    error, critical = sources.error(on_data.size)
    widen = critical / float(stats.norm.ppf((1 + LEVEL) / 2))
    noise = resampling.noise[: len(means)]
    deviations = (means - value) + np.sqrt(of_seeds) * noise
    return Estimate(value, value + widen * deviations, error, critical, sources)


def probability_above_zero(draws: np.ndarray) -> float:
    """Share of draws above zero, ties counting a half: P(A > B) when draws are of A - B."""
    return float(((draws > 0).mean() + (draws >= 0).mean()) / 2)


def p_value(draws: np.ndarray) -> float:
    """Two-sided bootstrap p-value of "the difference is zero": the interval, inverted.

    Twice the smaller share of draws on either side of zero (Davison & Hinkley 1997, chapter 5), with one
    added to both counts so that it is never zero (Phipson & Smyth 2010, doi:10.2202/1544-6115.1585).
    """
    beyond = min((draws <= 0).sum(), (draws >= 0).sum())
    return float(min(1.0, 2 * (1 + beyond) / (1 + draws.size)))


def smallest_detectable(error: float, critical: float = 1.959964) -> float:
    """The true difference that would be found with 80% power at the 5% level: (1.96 + 0.84) standard errors.

    Cohen 1988, chapter 2; `critical` is above 1.96 where the standard error itself is uncertain.
    """
    return (critical + float(stats.norm.ppf(POWER))) * error


def compare(a: np.ndarray, b: np.ndarray, resampling: Resampling) -> dict[str, Any]:
    """The paired difference A - B of two arms' scores on the same draws and seeds.

    Args:
        a, b: (1 + draws, seeds).

    Returns:
        {"difference": {"estimate", "low", "high"}, "p_a_better", "p_value", "smallest_detectable",
        "detectable_with_twice_the_seeds", "standard_error"}; the figures are None where a score is undefined.
        What twice the seeds could show is an estimate from the variances of these; None for a single seed.
        "by_seed" is the difference of each seed on the data itself.
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
    doubled = smallest_detectable(*difference.sources.error(2 * seeds)) if seeds > 1 else None
    return {
        "difference": difference.interval(),
        "p_a_better": probability_above_zero(difference.draws),
        "p_value": p_value(difference.draws),
        "smallest_detectable": smallest_detectable(difference.error, difference.critical),
        "detectable_with_twice_the_seeds": doubled,
        "standard_error": difference.error,
        "by_seed": (a - b)[0].tolist(),
    }


def holm(p_values: list[float | None]) -> list[float | None]:
    """p-values corrected for their number (Holm 1979, Scandinavian Journal of Statistics 6:65-70).

    The smallest is multiplied by m, the next by m - 1, and so on, never falling below an earlier one; at most
    1. None (a comparison that could not be made) stays None and is not counted.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        corrected[i] = highest
    return corrected


def mcnemar_exact(right_a: np.ndarray, right_b: np.ndarray) -> dict[str, Any]:
    """Exact McNemar test of two single models on the same images (McNemar 1947, doi:10.1007/BF02295996).

    It takes images as independent, so on images of few patients it is too sure of itself: the bootstrap
    over groups above is the test that the verdict rests on.

    Args:
        right_a, right_b: bool (n,), whether each model classified the image rightly.

    Returns:
        {"only_a", "only_b": images that one alone classified rightly, "p_value"}.
    """
    only_a, only_b = int((right_a & ~right_b).sum()), int((~right_a & right_b).sum())
    p = float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return {"only_a": only_a, "only_b": only_b, "p_value": p}
