"""Does the trials of a comparison that are not done yet."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer import device, progress
from mri_transfer.datasets.tumors.tumors import TumorSet
from mri_transfer.finetune.arms import Arm, weights_digest
from mri_transfer.finetune.config import Recipe
from mri_transfer.finetune.features import FeatureCache, extract_features
from mri_transfer.finetune.probe import SETTINGS, probe_trial, softmax
from mri_transfer.finetune.protocol import PUBLISHED, Split
from mri_transfer.finetune.stages import steps_of
from mri_transfer.finetune.trials import Trial, TrialStore

IN_PROCESS = 8  # so few probes are done before worker processes would have started
TIMED_STEPS = 4


@dataclasses.dataclass(frozen=True)
class Job:
    """A trial to be done: one arm, one mode, one split."""

    arm: Arm
    mode: str
    split: Split

    def __str__(self) -> str:
        where = "published split" if self.split.fold == PUBLISHED else f"fold {self.split.fold + 1}"
        return f"{self.arm.name}, seed {self.split.seed}, {where}, {self.split.fraction:.0%} of the labels"


@dataclasses.dataclass
class Start:
    """What is known of an arm's encoder once it was loaded."""

    digest: str
    about: dict[str, Any]
    features: Path


def _index_digest(split: Split) -> str:
    digest = hashlib.sha256(np.asarray(split.train, np.int64).tobytes() + b"|")
    digest.update(np.asarray(split.test, np.int64).tobytes())
    return digest.hexdigest()[:16]


