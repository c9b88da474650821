"""Is a class that a classifier was never trained on marked as unlike the training images?

    python benchmarks/left_out.py TUMORS [--size 112] [--init imagenet]

Leaves out one class at a time and describes the other three as `finetune` does: three fifths of their groups train (a
linear probe, and the in-distribution model) and one sets the threshold. It counts marked pictures of the class left
out, and of the last fifth, which are of known classes; each fifth has each part once. The last columns show the
classifier's most frequent answer for the class left out, and its confidence.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from mri_transfer.datasets.tumors.folds import grouped_folds
from mri_transfer.finetune.heads.probe import fit_probe
from mri_transfer.finetune.prediction.out_of_distribution import fit

FOLDS = 5


def left_out(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, label: int) -> dict[str, Any]:
    """Train without a class, then test on it.

    Args:
        features: (n, d).
        labels, groups: int (n,).
        label: the class left out.

    Returns:
        {"marked": share of its pictures, "known_marked": share of the others' held-out pictures, "folds": range of
        "marked", "answer": most frequent class, "of": its share, "sure": median probability of the answer}.
    """
    rows = np.flatnonzero(labels != label)
    unknown = features[labels == label]
    names, targets = np.unique(labels[rows], return_inverse=True)
    fold = grouped_folds(targets, groups[rows], FOLDS, 0)
    marked, of_known, answers, sure = [], [], [], []
    for number in range(FOLDS):
        threshold, test = fold == number, fold == (number + 1) % FOLDS
        train = rows[~threshold & ~test]
        distribution = fit(features[train], features[rows[threshold]])
        marked.append((distribution.distances(unknown) > distribution.threshold).mean())
        of_known.append((distribution.distances(features[rows[test]]) > distribution.threshold).mean())
        probe = fit_probe(features[train], targets[~threshold & ~test], groups[train], 0, strength=1e-2)
        probabilities = probe.probabilities(unknown)
        answers.append(probabilities.argmax(-1))
        sure.append(probabilities.max(-1))
    counts = np.bincount(np.concatenate(answers), minlength=len(names))
    return {
        "marked": float(np.mean(marked)),
        "known_marked": float(np.mean(of_known)),
        "folds": (float(min(marked)), float(max(marked))),
        "answer": int(names[counts.argmax()]),
        "of": float(counts.max() / counts.sum()),
        "sure": float(np.median(np.concatenate(sure))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("tumors", type=Path)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--init", default="imagenet")
    options = parser.parse_args()

    from mri_transfer.checkpoints.initialisation import Initialisation
    from mri_transfer.datasets.tumors.tumors import load_tumors
    from mri_transfer.finetune.arms.starts import load_compiled
    from mri_transfer.finetune.heads.features import extract_features

    tumors = load_tumors(options.tumors, options.size)
    model, _ = load_compiled(Initialisation.read(options.init), options.size)
    features = extract_features(model, tumors.images, "features")
    print("| left out | marked (five folds) | held-out pictures of the others marked | called | how sure |")
    print("|---|---|---|---|---|")
    for number, name in enumerate(tumors.classes):
        result = left_out(features, tumors.labels, tumors.groups, number)
        low, high = result["folds"]
        print(
            f"| {name} | {100 * result['marked']:.1f}% ({100 * low:.1f} to {100 * high:.1f}) | "
            f"{100 * result['known_marked']:.1f}% | {tumors.classes[result['answer']]} in {100 * result['of']:.0f}% | "
            f"{result['sure']:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
