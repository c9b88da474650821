"""Out-of-fold predictions of a comparison, and every figure that follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from mri_transfer.errors import UserError
from mri_transfer.evaluation import metrics
from mri_transfer.finetune.comparison import parts, statistics
from mri_transfer.finetune.comparison.floors import floor_entries
from mri_transfer.finetune.comparison.one_source_verdict import with_one_source
from mri_transfer.finetune.comparison.verdict import headline_cell, verdict
from mri_transfer.finetune.config import MODES

Cell = tuple[str, str, float]
"""(arm, mode, fraction), where mode is "probe", "nearest" or "finetune" and fraction that of training groups."""


@dataclass(frozen=True)
class Predictions:
    """Every arm's predictions for every image it was not trained on.

    Attributes:
        arms: names, in the order of the command line.
        classes: names, in the order of the labels.
        labels: int (n,).
        groups: int (n,), images that must stay together.
        seeds: the seeds, in the order of the first axis of the probabilities.
        probabilities: for each (arm, mode, fraction), float32 (seeds, n, classes), out of fold; rows sum to one.
        published: for each (arm, mode), float32 (seeds, m, classes) on the m test images of the published
            split, by models trained on its training images; may be empty.
        published_labels: int (m,).
        published_leaked: bool (m,), pixel-identical to a training image of the published split.
        published_near: bool (m,), nearly but not pixel-identical to one; None: unknown.
        published_groups: int (m,), for intervals; None makes every image its own group.
        kinds, backbones: by arm, its kind of start ("imagenet", "random", "scaled", "pixels" or "encoder") and network;
            inferred from names if missing.
        pretraining: by arm, its encoders' pretraining; see :func:`mri_transfer.finetune.arms.wording.pretraining_of`.
        floors: by name, float32 (seeds, n, classes) like probabilities, at the headline's label fraction; see
            :mod:`mri_transfer.finetune.comparison.floors`.
        sources: each image's recognised collection, "" if unknown; empty: unknown for all.

    Raises:
        UserError: inconsistent shapes or values; such trials must be redone.
    """

    arms: tuple[str, ...]
    classes: tuple[str, ...]
    labels: np.ndarray
    groups: np.ndarray
    seeds: tuple[int, ...]
    probabilities: Mapping[Cell, np.ndarray]
    published: Mapping[tuple[str, str], np.ndarray] = field(default_factory=dict)
    published_labels: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    published_leaked: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    published_near: np.ndarray | None = None
    published_groups: np.ndarray | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)
    backbones: Mapping[str, str] = field(default_factory=dict)
    pretraining: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    floors: Mapping[str, np.ndarray] = field(default_factory=dict)
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.probabilities:
            raise UserError("no finished trials to summarise; run the comparison first")
        if self.groups.shape != self.labels.shape:
            raise UserError(f"{self.labels.size} labels but {self.groups.size} groups; they must match")
        if self.labels.size and not (0 <= self.labels.min() <= self.labels.max() < len(self.classes)):
            raise UserError(
                f"labels outside 0..{len(self.classes) - 1}: not those of {len(self.classes)} classes"
            )
        for key, values in self.probabilities.items():
            self._check(key, values, self.labels.size)
        for floor, values in self.floors.items():
            self._check_shape(f"floor {floor}", values, self.labels.size)
        for published_key, values in self.published.items():
            self._check(published_key, values, self.published_labels.size)
        if self.published and self.published_leaked.shape != self.published_labels.shape:
            raise UserError("the published split has unequal numbers of labels and leak marks")

    def _check(self, key: tuple, values: np.ndarray, images: int) -> None:
        name = " ".join(str(item) for item in key)
        if key[0] not in self.arms:
            raise UserError(f"predictions of an arm that is not in the comparison: {name}")
        self._check_shape(name, values, images)

    def _check_shape(self, name: str, values: np.ndarray, images: int) -> None:
        expected = (len(self.seeds), images, len(self.classes))
        if values.shape != expected:
            raise UserError(f"{name}: predictions of shape {values.shape}, expected {expected}; run it again")
        sums = values.sum(-1)
        # NaN fails this comparison too: an image without a prediction must not be scored.
        if not (np.abs(sums - 1) < 1e-2).all() or (values < -1e-6).any():
            raise UserError(f"{name}: rows are not probabilities that sum to one; run these trials again")

    def cells(self) -> list[tuple[str, float]]:
        """Existing (mode, fraction) pairs: probe, nearest, finetune, each by increasing fraction."""
        cells = {(mode, fraction) for _, mode, fraction in self.probabilities}
        return sorted(cells, key=lambda cell: (MODES.index(cell[0]), cell[1]))

    def arms_of(self, mode: str, fraction: float) -> list[str]:
        """Arms with predictions in a cell, in order."""
        return [arm for arm in self.arms if (arm, mode, fraction) in self.probabilities]


def summarise(
    predictions: Predictions,
    *,
    draws: int = statistics.DRAWS,
    seed: int = 0,
    one_source: Predictions | None = None,
) -> dict[str, Any]:
    """Score every arm, compare every pair of arms, and give the verdict.

    Each figure is the mean over seeds of the score on all out-of-fold predictions, with a 95% interval from
    the bootstrap described in :mod:`mri_transfer.finetune.comparison.statistics`; all arms share the same draws.

    Args:
        draws: bootstrap draws, at least 2,000 for figures to report.
        seed: for draws.
        one_source: predictions of models trained within one source for its images, with the same arms and seeds; see
            :mod:`mri_transfer.finetune.data.one_source`.

    Returns:
        JSON-able {"images", "groups", "classes", "seeds", "draws", "results", "pairs", "floors",
        "published", "by_source", "one_source", "verdict"}: one entry in "results" per arm, mode and fraction (confusion
        counts are averaged over seeds), one in "pairs" per pair of arms, mode and fraction (differences of macro-F1,
        A - B; Holm over all of them, those of one source included). "one_source" is None, or has its own "images",
        "groups", "classes", "class_images", "results", "pairs" and "floors".
    """
    report = _scores(predictions, draws, seed)
    cell = None if one_source is None else _scores(one_source, draws, seed)
    # One family for the whole report, as any of its sentences may be quoted.
    pairs = [*report["pairs"], *(cell["pairs"] if cell else ())]
    for pair, corrected in zip(pairs, statistics.holm([pair["p_value"] for pair in pairs]), strict=True):
        pair["p_holm"] = corrected
    report |= {
        "arm_names": list(predictions.arms),
        "kinds": dict(predictions.kinds),
        "backbones": dict(predictions.backbones),
        "pretraining": {arm: dict(facts) for arm, facts in predictions.pretraining.items()},
        "seeds": list(predictions.seeds),
        "draws": draws,
        "compared": len(pairs),
        "published": _published(predictions, draws, seed),
        "by_source": _by_source(predictions, headline_cell(report["results"]), draws, seed),
        "one_source": cell,
    }
    return {**report, "verdict": with_one_source(report, verdict(report))}


def _scores(predictions: Predictions, draws: int, seed: int) -> dict[str, Any]:
    """Scores, pairs without Holm's correction, and floors for one set of images."""
    resampling = statistics.Resampling.of(predictions.groups, draws, seed)
    if resampling.count < 2:
        raise UserError("all images are in one group, so nothing can be said of others; check the grouping")
    auroc = metrics.MacroAuroc(
        predictions.labels, resampling.groups, resampling.weights, len(predictions.classes)
    )
    results, pairs = [], []
    scored: dict[tuple[str, float], dict[str, np.ndarray]] = {}
    for mode, fraction in predictions.cells():
        scores, by_class = {}, {}
        for arm in predictions.arms_of(mode, fraction):
            entry, by_class[arm] = _score(predictions, (arm, mode, fraction), resampling, auroc)
            scores[arm] = metrics.mean_of_defined(by_class[arm])
            results.append(entry)
        scored[mode, fraction] = scores
        pairs += _pairs(predictions, scores, by_class, mode, fraction, resampling)
    return {
        "images": int(predictions.labels.size),
        "groups": resampling.count,
        "effective_groups": resampling.effective,
        "classes": list(predictions.classes),
        "class_images": np.bincount(predictions.labels, minlength=len(predictions.classes)).tolist(),
        "results": results,
        "pairs": pairs,
        "floors": floor_entries(scored[headline_cell(results)], _floors(predictions, resampling), resampling),
    }


