"""The score that may guide choices: a linear probe within the tumour set's development groups.

    python benchmarks/development.py TUMORS imagenet RUN ... [--size 160] [--cache DIR]

prints it for starts and pretraining runs, as in benchmarks/README.md. Other benchmarks use the class.

It only looks at a fixed fifth of the groups (`mri_transfer.datasets.tumors.development`); trustworthy figures come from
the other four fifths.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from sklearn.metrics import f1_score

from mri_transfer.datasets.tumors.development import development_images
from mri_transfer.datasets.tumors.folds import grouped_folds
from mri_transfer.datasets.tumors.tumors import load_tumors
from mri_transfer.finetune.heads.probe import fit_probe

FOLDS, REPEATS = 4, 3


class Development:
    """Images, labels and groups of the development fifth.

    Args:
        tumors: folder of the tumour set.
        size: side of images in pixels.
        cache: folder for decoded images.
    """

    def __init__(self, tumors: Path, size: int, cache: Path):
        data = load_tumors(tumors, size, cache=cache)
        subset = development_images(data)
        self.images, self.labels = data.images[subset], data.labels[subset]
        self.groups = np.unique(data.groups[subset], return_inverse=True)[1].reshape(-1)

    def score(self, features: np.ndarray) -> float:
        """Macro-F1 of out-of-fold predictions from features (n, d), averaged over three fold assignments."""
        scores = []
        for seed in range(REPEATS):
            folds = grouped_folds(self.labels, self.groups, FOLDS, seed)
            predicted = np.empty(len(self.labels), int)
            for fold in range(FOLDS):
                train, test = folds != fold, folds == fold
                probe = fit_probe(features[train], self.labels[train], self.groups[train], seed)
                predicted[test] = probe.probabilities(features[test]).argmax(axis=1)
            scores.append(f1_score(self.labels, predicted, average="macro"))
        return float(np.mean(scores))

    def score_of_run(self, run: Path | str) -> float:
        """The same for a run's encoder, an encoder folder, "random" or "imagenet"."""
        from mri_transfer.machine import device

        device.prepare()
        from mri_transfer.checkpoints.initialisation import Initialisation
        from mri_transfer.finetune.heads.features import extract_features

        encoder, _ = Initialisation.read(str(run)).load(self.images.shape[1])
        return self.score(extract_features(encoder, self.images, desc=None))


def from_command_line(description: str | None, size: int) -> tuple[list[str], Development]:
    """The command line's starts, and the images to score them on, at `size` pixels by default."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tumors", type=Path)
    parser.add_argument("starts", nargs="+", help="imagenet, random, or a pretraining run")
    parser.add_argument("--size", type=int, default=size)
    parser.add_argument("--cache", type=Path, help="folder that keeps the groups, found in a minute")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return a.starts, Development(a.tumors, a.size, a.cache or Path(folder))


def main() -> None:
    starts, development = from_command_line(__doc__, 160)
    print(
        f"{len(development.labels)} images in {len(set(development.groups))} development groups, "
        f"{development.images.shape[1]} px"
    )
    for start in starts:
        print(f"{start}: macro-F1 {development.score_of_run(start):.3f}", flush=True)


if __name__ == "__main__":
    main()
