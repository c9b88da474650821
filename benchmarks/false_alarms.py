"""False alarm rate of the comparison's own statistics: how often two equal starts appear different.

    python benchmarks/false_alarms.py [TUMORS] [--runs 2000] [--seeds 3,6] [--dimensions 32]

Equal by construction: each start has, for each seed, a random projection of the same features, and all projections are
exchangeable. Each run takes half of the groups, other folds and other projections, and computes the p-value as a report
does. With a tumour folder, features are ImageNet's on pictures of known persons; without, they are generated. The same
differences, shifted by 2.8 of their standard deviations, show the power: 80% if the standard deviation were known.

Then pretrainings vary between runs, as real ones do: each of two equal methods is a projection, drawn once for all
seeds ("pretrained once") or anew for each ("repeated"). It counts how often p is below 0.05, and how often the report's
own sentence calls one *pretraining* the better start, which is wrong, as the methods are equal. Calling one *encoder*
better may be right: these two encoders do differ. Fewer dimensions make runs differ more.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from scipy import stats

from mri_transfer.datasets.tumors.folds import grouped_folds
from mri_transfer.evaluation import metrics
from mri_transfer.finetune.arms.wording import pretraining_of
from mri_transfer.finetune.comparison import statistics
from mri_transfer.finetune.comparison.verdict import verdict
from mri_transfer.finetune.heads.probe import fit_probe

FOLD_SEEDS, PROJECTIONS, DIMENSIONS = 8, 16, 32
SHIFT = 2.8  # standard errors, detected with 80% power if they are known


def generated(seed: int = 0, groups: int = 160) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (n, 64), labels and groups of overlapping classes; images of a group are alike."""
    rng = np.random.default_rng(seed)
    sizes = 1 + rng.geometric(1 / 6, size=groups)
    group = np.repeat(np.arange(groups), sizes)
    labels = (np.arange(groups) % 4)[group]
    features = 0.5 * rng.standard_normal((4, 64))[labels] + 0.7 * rng.standard_normal((groups, 64))[group]
    return features + 0.7 * rng.standard_normal((group.size, 64)), labels, group