def _score(
    predictions: Predictions, cell: Cell, resampling: statistics.Resampling, auroc: metrics.MacroAuroc
) -> tuple[dict[str, Any], np.ndarray]:
    """One arm's entry, and each class's F1 as (1 + draws, seeds, classes) for the paired differences."""
    labels, groups, count = predictions.labels, resampling.groups, resampling.count
    probabilities = predictions.probabilities[cell]
    by_group = metrics.confusion_by_group(
        labels, probabilities.argmax(-1), groups, count, len(predictions.classes)
    )
    confusion = resampling.sums(by_group)
    losses = resampling.sums(metrics.loss_by_group(labels, probabilities, groups, count))
    bins = metrics.calibration_by_group(labels, probabilities, groups, count).sum(0)
    class_f1, recall = metrics.class_f1(confusion), metrics.recall(confusion)
    macro_f1 = metrics.mean_of_defined(class_f1)

    def share(values: np.ndarray) -> dict[str, float | None]:
        return statistics.estimate(values, resampling).interval(0.0, 1.0)

    def loss(values: np.ndarray) -> dict[str, float | None]:
        return statistics.estimate(values, resampling).interval(0.0, np.inf)

    return {
        "arm": cell[0],
        "mode": cell[1],
        "fraction": cell[2],
        "macro_f1": share(macro_f1),
        "macro_f1_by_seed": macro_f1[0].tolist(),
        "balanced_accuracy": share(metrics.balanced_accuracy(confusion)),
        "accuracy": share(metrics.accuracy(confusion)),
        "f1": {name: share(class_f1[..., k]) for k, name in enumerate(predictions.classes)},
        "recall": {name: share(recall[..., k]) for k, name in enumerate(predictions.classes)},
        "auroc": share(auroc(probabilities)),
        "log_loss": loss(losses[..., 0] / losses[..., 2]),
        "brier": loss(losses[..., 1] / losses[..., 2]),
        # No interval: resamples overstate this error (a mean of absolute gaps), so they would lie above it.
        "ece": {
            "estimate": float(metrics.expected_calibration_error(bins).mean()),
            "low": None,
            "high": None,
        },
        "confusion": by_group.sum(0).mean(0).tolist(),
        "reliability": bins.mean(0).tolist(),
    }, class_f1


