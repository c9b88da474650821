"""How long a comparison takes: linear probes of four arms, and statistics and report of a thousand trials.

    python benchmarks/comparison.py TUMORS [--arm mri=RUN ...] [--size 160] [--seeds 3]

The statistics are compared with the usual plain loop of scikit-learn metrics over bootstrap draws: a few of its draws
are timed and extrapolated to all.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from sklearn import metrics

from mri_transfer.finetune.compare import compare
from mri_transfer.finetune.comparison.results import Predictions, summarise
from mri_transfer.finetune.config import CompareConfig
from mri_transfer.finetune.report.report import write_report
from mri_transfer.machine.device import cores
from mri_transfer.progress import set_quiet

ARMS = ("random", "imagenet", "control=scaled:imagenet", "pixels")
IMAGES, GROUPS, CLASSES = 2870, 598, 4  # of the public four-class set
FRACTIONS = (0.05, 0.1, 0.25, 0.5, 1.0)
SEEDS, FOLDS, DRAWS = 5, 5, 2000
TIMED_DRAWS = 5


def seconds(work) -> tuple[float, float, object]:
    """The duration of `work`, its CPU time including worker processes, and its result."""
    started, before = time.perf_counter(), processor_seconds()
    result = work()
    return time.perf_counter() - started, processor_seconds() - before, result


def processor_seconds() -> float:
    """CPU time of this process and its finished children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def probes(folder: Path, arms: tuple[str, ...], size: int, seeds: int) -> None:
    """A whole comparison by linear probes: the first time, and when only remaking the report."""
    with tempfile.TemporaryDirectory() as out:
        config = CompareConfig(tumors=folder, out=Path(out) / "report", arm=arms, size=size, seeds=seeds)
        elapsed, summary = seconds(lambda: compare(config))
        repeat_seconds, _ = seconds(lambda: compare(config))
    print(
        f"{len(arms)} arms, {summary['trials']} probes at {size} px on {cores()} cores: {elapsed:.0f} s in all"
    )
    print(f"  the same command again, when every trial is done: {repeat_seconds:.0f} s")


def simulated() -> Predictions:
    """Predictions of four arms in both modes at five fractions: a thousand trials."""
    rng = np.random.default_rng(0)
    groups = np.sort(np.concatenate([np.arange(GROUPS), rng.integers(GROUPS, size=IMAGES - GROUPS)]))
    labels = rng.integers(CLASSES, size=GROUPS)[groups]
    hard = rng.normal(size=(GROUPS, CLASSES))[groups] + rng.normal(size=(IMAGES, CLASSES))

    def predicted(skill: float) -> np.ndarray:
        noise = 0.3 * rng.normal(size=(SEEDS, IMAGES, CLASSES))
        odds = np.exp(hard + skill * np.eye(CLASSES)[labels] + noise)
        return (odds / odds.sum(-1, keepdims=True)).astype(np.float32)

    arms = {"random": 1.0, "imagenet": 2.0, "mri": 2.1, "imagenet+mri": 2.2}
    cells = {
        (arm, mode, fraction): predicted(skill * (0.5 + 0.5 * fraction))
        for arm, skill in arms.items()
        for mode in ("probe", "finetune")
        for fraction in FRACTIONS
    }
    classes = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")
    return Predictions(tuple(arms), classes, labels, groups, tuple(range(SEEDS)), cells)


def plain_loop(predictions: Predictions, draws: int) -> None:
    """The same scores for the first arm's first cell and seed, on resampled groups, by scikit-learn."""
    probabilities = next(iter(predictions.probabilities.values()))[0].astype(np.float64)
    probabilities /= probabilities.sum(-1, keepdims=True)
    members = [np.flatnonzero(predictions.groups == group) for group in range(GROUPS)]
    rng = np.random.default_rng(0)
    for _ in range(draws):
        rows = np.concatenate([members[group] for group in rng.integers(GROUPS, size=GROUPS)])
        truth, predicted = predictions.labels[rows], probabilities[rows]
        answer = predicted.argmax(-1)
        metrics.f1_score(truth, answer, average="macro")
        metrics.balanced_accuracy_score(truth, answer)
        metrics.recall_score(truth, answer, average=None)
        metrics.accuracy_score(truth, answer)
        metrics.roc_auc_score(truth, predicted, multi_class="ovr")
        metrics.log_loss(truth, predicted)
        ((predicted - np.eye(CLASSES)[truth]) ** 2).sum(-1).mean()


def thousand_trials() -> None:
    """Statistics and report, beside the plain loop."""
    predictions = simulated()
    cells = len(predictions.probabilities)
    statistics, processor_time, report = seconds(lambda: summarise(predictions, draws=DRAWS))
    images = np.zeros((IMAGES, 160, 160), np.uint8)
    with tempfile.TemporaryDirectory() as out:
        page, of_page, _ = seconds(
            lambda: write_report(Path(out), report, predictions, images, "Benchmark", None)
        )
    print(
        f"{cells * SEEDS * FOLDS} trials, {DRAWS} draws: statistics {statistics:.1f} s, report {page:.1f} s, "
        f"together {statistics + page:.1f} s, {processor_time + of_page:.1f} s of processor time"
    )
    plain_loop(predictions, 1)  # scikit-learn imports on first use
    loop = seconds(lambda: plain_loop(predictions, TIMED_DRAWS))[1] / TIMED_DRAWS * DRAWS * cells * SEEDS
    print(
        f"scikit-learn in a plain loop: {1e3 * loop / DRAWS / cells / SEEDS:.1f} ms of processor time a draw of one "
        f"cell and seed, {loop / 60:.0f} min in all; ours is {loop / processor_time:.0f} times as fast"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "tumors", type=Path, nargs="?", help="tumour folder; without one, the statistics only"
    )
    parser.add_argument("--arm", action="append", help=f"as of `compare` (default: {', '.join(ARMS)})")
    parser.add_argument("--size", type=int, default=160, help="pixels")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    set_quiet(True)
    thousand_trials()
    if arguments.tumors:
        probes(arguments.tumors, tuple(arguments.arm or ARMS), arguments.size, arguments.seeds)


if __name__ == "__main__":
    main()