def of_imagenet(folder: Path, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ImageNet features, labels and groups; only for images of one source if the source is known."""
    from mri_transfer.checkpoints.initialisation import Initialisation
    from mri_transfer.datasets.tumors.tumors import load_tumors
    from mri_transfer.finetune.arms.starts import load_compiled
    from mri_transfer.finetune.heads.features import extract_features

    tumors = load_tumors(folder, size)
    model, _ = load_compiled(Initialisation.read("imagenet"), size)
    mask = tumors.known.bound if tumors.known.bound.any() else np.ones(len(tumors), bool)
    features = extract_features(model, tumors.images[mask], "features")
    _, labels = np.unique(tumors.labels[mask], return_inverse=True)
    _, groups = np.unique(tumors.groups[mask], return_inverse=True)
    return features, labels, groups


def predictions(
    features: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    projections: int,
    *,
    anew: bool = True,
    fold_seeds: int = FOLD_SEEDS,
    dimensions: int = DIMENSIONS,
) -> np.ndarray:
    """Out-of-fold answers, int (fold seeds, projections, n), of probes on random projections.

    Args:
        anew: whether each fold seed has its own projections.
    """
    scaled = (features - features.mean(0)) / (features.std(0) + 1e-6)
    answers = np.zeros((fold_seeds, projections, len(labels)), np.int64)
    for seed in range(fold_seeds):
        fold = grouped_folds(labels, groups, 5, seed)
        for number in range(projections):
            rng = np.random.default_rng([seed, number] if anew else number)
            projected = (scaled @ rng.standard_normal((features.shape[1], dimensions))).astype(np.float32)
            for held_out in range(5):
                train, test = fold != held_out, fold == held_out
                probe = fit_probe(projected[train], labels[train], groups[train], seed, strength=1e-2)
                answers[seed, number, test] = probe.probabilities(projected[test]).argmax(-1)
    return answers


def comparisons(
    answers: np.ndarray, labels: np.ndarray, groups: np.ndarray, *, seeds: int, runs: int, draws: int = 1000
) -> dict[str, np.ndarray]:
    """p-values, widths of the 95% intervals, and p-values of the shifted differences, (runs,) each."""
    count, classes = int(groups.max()) + 1, int(labels.max()) + 1
    confusion = np.stack(
        [metrics.confusion_by_group(labels, predicted, groups, count, classes) for predicted in answers]
    )  # (fold seeds, groups, projections, classes, classes)
    rng = np.random.default_rng(0)
    sizes = np.bincount(groups)
    paired, widths, p_values = [], [], []
    for run in range(runs):
        half = rng.choice(count, count // 2, replace=False)
        of_folds = rng.choice(len(answers), seeds, replace=False)
        two = np.stack([rng.choice(answers.shape[1], 2, replace=False) for _ in of_folds])
        resampling = statistics.Resampling.of(np.repeat(half, sizes[half]), draws, seed=run)
        a, b = (
            metrics.macro_f1(
                resampling.sums(
                    np.stack(
                        [confusion[f, half, p] for f, p in zip(of_folds, two[:, arm], strict=True)], axis=1
                    )
                )
            )
            for arm in (0, 1)
        )
        pair = statistics.compare(a, b, resampling)
        p_values.append(pair["p_value"])
        widths.append(pair["difference"]["high"] - pair["difference"]["low"])
        if run < 500:  # without weights, which fill the memory
            paired.append((a, b, dataclasses.replace(resampling, weights=np.empty((0, 0)))))
    shift = SHIFT * np.std([(a - b)[0].mean() for a, b, _ in paired])
    shifted = [statistics.compare(a + shift, b, r)["p_value"] for a, b, r in paired]
    return {"p": np.array(p_values), "widths": np.array(widths), "shifted": np.array(shifted)}


def claims(
    answers: np.ndarray, labels: np.ndarray, groups: np.ndarray, *, seeds: int, runs: int, draws: int = 1000
) -> dict[str, dict[str, float]]:
    """Reports' conclusions on equal methods pretrained once, and pretrained for each seed.

    Args:
        answers: from `predictions` without `anew`: a projection is a pretraining run.

    Returns:
        {"once", "repeated"}: {"before", "p": shares of p-values below 0.05, from a normal deviate by the estimated
        error, as in earlier versions, and today's; "encoder", "pretraining": shares of reports that call an encoder, or
        a pretraining, the better start}; and {"scale": {"run", "error"}}: medians of the standard deviation of a
        method's macro-F1 between runs, and of a difference's error in reports.
    """
    count, classes = int(groups.max()) + 1, int(labels.max()) + 1
    confusion = np.stack(
        [metrics.confusion_by_group(labels, predicted, groups, count, classes) for predicted in answers]
    )
    of_runs = metrics.macro_f1(confusion.sum(1)).mean(0)  # over fold seeds
    rng = np.random.default_rng(1)
    outcomes: dict[str, list[tuple[float, str, float, float]]] = {"once": [], "repeated": []}
    for run in range(runs):
        of_folds = rng.choice(len(answers), seeds, replace=False)
        resampling = statistics.Resampling.of(np.sort(groups), draws, seed=run)
        chosen = rng.choice(answers.shape[1], (2, seeds), replace=False)
        for kind, projections in (("once", np.repeat(chosen[:, :1], seeds, axis=1)), ("repeated", chosen)):
            a, b = (
                metrics.macro_f1(resampling.sums(confusion[of_folds, :, numbers].swapaxes(0, 1)))
                for numbers in projections
            )
            pair = statistics.compare(a, b, resampling)
            words = sentence({"a": a, "b": b}, pair, 1 if kind == "once" else seeds)
            old_p = 2 * stats.norm.sf(abs(pair["difference"]["estimate"]) / pair["standard_error"])
            outcomes[kind].append((pair["p_value"], words, pair["standard_error"], old_p))
    shares = {
        kind: {
            "before": float(np.mean([old_p < 0.05 for *_, old_p in rows])),
            "p": float(np.mean([p < 0.05 for p, *_ in rows])),
            "encoder": float(np.mean([words.startswith("This encoder") for _, words, *_ in rows])),
            "pretraining": float(np.mean([words.startswith("This pretraining") for _, words, *_ in rows])),
        }
        for kind, rows in outcomes.items()
    }
    error = float(np.median([error for _, _, error, _ in outcomes["once"]]))
    return shares | {"scale": {"run": float(of_runs.std(ddof=1)), "error": error}}


def sentence(scores: dict[str, np.ndarray], pair: dict[str, Any], runs: int) -> str:
    """The first words of a report on two arms, each pretrained `runs` times according to its encoders' cards."""
    cards = {f"run-{number}": {"provenance": {"method": "simclr"}} for number in range(runs)}
    cell = {"mode": "probe", "fraction": 1.0}
    return verdict(
        {
            "results": [
                {"arm": arm, **cell, "macro_f1": {"estimate": float(values[0].mean())}}
                for arm, values in scores.items()
            ],
            "pairs": [{"a": "a", "b": "b", **cell, **pair, "p_holm": pair["p_value"]}],
            "arm_names": list(scores),
            "kinds": dict.fromkeys(scores, "encoder"),
            "pretraining": {arm: pretraining_of(cards) for arm in scores},
        }
    )["short"]


def over_sets(options: argparse.Namespace) -> None:
    """Print how often repeated pretrainings of equal methods appear different, over data sets and runs.

    A single set has only 32 runs, and their scores may be more evenly spread than normal deviates, where three of them
    mislead most. The guarantee is an average over sets.
    """
    for seeds in map(int, options.seeds.split(",")):
        rates, runs = [], []
        for number in range(options.sets):
            data = generated(number, options.groups)
            answers = predictions(*data, 2 * PROJECTIONS, anew=False, dimensions=options.dimensions)
            summary = claims(answers, *data[1:], seeds=seeds, runs=options.runs, draws=400)
            rates.append(100 * summary["repeated"]["pretraining"])
            runs.append(100 * summary["scale"]["run"])
        print(
            f"{options.sets} sets of {options.groups} groups, {seeds} seeds, {options.dimensions} dimensions; runs "
            f"differ by {min(runs):.1f} to {max(runs):.1f} points: a pretraining is called better in "
            f"{np.mean(rates):.1f}% (standard error {np.std(rates, ddof=1) / np.sqrt(len(rates)):.1f}; "
            f"{min(rates):.1f} to {max(rates):.1f})",
            flush=True,
        )


def of_methods(data: tuple[np.ndarray, np.ndarray, np.ndarray], options: argparse.Namespace) -> None:
    """Print the conclusions on equal methods."""
    answers = predictions(*data, 2 * PROJECTIONS, anew=False, dimensions=options.dimensions)
    for seeds in map(int, options.seeds.split(",")):
        summary = claims(answers, *data[1:], seeds=seeds, runs=options.runs)
        scale = summary["scale"]
        print(
            f"equal methods, {seeds} seeds, {options.dimensions} dimensions; runs differ by a standard deviation of "
            f"{100 * scale['run']:.1f} points, a difference's error is taken to be {100 * scale['error']:.1f}"
        )
        for kind in ("once", "repeated"):
            before, p, encoder, pretraining = (100 * value for value in summary[kind].values())
            print(
                f"  pretrained {kind}: p < 0.05 in {p:.1f}% (before {before:.1f}%); an encoder called better in "
                f"{encoder:.1f}%, a pretraining in {pretraining:.1f}%"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("tumors", type=Path, nargs="?")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seeds", default="3,6")
    parser.add_argument("--dimensions", type=int, default=DIMENSIONS, help="of the projections of methods")
    parser.add_argument("--only-methods", action="store_true", help="leave out the first part")
    parser.add_argument("--groups", type=int, default=160, help="of generated features")
    parser.add_argument("--sets", type=int, help="only repeated pretrainings, over so many generated sets")
    options = parser.parse_args()
    if options.sets:
        return over_sets(options)
    data = of_imagenet(options.tumors, options.size) if options.tumors else generated(groups=options.groups)
    print(f"{len(data[1])} images in {len(np.unique(data[2]))} groups")
    of_methods(data, options)
    if options.only_methods:
        return
    answers = predictions(*data, PROJECTIONS)
    for seeds in map(int, options.seeds.split(",")):
        results = comparisons(answers, *data[1:], seeds=seeds, runs=options.runs)
        p, widths = results["p"], results["widths"]
        rates = [f"{100 * (p < a).mean():.2f}% at {100 * a:g}%" for a in (0.05, 0.01)]
        errors = [100 * np.sqrt(a * (1 - a) / len(p)) for a in (0.05, 0.01)]
        print(
            f"{seeds} seeds: {' and '.join(rates)} (standard errors {errors[0]:.2f} and {errors[1]:.2f}); "
            f"power {100 * (results['shifted'] < 0.05).mean():.0f}%; interval {100 * np.median(widths):.1f} points "
            f"wide, widest {widths.max() / widths.min():.1f} times the narrowest"
        )


if __name__ == "__main__":
    main()
