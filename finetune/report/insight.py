"""A report's content beside scores: where each start looks, its layout of images, learning curves and hours.

For linear probes, it follows from what a comparison keeps anyway: features of every image and each probe's penalty.
Fine-tuned encoders are not kept, so their part is saved in `insight/` while they exist.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mri_transfer.errors import UserError
from mri_transfer.evaluation.maps import all_alike, tsne
from mri_transfer.evaluation.neighbours import nearest
from mri_transfer.finetune.arms.origins import pretraining_hours
from mri_transfer.finetune.comparison.kept_maps import kept_shapes, load_kept
from mri_transfer.finetune.comparison.results import Predictions
from mri_transfer.finetune.data.protocol import PUBLISHED
from mri_transfer.finetune.heads.probe import Probe, fit_probe, standardisation, standardise
from mri_transfer.finetune.report.gallery import sections
from mri_transfer.storage.arrays import save_npz
from mri_transfer.storage.files import finite

if TYPE_CHECKING:
    from mri_transfer.finetune.arms.arms import Arm
    from mri_transfer.finetune.comparison.runner import Job, Runner

FEWEST = 5  # groups; with fewer, a layout shows nothing
DRAWN = 300  # most images in a layout; time grows faster than their number
SHOWN_FOLD = 0  # whose test images are laid out: one network's features of images it was not trained on


@dataclass(frozen=True, eq=False)
class Layout:
    """Features of `m` images in two dimensions.

    Attributes:
        arm: whose encoder.
        tuned: whether it was fine-tuned.
        points: float (m, 2).
        labels: int (m,).
        agreement: share of the fold's scored images whose nearest neighbour from another group, by cosine in all
            dimensions, has their class.
    """

    arm: str
    tuned: bool
    points: np.ndarray
    labels: np.ndarray
    agreement: float


@dataclass(frozen=True, eq=False)
class Curves:
    """An arm's learning curves, one row per trial and column per epoch; NaN after a trial's last epoch.

    Attributes:
        training: mean loss (nats) of the last training.
        held_out: log loss (nats) of an inner split's held-out images; no columns without one.
    """

    training: np.ndarray
    held_out: np.ndarray


@dataclass(frozen=True, eq=False)
class Insight:
    """The content; any part may be empty.

    Attributes:
        activation: by (arm, image index), float32 (classes, h, w), from a model not trained on the image.
        layouts: arm by arm, before and after fine-tuning.
        curves: one per fine-tuned arm.
        cost: {"arm", "pretraining_hours", "hours": {mode: hours of its trials}} per arm.
    """

    activation: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    layouts: tuple[Layout, ...] = ()
    curves: dict[str, Curves] = field(default_factory=dict)
    cost: tuple[dict[str, Any], ...] = ()

    def summary(self) -> dict[str, Any]:
        """Its figures, for `report.json`: "cost", "neighbours" per layout and "learning" per arm."""
        return {
            "cost": list(self.cost),
            "neighbours": [
                {"arm": layout.arm, "fine_tuned": layout.tuned, "agreement": layout.agreement}
                for layout in self.layouts
            ],
            "learning": {
                arm: {
                    "training": finite(curve.training.tolist()),
                    "held_out": finite(curve.held_out.tolist()),
                }
                for arm, curve in self.curves.items()
            },
        }


def gather(
    runner: Runner, jobs: Sequence[Job], predictions: Predictions, rows: np.ndarray, verdict: dict[str, Any]
) -> Insight:
    """Gather the content from a finished comparison.

    Args:
        runner, jobs: the comparison's, every job done.
        predictions: the report's.
        rows: int (n,), each prediction's image in the tumour set.
        verdict: from :func:`~mri_transfer.finetune.comparison.verdict.verdict`; its mode, fraction and arms are shown.
    """
    cell = mode, fraction = verdict["mode"], verdict["fraction"]
    gallery = sections(predictions, mode, fraction, verdict["arm"], verdict["baseline"])
    images = sorted({index for section in gallery for index in section.images})
    cell_jobs = [
        job for job in jobs if (job.mode, job.split.fraction) == cell and job.split.fold != PUBLISHED
    ]
    arms = list(dict.fromkeys(job.arm for job in jobs))
    activation: dict[tuple[str, int], np.ndarray] = {}
    layouts: list[Layout] = []
    for arm in arms:
        arm_jobs = [job for job in cell_jobs if job.arm == arm and job.split.seed == predictions.seeds[0]]
        if arm_jobs:
            maps = _heat(runner, arm_jobs, rows[images])
            activation |= {(arm.name, index): maps[rows[index]] for index in images if rows[index] in maps}
            layouts += _layouts(runner, arm_jobs, predictions, rows)
    return Insight(
        activation,
        tuple(layouts),
        _curves(cell_jobs, runner),
        tuple(_cost(arm, runner, jobs) for arm in arms),
    )


def _heat(runner: Runner, jobs: Sequence[Job], rows: np.ndarray) -> dict[int, np.ndarray]:
    """An arm's heat maps on some images; none without a network, or if neighbours decide rather than maps."""
    if jobs[0].mode == "finetune":
        return _kept_heat(runner, jobs, rows)
    maps: dict[int, np.ndarray] = {}
    if jobs[0].mode == "probe" and jobs[0].arm.backbone:
        # One, unless seeds or folds have their own encoders.
        for source in dict.fromkeys(job.source for job in jobs):
            maps |= _probe_heat(runner, [job for job in jobs if job.source == source], rows)
    return maps