def _by_class(
    differences: np.ndarray, classes: tuple[str, ...], resampling: statistics.Resampling
) -> dict[str, Any]:
    """F1 differences (1 + draws, seeds, classes) with intervals, by class and without the largest.

    A lead that vanishes without one class is due to that class.
    """
    summary: dict[str, Any] = {
        "by_class": {
            name: statistics.estimate(differences[..., k], resampling).interval()
            for k, name in enumerate(classes)
        }
    }
    values = differences[0].mean(axis=0)
    if len(classes) > 2 and np.isfinite(values).all():
        largest = int(np.argmax(values * np.sign(values.sum())))
        others = np.delete(differences, largest, axis=-1).mean(axis=-1)
        summary["without_largest_class"] = {
            "class": classes[largest],
            "difference": statistics.estimate(others, resampling).interval(),
        }
    return summary


def _floors(predictions: Predictions, resampling: statistics.Resampling) -> dict[str, np.ndarray]:
    """Macro-F1 of each floor, (1 + draws, seeds)."""
    classes = len(predictions.classes)
    return {
        name: metrics.macro_f1(
            resampling.sums(
                metrics.confusion_by_group(
                    predictions.labels, values.argmax(-1), resampling.groups, resampling.count, classes
                )
            )
        )
        for name, values in predictions.floors.items()
    }


def _pairs(
    predictions: Predictions,
    scores: dict[str, np.ndarray],
    by_class: dict[str, np.ndarray],
    mode: str,
    fraction: float,
    resampling: statistics.Resampling,
) -> list[dict[str, Any]]:
    pairs: list[dict[str, Any]] = []
    for a, b in combinations(scores, 2):
        pair: dict[str, Any] = {"a": a, "b": b, "mode": mode, "fraction": fraction}
        pair |= statistics.compare(scores[a], scores[b], resampling)
        pair |= _by_class(by_class[a] - by_class[b], predictions.classes, resampling)
        if len(predictions.seeds) == 1:
            right = [
                predictions.probabilities[arm, mode, fraction][0].argmax(-1) == predictions.labels
                for arm in (a, b)
            ]
            pair["mcnemar"] = statistics.mcnemar_exact(*right)
        pairs.append(pair)
    return pairs


def _published(predictions: Predictions, draws: int, seed: int) -> list[dict[str, Any]]:
    """Scores on the published test images: all, copies of training images, near-copies, and the clean remainder."""
    labels, leaked = predictions.published_labels, predictions.published_leaked
    near, groups = predictions.published_near, predictions.published_groups
    near = np.zeros(labels.size, dtype=bool) if near is None else near & ~leaked
    masks = {
        "all": np.ones(labels.size, dtype=bool),
        "leaked": leaked,
        "near": near,
        "clean": ~leaked & ~near,
    }
    if not predictions.published:
        return []
    scores = parts.Parts(
        masks,
        labels,
        np.arange(labels.size) if groups is None else groups,
        len(predictions.classes),
        draws,
        seed,
    )
    return [
        {"arm": arm, "mode": mode, **scores(probabilities.argmax(-1))}
        for (arm, mode), probabilities in predictions.published.items()
    ]


def _by_source(
    predictions: Predictions, headline: tuple[str, float], draws: int, seed: int
) -> list[dict[str, Any]]:
    """Scores of the headline's models and floors by image source; none if sources are unknown."""
    sources = np.array(predictions.sources, dtype=object)
    if not (sources != "").any():
        return []
    masks = {str(source): sources == source for source in sorted(set(predictions.sources), reverse=True)}
    scores = parts.Parts(masks, predictions.labels, predictions.groups, len(predictions.classes), draws, seed)
    by_arm = {
        arm: predictions.probabilities[arm, headline[0], headline[1]]
        for arm in predictions.arms_of(*headline)
    }
    return [
        {
            "arm": name,
            "floor": name in predictions.floors and name not in by_arm,
            "sources": scores(values.argmax(-1)),
        }
        for name, values in (
            by_arm | {f: v for f, v in predictions.floors.items() if f not in by_arm}
        ).items()
    ]