class Runner:
    """Trials of one comparison.

    Args:
        folder: the comparison's.
        tumors: the images.
        size: their side, pixels.
        recipe: of fine-tuning.
        imagenet_weights: as given by the user.
        workers: processes for linear probes.
    """

    def __init__(
        self,
        folder: Path,
        tumors: TumorSet,
        size: int,
        recipe: Recipe,
        imagenet_weights: Path | None = None,
        workers: int | None = None,
    ):
        self.folder = Path(folder)
        self.tumors, self.size, self.recipe = tumors, size, recipe
        self.imagenet_weights, self.workers = imagenet_weights, workers or device.cores()
        self.store = TrialStore(Path(folder) / "trials")
        self.features = FeatureCache(Path(folder) / "features", tumors.fingerprint, size)
        self.starts: dict[tuple[Arm, int], Start] = {}
        self.done: dict[str, Trial] = {}
        self.versions = device.versions()

    def encoder(self, arm: Arm, seed: int) -> tuple[Any, dict[str, Any]]:
        """The arm's encoder as it starts, and where it comes from."""
        import keras

        from mri_transfer.checkpoints.encoders import start_encoder

        keras.utils.clear_session()  # else every network built so far stays in memory
        model, about = start_encoder(
            arm.start,
            backbone=arm.backbone,
            size=self.size,
            seed=seed if arm.per_seed else 0,
            imagenet_weights=self.imagenet_weights if arm.start == "imagenet" else None,
        )
        model.compile(jit_compile=device.jit_compile())
        return model, about

    def prepare(self, arm: Arm, seed: int) -> Start:
        """Load the arm's encoder once to identify it, and compute its features if they are not kept."""
        key = (arm, seed if arm.per_seed else 0)
        if key not in self.starts:
            model, about = self.encoder(arm, seed)
            digest = weights_digest(model)
            if self.features.load(digest, len(self.tumors)) is None:
                label = f"features of {arm.name}" + (f" (seed {seed})" if arm.per_seed else "")
                self.features.save(digest, extract_features(model, self.tumors.images, label))
            self.starts[key] = Start(digest, about, self.features.path(digest))
        return self.starts[key]

    def identity(self, job: Job) -> dict[str, Any]:
        """Everything that determines a trial's numbers. The arm's name does not: renaming one keeps its trials."""
        split = job.split
        return {
            "mode": job.mode,
            "split": "published" if split.fold == PUBLISHED else "grouped",
            "fraction": split.fraction,
            "seed": split.seed,
            "fold": split.fold,
            "images": _index_digest(split),
            "backbone": job.arm.backbone,
            "weights": self.prepare(job.arm, split.seed).digest,
            "data": self.tumors.fingerprint,
            "size": self.size,
            "probe": SETTINGS,
            **({"recipe": dataclasses.asdict(self.recipe)} if job.mode == "finetune" else {}),
        }

    def pending(self, jobs: Iterable[Job]) -> list[Job]:
        """Those of the jobs that are not on disk; the others are read into `done`."""
        left = []
        for job in jobs:
            identity = self.identity(job)
            trial = self.store.load(identity)
            if trial is None:
                left.append(job)
            else:
                self.done[self.key(job)] = trial
        return left

    def key(self, job: Job) -> str:
        """Name of the job's file: the same for arms whose weights are the same."""
        return self.store.path(self.identity(job)).name

    def trial(self, job: Job) -> Trial:
        """The finished trial of a job."""
        return self.done[self.key(job)]

    def _finish(self, job: Job, probabilities: np.ndarray, details: dict[str, Any]) -> None:
        trial = Trial(
            self.identity(job), job.split.test, probabilities, {**details, "versions": self.versions}
        )
        self.store.save(trial)
        self.done[self.key(job)] = trial

    def run(self, jobs: Sequence[Job]) -> None:
        """Do every job; each is on disk as soon as it is done."""
        self.run_probes([job for job in jobs if job.mode == "probe"])
        self.run_finetuning([job for job in jobs if job.mode == "finetune"])

    def run_probes(self, jobs: Sequence[Job]) -> None:
        """Linear probes, in worker processes that hold no Keras."""
        jobs = list({self.key(job): job for job in jobs}.values())
        calls = [
            (
                self.prepare(job.arm, job.split.seed).features,
                self.tumors.labels,
                self.tumors.groups,
                job.split.train,
                job.split.test,
                job.split.seed,
            )
            for job in jobs
        ]
        with progress.bar(total=len(jobs), desc="linear probes", unit="trial") as bar:
            for number, result in self._results(calls):
                self._finish(jobs[number], *result)
                bar.update(1)

    def _results(self, calls: list[tuple]) -> Iterable[tuple[int, tuple[np.ndarray, dict[str, Any]]]]:
        workers = min(self.workers, len(calls))
        if workers < 2 or len(calls) < IN_PROCESS:
            for number, call in enumerate(calls):
                yield number, probe_trial(*call)
            return
        from joblib import Parallel, delayed, parallel_config

        with parallel_config(backend="loky", inner_max_num_threads=1):
            yield from Parallel(n_jobs=workers, return_as="generator_unordered")(
                delayed(_numbered)(number, call) for number, call in enumerate(calls)
            )

    def run_finetuning(self, jobs: Sequence[Job]) -> None:
        """Fine-tuning, one trial after the other: each uses every core or the GPU."""
        jobs = list({self.key(job): job for job in jobs}.values())
        images_left = sum(len(job.split.train) for job in jobs)
        spent, seen = 0.0, 0
        for number, job in enumerate(jobs, 1):
            left = f"; about {duration(spent / seen * images_left)} left" if seen else ""
            progress.say(f"fine-tuning {number} of {len(jobs)}: {job}{left}")
            started = time.monotonic()
            self._finish(job, *self._finetune(job))
            spent, seen = spent + time.monotonic() - started, seen + len(job.split.train)
            images_left -= len(job.split.train)

    def tuning(self, job: Job):
        """The job's training, ready to begin: the head is the linear probe's solution on the start's features."""
        from mri_transfer.finetune.tuning import Tuning

        split, tumors = job.split, self.tumors
        start = self.prepare(job.arm, split.seed)
        features = self.features.load(start.digest, len(tumors))
        if features is None:
            raise RuntimeError(f"{start.features}: changed while the comparison ran")
        train = split.train
        model, _ = self.encoder(job.arm, split.seed)
        return Tuning(
            model,
            features[train],
            tumors.images[train],
            tumors.labels[train],
            tumors.groups[train],
            tumors.classes,
            self.recipe,
            split.seed,
        )

    def insight_path(self, job: Job) -> Path:
        """Where what the report shows of a fine-tuned encoder is kept, as the encoder itself is not."""
        return self.folder / "insight" / self.key(job)

    def _finetune(self, job: Job) -> tuple[np.ndarray, dict[str, Any]]:
        from mri_transfer.finetune.calibration import calibration_scores
        from mri_transfer.finetune.insight import see_and_keep

        tuning, test = self.tuning(job), job.split.test
        details = tuning.run(desc=str(job))
        if details["diverged"]:
            progress.say(f"{job}: training diverged; it counts as knowing nothing")
            count = len(self.tumors.classes)
            return np.full((len(test), count), 1 / count, np.float32), details
        seen = see_and_keep(self.insight_path(job), tuning.classifier, self.tumors.images[test], str(job))
        logits = tuning.classifier.logits_of(seen)
        details["uncalibrated"] = calibration_scores(logits, self.tumors.labels[test])
        details["calibrated"] = calibration_scores(logits, self.tumors.labels[test], tuning.temperature)
        return softmax(logits / tuning.temperature), details

    def expected_seconds(self, jobs: Sequence[Job]) -> float:
        """What the jobs would take, from one probe done here (and kept) and a few steps of fine-tuning."""
        probes = list({self.key(job): job for job in jobs if job.mode == "probe"}.values())
        tunings = list({self.key(job): job for job in jobs if job.mode == "finetune"}.values())
        expected = 0.0
        if probes:
            longest = max(probes, key=lambda job: len(job.split.train))
            self.run_probes([longest])
            expected += self.trial(longest).details["seconds"] * (len(probes) - 1) / self.workers
        if tunings:
            started = time.monotonic()
            finetuning = self.tuning(tunings[0]).finetuning
            rows = np.arange(finetuning.batch)
            finetuning.step(rows)  # builds and compiles
            overhead = time.monotonic() - started
            started = time.monotonic()
            for _ in range(TIMED_STEPS):
                finetuning.step(rows)
            step = (time.monotonic() - started) / TIMED_STEPS
            steps = sum(steps_of(self.recipe, len(job.split.train)) for job in tunings)
            expected += steps * step + overhead * len(tunings)
        return expected


def _numbered(number: int, call: tuple) -> tuple[int, tuple[np.ndarray, dict[str, Any]]]:
    return number, probe_trial(*call)


def duration(seconds: float) -> str:
    """Seconds in words: "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