def _kept_heat(runner: Runner, jobs: Sequence[Job], rows: np.ndarray) -> dict[int, np.ndarray]:
    maps = {}
    for job in jobs:
        arrays = load_kept(runner.insight_path(job), kept_shapes(len(job.split.test)))
        place = {row: number for number, row in enumerate(job.split.test.tolist())}
        for row in rows.tolist():
            if arrays is not None and row in place:
                maps[row] = arrays["heat"][place[row]].astype(np.float32)
    return maps


def _probe_heat(runner: Runner, jobs: Sequence[Job], rows: np.ndarray) -> dict[int, np.ndarray]:
    """Heat maps from the probe not trained on the image; probes are solved again at their chosen penalty."""
    from mri_transfer.finetune.prediction.class_activation import MapReader

    job_of = {row: job for job in jobs for row in np.intersect1d(rows, job.split.test).tolist()}
    order = sorted(job_of)
    if not order:
        return {}
    identity = repr([(row, runner.key(job_of[row])) for row in order])
    path = runner.folder / "insight" / f"probe-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.npz"
    arrays = load_kept(path, {"heat": (len(order), "classes", "rows", "columns")})
    if arrays is None:
        features = runner.features(jobs[0])
        encoder = runner.encoder(jobs[0])
        try:
            read = MapReader(encoder)
        except UserError:
            return {}
        outputs = read(runner.tumors.images[order])
        activation: dict[int, np.ndarray] = {}
        for job in jobs:
            places = [place for place, row in enumerate(order) if job_of[row] is job]
            if places and features is not None:
                probe = _solved_again(runner, job, features)
                maps = read.activation(outputs.of(np.array(places)), kernel=probe.kernel, scale=probe.scale)
                activation |= {order[place]: heat for place, heat in zip(places, maps, strict=True)}
        if len(activation) < len(order):
            return activation
        arrays = {"heat": np.stack([activation[row] for row in order])}
        save_npz(path, arrays)
    return dict(zip(order, arrays["heat"], strict=True))


def _solved_again(runner: Runner, job: Job, features: np.ndarray) -> Probe:
    train, tumors = job.split.train, runner.tumors
    strength = runner.trial(job).details.get("strength")
    return fit_probe(
        features[train], tumors.labels[train], tumors.groups[train], job.split.seed, strength=strength
    )


