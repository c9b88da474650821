"""How often two starts that are equal are told apart: false alarms of the comparison's own statistics.

    python benchmarks/false_alarms.py [TUMORS] [--runs 2000] [--seeds 3,6]

Equal by construction: each start has, for each seed, a random projection of the same features, and all projections are
exchangeable. Each run takes half of the groups, other folds and other projections, and asks for the p-value as a report
does. With a tumour folder the features are those of ImageNet's weights on the pictures whose persons are known;
without, they are generated. The same differences, shifted by 2.8 of their standard deviations, show the power: 80% if
the standard deviation were known.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from mri_transfer.datasets.tumors.folds import grouped_folds
from mri_transfer.evaluation import metrics
from mri_transfer.finetune.comparison import statistics
from mri_transfer.finetune.heads.probe import fit_probe

FOLD_SEEDS, PROJECTIONS, DIMENSIONS = 8, 16, 32
SHIFT = 2.8  # standard errors, that a test of a known one finds with 80% power


def generated(seed: int = 0, groups: int = 160) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (n, 64), labels and groups of overlapping classes; images of a group are alike."""
    rng = np.random.default_rng(seed)
    sizes = 1 + rng.geometric(1 / 6, size=groups)
    group = np.repeat(np.arange(groups), sizes)
    labels = (np.arange(groups) % 4)[group]
    features = 0.5 * rng.standard_normal((4, 64))[labels] + 0.7 * rng.standard_normal((groups, 64))[group]
    return features + 0.7 * rng.standard_normal((group.size, 64)), labels, group


def of_imagenet(folder: Path, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of ImageNet's weights, labels and groups; only of images of one source where the source is known."""
    from mri_transfer.checkpoints.initialisation import Initialisation
    from mri_transfer.datasets.tumors.tumors import load_tumors
    from mri_transfer.finetune.arms.starts import load_compiled
    from mri_transfer.finetune.heads.features import extract_features

    tumors = load_tumors(folder, size)
    model, _ = load_compiled(Initialisation.read("imagenet"), size)
    known = tumors.known.bound if tumors.known.bound.any() else np.ones(len(tumors), bool)
    features = extract_features(model, tumors.images[known], "features")
    _, labels = np.unique(tumors.labels[known], return_inverse=True)
    _, groups = np.unique(tumors.groups[known], return_inverse=True)
    return features, labels, groups


def predictions(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, projections: int) -> np.ndarray:
    """Out-of-fold answers int (fold seeds, projections, n) of probes on random projections."""
    scaled = (features - features.mean(0)) / (features.std(0) + 1e-6)
    found = np.zeros((FOLD_SEEDS, projections, len(labels)), np.int64)
    for seed in range(FOLD_SEEDS):
        fold = grouped_folds(labels, groups, 5, seed)
        for number in range(projections):
            rng = np.random.default_rng([seed, number])
            projected = (scaled @ rng.standard_normal((features.shape[1], DIMENSIONS))).astype(np.float32)
            for held_out in range(5):
                train, test = fold != held_out, fold == held_out
                probe = fit_probe(projected[train], labels[train], groups[train], seed, strength=1e-2)
                found[seed, number, test] = probe.probabilities(projected[test]).argmax(-1)
    return found


def comparisons(
    answers: np.ndarray, labels: np.ndarray, groups: np.ndarray, *, seeds: int, runs: int, draws: int = 1000
) -> dict[str, np.ndarray]:
    """p-values, widths of the 95% intervals, and p-values of the shifted differences, (runs,) each."""
    count, classes = int(groups.max()) + 1, int(labels.max()) + 1
    confusion = np.stack(
        [metrics.confusion_by_group(labels, each, groups, count, classes) for each in answers]
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
        if run < 500:  # without the weights, which fill the memory
            paired.append((a, b, dataclasses.replace(resampling, weights=np.empty((0, 0)))))
    shift = SHIFT * np.std([(a - b)[0].mean() for a, b, _ in paired])
    shifted = [statistics.compare(a + shift, b, r)["p_value"] for a, b, r in paired]
    return {"p": np.array(p_values), "widths": np.array(widths), "shifted": np.array(shifted)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("tumors", type=Path, nargs="?")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seeds", default="3,6")
    options = parser.parse_args()
    data = of_imagenet(options.tumors, options.size) if options.tumors else generated()
    answers = predictions(*data, PROJECTIONS)
    print(f"{len(data[1])} images in {len(np.unique(data[2]))} groups, half of them each time")
    for seeds in map(int, options.seeds.split(",")):
        found = comparisons(answers, *data[1:], seeds=seeds, runs=options.runs)
        p, widths = found["p"], found["widths"]
        rates = [f"{100 * (p < a).mean():.2f}% at {100 * a:g}%" for a in (0.05, 0.01)]
        errors = [100 * np.sqrt(a * (1 - a) / len(p)) for a in (0.05, 0.01)]
        print(
            f"{seeds} seeds: {' and '.join(rates)} (standard errors {errors[0]:.2f} and {errors[1]:.2f}); "
            f"power {100 * (found['shifted'] < 0.05).mean():.0f}%; interval {100 * np.median(widths):.1f} points wide, "
            f"widest {widths.max() / widths.min():.1f} times the narrowest"
        )


if __name__ == "__main__":
    main()