def _layouts(runner: Runner, jobs: Sequence[Job], predictions: Predictions, rows: np.ndarray) -> list[Layout]:
    """One fold's test images by the arm's encoder, and by the one fine-tuned on the other folds."""
    job = next((job for job in jobs if job.split.fold == SHOWN_FOLD), None)
    if job is None:
        return []
    indices = np.flatnonzero(np.isin(rows, job.split.test))
    place = np.searchsorted(job.split.test, rows[indices])
    sets = []
    features = runner.features(job)
    if features is not None:
        sets.append((False, features[rows[indices]]))
    shapes = kept_shapes(len(job.split.test))
    arrays = load_kept(runner.insight_path(job), shapes) if job.mode == "finetune" else None
    if arrays is not None:
        sets.append((True, arrays["features"][place].astype(np.float32)))
    labels, groups = predictions.labels[indices], predictions.groups[indices]
    if len(np.unique(groups)) < FEWEST:
        return []
    sample = np.unique(
        np.linspace(0, len(indices) - 1, DRAWN).astype(int)
    )  # of every class, as files are sorted by class
    return [
        Layout(
            job.arm.name,
            tuned,
            _kept_layout(runner.folder, features[sample]),
            labels[sample],
            agreement(features, labels, groups),
        )
        for tuned, features in sets
    ]


def _kept_layout(folder: Path, features: np.ndarray) -> np.ndarray:
    """:func:`flattened`, cached, as it takes seconds."""
    digest = hashlib.sha256(np.ascontiguousarray(features).tobytes()).hexdigest()
    path = folder / "insight" / f"layout-{digest[:16]}.npz"
    arrays = load_kept(path, {"points": (len(features), 2)})
    if arrays is None:
        arrays = {"points": flattened(features)}
        save_npz(path, arrays)
    return arrays["points"]


def flattened(features: np.ndarray) -> np.ndarray:
    """:func:`~mri_transfer.evaluation.maps.tsne` of standardised features (m, d), reduced first: float (m, 2)."""
    from sklearn.decomposition import PCA
    from threadpoolctl import threadpool_limits

    standard = standardise(features, *standardisation(features))
    if all_alike(standard):
        return np.zeros((len(features), 2))
    few = min(50, len(features) - 1, features.shape[1])
    perplexity = min(30.0, (len(features) - 1) / 3)
    with threadpool_limits(1):  # one summation order, so the same features give the same map
        reduced = PCA(few, svd_solver="full").fit_transform(standard)
    return tsne(reduced, perplexity=perplexity)


def agreement(features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
    """Share of images whose nearest neighbour from another group has their class; by cosine, features standardised."""
    standard = standardise(features, *standardisation(features))
    closest = nearest(standard, groups[:, None] != groups, 1)[:, 0]
    return float((labels[closest] == labels).mean())


def _curves(jobs: Sequence[Job], runner: Runner) -> dict[str, Curves]:
    """Learning curves of each arm's fine-tuning trials."""
    by_arm: dict[str, list[dict[str, Any]]] = {}
    for job in jobs:
        details = runner.trial(job).details
        if details.get("losses"):
            by_arm.setdefault(job.arm.name, []).append(details)
    return {
        arm: Curves(
            _filled([detail["losses"] for detail in details]),
            _filled([[epoch["log_loss"] for epoch in detail.get("inner") or ()] for detail in details]),
        )
        for arm, details in by_arm.items()
    }


def _filled(rows: Sequence[Sequence[float]]) -> np.ndarray:
    """Rows of any length as one array, padded with NaN; without columns if all are empty."""
    longest = max((len(row) for row in rows), default=0)
    return np.array([[*row, *[np.nan] * (longest - len(row))] for row in rows], np.float64)


def _cost(arm: Arm, runner: Runner, jobs: Sequence[Job]) -> dict[str, Any]:
    hours: dict[str, float] = {}
    for job in jobs:
        if job.arm == arm:
            seconds = runner.trial(job).details.get("seconds", 0)
            hours[job.mode] = hours.get(job.mode, 0.0) + seconds / 3600
    return {
        "arm": arm.name,
        "pretraining_hours": sum(pretraining_hours(card.get("provenance")) for card in arm.cards.values()),
        "hours": hours,
    }
