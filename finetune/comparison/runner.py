"""Runs a comparison's remaining trials."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer import progress
from mri_transfer.checkpoints.initialisation import Initialisation
from mri_transfer.datasets.tumors.tumors import TumorSet
from mri_transfer.errors import UserError
from mri_transfer.finetune.arms.arms import Arm
from mri_transfer.finetune.arms.feature_table import FeatureTable
from mri_transfer.finetune.arms.starts import WithoutNetwork, load_compiled
from mri_transfer.finetune.comparison import feature_trials
from mri_transfer.finetune.comparison.feature_trials import feature_trial
from mri_transfer.finetune.comparison.trials import Trial, TrialStore
from mri_transfer.finetune.comparison.tuning_trials import (
    TuningTask,
    processes_for_training,
    timed,
    tuning_trial,
)
from mri_transfer.finetune.config import Recipe
from mri_transfer.finetune.data.external import External
from mri_transfer.finetune.data.protocol import PUBLISHED, Split
from mri_transfer.finetune.heads.features import FeatureCache, extract_features, kept_images
from mri_transfer.finetune.heads.stages import steps_of
from mri_transfer.machine import device
from mri_transfer.processes.workers import Workers, run_calls
from mri_transfer.words import duration

IN_PROCESS = 8  # this few feature trials finish before worker processes would start


@dataclasses.dataclass(frozen=True)
class Job:
    """A trial to run: one arm, one mode, one split."""

    arm: Arm
    mode: str
    split: Split

    def __str__(self) -> str:
        place = "published split" if self.split.fold == PUBLISHED else f"fold {self.split.fold}"
        if self.split.source is not None:
            place += " within one source"
        return (
            f"{self.arm.name}, seed {self.split.seed}, {place}, {100 * self.split.fraction:g}% of the labels"
        )

    @property
    def source(self) -> Initialisation:
        """Its start."""
        return self.arm.source(self.split.seed, self.split.fold)

    @property
    def goes_out(self) -> bool:
        """Whether to test external images too: with grouped-fold models trained on all images and labels."""
        return self.split.fraction == 1 and self.split.fold != PUBLISHED and self.split.source is None

    @property
    def kind_of_split(self) -> str:
        """ "published", "source" or "grouped"."""
        if self.split.fold == PUBLISHED:
            return "published"
        return "grouped" if self.split.source is None else "source"


@dataclasses.dataclass
class Start:
    """Facts about a loaded start: its identity, origin, and features of each set of images."""

    digest: str
    about: dict[str, Any]
    features: list[Path]


TrialOutput = tuple[list[np.ndarray], dict[str, Any]]
AnyStart = Initialisation | WithoutNetwork | FeatureTable


def _digest(*arrays: np.ndarray) -> str:
    joined = b"|".join(np.asarray(array, np.int64).tobytes() for array in arrays)
    return hashlib.sha256(joined).hexdigest()[:16]


class Runner:
    """Trials of one comparison.

    Args:
        folder: the comparison's.
        tumors: the images.
        size: their side, pixels.
        recipe: for fine-tuning.
        imagenet_weights: as given by the user.
        workers: run the trials.
        externals: other sets of images, also tested by trials on all labels.
    """

    def __init__(
        self,
        folder: Path,
        tumors: TumorSet,
        size: int,
        recipe: Recipe,
        imagenet_weights: Path | None = None,
        workers: Workers | None = None,
        externals: Sequence[External] = (),
    ):
        self.folder, self.tumors, self.size, self.recipe = Path(folder), tumors, size, recipe
        self.imagenet_weights, self.externals = imagenet_weights, tuple(externals)
        self.workers = workers or Workers()
        self.store = TrialStore(self.folder / "trials")
        sets = [(tumors.fingerprint, tumors.images), *((e.fingerprint, e.images) for e in self.externals)]
        self.images = [images for _, images in sets]
        self.names = [tumors.names, *(external.names for external in self.externals)]
        self.caches = [FeatureCache(self.folder / "features", name, size) for name, _ in sets]
        self.starts: dict[AnyStart, Start] = {}
        self._trained_on: dict[str, list[Path]] = {}
        self.done: dict[str, Trial] = {}
        self.versions = device.versions()

    @property
    def damaged(self) -> list[str]:
        """A sentence for each kept file that can't be trusted; its content is redone."""
        return [*(line for cache in self.caches for line in cache.damaged), *self.store.damaged]

    def check_tables(self, arms: Iterable[Arm]) -> None:
        """Ensure that feature tables have a row for every image, before anything slow.

        Raises:
            UserError: one is missing; see :class:`FeatureTable`.
        """
        for arm in arms:
            if isinstance(table := arm.without_network, FeatureTable):
                table.check(self.names)

    def prepare(self, source: AnyStart, label: str) -> Start:
        """Load a start once to identify it, and compute missing features.

        Raises:
            UserError: it can't be loaded, or gives non-finite numbers.
        """
        if source not in self.starts:
            if not isinstance(source, Initialisation):
                digest, facts = source.identity()
            else:
                model, facts = load_compiled(source, self.size, self.imagenet_weights)
                digest = source.digest(model)
            for cache, images, names in zip(self.caches, self.images, self.names, strict=True):
                if cache.load(digest, len(images)) is None:
                    features = (
                        extract_features(model, images, f"features of {label}")
                        if isinstance(source, Initialisation)
                        else source.features(images, names)
                    )
                    broken = int((~np.isfinite(features)).any(axis=1).sum())
                    if broken:
                        raise UserError(
                            f"--arm {label}: its features of {broken} of {len(features)} images are not finite; "
                            "it is fed grey values 0..255 and must normalise them itself"
                        )
                    cache.save(digest, features)
            self.starts[source] = Start(digest, facts, [cache.path(digest) for cache in self.caches])
        return self.starts[source]

    def start(self, job: Job) -> Start:
        """Facts about a job's start."""
        label = job.arm.name
        if job.arm.per_seed or job.arm.repeated:
            label += f" (seed {job.split.seed}" + (f", fold {job.split.fold})" if job.arm.per_split else ")")
        return self.prepare(job.arm.without_network or job.source, label)

    def identity(self, job: Job, external: External | None = None) -> dict[str, Any]:
        """Everything that determines a trial's numbers; not the arm's name, so renaming keeps its trials."""
        split = job.split
        settings = (
            {"recipe": dataclasses.asdict(self.recipe), "probe": feature_trials.SETTINGS["probe"]}
            if job.mode == "finetune"
            else {job.mode: feature_trials.SETTINGS[job.mode]}
        )
        return {
            "mode": job.mode,
            "split": job.kind_of_split,
            "fraction": split.fraction,
            "seed": split.seed,
            "fold": split.fold,
            "images": _digest(split.train, split.test),
            "backbone": job.arm.backbone,
            "weights": self.start(job).digest,
            "data": self.tumors.fingerprint,
            "size": self.size,
            **settings,
            **({"external": external.fingerprint} if external else {}),
            **(
                {"classes": list(split.source.classes), "labels": _digest(self._labels(job))}
                if split.source
                else {}
            ),
        }

    def outputs(self, job: Job) -> list[External | None]:
        """A job's test sets: its own test images (None), then external ones."""
        return [None, *self.externals] if job.goes_out else [None]

    def _tested(self, job: Job, external: External | None) -> np.ndarray:
        return job.split.test if external is None else np.arange(len(external))

    def pending(self, jobs: Iterable[Job]) -> list[Job]:
        """Jobs not completely on disk; existing results are read into `done`."""
        left = []
        for job in jobs:
            complete = True
            for external in self.outputs(job):
                classes = self.tumors.classes if job.split.source is None else job.split.source.classes
                trial = self.store.load(self.identity(job, external), len(classes))
                if trial is None or not np.array_equal(trial.test, self._tested(job, external)):
                    complete = False
                else:
                    self.done[self.key(job, external)] = trial
            if not complete:
                left.append(job)
        return left

    def key(self, job: Job, external: External | None = None) -> str:
        """Name of the job's file, shared by arms with the same weights."""
        return self.store.path(self.identity(job, external)).name

    def trial(self, job: Job, external: External | None = None) -> Trial:
        """The finished trial of a job."""
        return self.done[self.key(job, external)]

    def _finish(self, job: Job, output: TrialOutput) -> None:
        predicted, details = output
        if details.get("diverged"):
            progress.say(f"{job}: training diverged; it is scored as chance")
        # The job's own trial is written last: it marks the job as done in a comparison without externals.
        for external, probabilities in reversed(list(zip(self.outputs(job), predicted, strict=True))):
            facts = {**details, "versions": self.versions}
            trial = Trial(self.identity(job, external), self._tested(job, external), probabilities, facts)
            self.store.save(trial)
            self.done[self.key(job, external)] = trial

    def run(self, jobs: Sequence[Job]) -> None:
        """Run every job, saving each when done."""
        self.run_on_features([job for job in jobs if job.mode in feature_trials.FITS])
        self.run_finetuning([job for job in jobs if job.mode == "finetune"])

    def run_on_features(self, jobs: Sequence[Job]) -> None:
        """Probes and nearest neighbours, in worker processes without Keras."""
        jobs = self._distinct(jobs)
        calls = [self._feature_call(job) for job in jobs]
        in_process = self.workers.local and (self.workers.count == 1 or len(calls) < IN_PROCESS)
        results: Iterator[tuple[int, TrialOutput]] = (
            ((number, feature_trial(*call)) for number, call in enumerate(calls))
            if in_process
            else run_calls(self.workers, feature_trial, calls)
        )
        with progress.bar(total=len(jobs), desc="trials on fixed features", unit="trial") as bar:
            for number, output in results:
                self._finish(jobs[number], output)
                bar.update(1)

    def _feature_call(self, job: Job) -> tuple:
        features, *others = self.start(job).features
        labels, groups, split = self._labels(job), self.tumors.groups, job.split
        elsewhere = others if job.goes_out else []
        return job.mode, features, labels, groups, split.train, split.test, split.seed, elsewhere

    def _labels(self, job: Job) -> np.ndarray:
        """Labels of every image; others' figures on the published split rest on folder labels."""
        if job.split.source is not None:
            return job.split.source.labels
        return self.tumors.folder_labels if job.split.fold == PUBLISHED else self.tumors.labels

    def _distinct(self, jobs: Sequence[Job]) -> list[Job]:
        """One of the arms with the same numbers."""
        return list({self.key(job): job for job in jobs}.values())

    def run_finetuning(self, jobs: Sequence[Job]) -> None:
        """Fine-tuning: in worker processes, or one trial at a time if each uses the GPU."""
        jobs = self._distinct(jobs)
        if not jobs:
            return
        in_process = self._trains_here()
        at_a_time = min(len(jobs), self.trainings.count)
        tasks = [self.tuning_task(job) for job in jobs]
        note = f", {at_a_time} at a time" if at_a_time > 1 else ""
        progress.say(f"fine-tuning {len(jobs)} trials{note}")
        results: Iterator[tuple[int, TrialOutput]] = (
            ((number, tuning_trial(task)) for number, task in enumerate(tasks))
            if in_process
            else run_calls(self.trainings, tuning_trial, [(task,) for task in tasks])
        )
        images_left = sum(len(job.split.train) for job in jobs)
        images, started = images_left, time.monotonic()
        for count, (number, output) in enumerate(results, 1):
            job = jobs[number]
            self._finish(job, output)
            images_left -= len(job.split.train)
            spent = time.monotonic() - started
            left = duration(spent * images_left / max(1, images - images_left))
            outlook = f"; about {left} left" if count < len(jobs) else ""
            progress.say(f"fine-tuned {count} of {len(jobs)}: {job}{outlook}")

    @cached_property
    def trainings(self) -> Workers:
        """Executor for trainings: by default as many at a time as memory and a GPU allow."""
        default = self.workers.local and self.workers.asked is None
        return Workers(processes_for_training()) if default else self.workers

    def _trains_here(self) -> bool:
        return self.workers.local and self.trainings.count == 1 and device.has_gpu()

    def insight_path(self, job: Job) -> Path:
        """File for the report's maps of a fine-tuned encoder, as the encoder itself isn't kept."""
        return self.folder / "insight" / self.key(job)

    def encoder(self, job: Job) -> Any:
        """A job's starting encoder."""
        return load_compiled(job.source, self.size, self.imagenet_weights)[0]

    def features(self, job: Job) -> np.ndarray | None:
        """Features of every image from a job's start, float32 (n, d); None if gone or damaged."""
        return self.caches[0].load(self.start(job).digest, len(self.tumors))

    def tuning_task(self, job: Job) -> TuningTask:
        """A fine-tuning job for any process."""
        split, tumors, start = job.split, self.tumors, self.start(job)
        images, *others = self._checked_images(start.digest)
        return TuningTask(
            name=str(job),
            source=job.source,
            digest=start.digest,
            imagenet_weights=self.imagenet_weights,
            recipe=self.recipe,
            classes=tuple(tumors.classes) if split.source is None else split.source.classes,
            images=images,
            features=start.features[0],
            labels=self._labels(job),
            groups=tumors.groups,
            train=split.train,
            test=split.test,
            seed=split.seed,
            insight=self.insight_path(job),
            elsewhere=tuple(others) if job.goes_out else (),
        )

    def _checked_images(self, digest: str) -> list[Path]:
        """Verified files of a start's features for each set of images. Checked once per start."""
        if digest not in self._trained_on:
            for cache, images in zip(self.caches, self.images, strict=True):
                if cache.load(digest, len(images)) is None:
                    raise RuntimeError(f"{cache.path(digest)}: changed while the comparison ran")
            self._trained_on[digest] = [
                kept_images(cache.folder, cache.data, images)
                for cache, images in zip(self.caches, self.images, strict=True)
            ]
        return self._trained_on[digest]

    def expected_seconds(self, jobs: Sequence[Job]) -> float:
        """Estimated cost of jobs, from one feature trial of each mode (kept) and a few fine-tuning steps."""
        expected = 0.0
        for mode in feature_trials.FITS:
            mode_jobs = self._distinct([job for job in jobs if job.mode == mode])
            if mode_jobs:
                longest = max(mode_jobs, key=lambda job: len(job.split.train))
                self.run_on_features([longest])
                seconds = self.trial(longest).details["seconds"]
                expected += seconds * (len(mode_jobs) - 1) / self.workers.count
        tunings = self._distinct([job for job in jobs if job.mode == "finetune"])
        if tunings:
            at_a_time = min(len(tunings), self.trainings.count)
            # As many at once as in the real run: they share caches and memory.
            task = (self.tuning_task(tunings[0]),)
            timings = (
                [timed(*task)]
                if self._trains_here()
                else [seconds for _, seconds in run_calls(self.trainings, timed, [task] * at_a_time)]
            )
            overhead, step = np.mean(timings, axis=0)
            steps = sum(steps_of(self.recipe, len(job.split.train)) for job in tunings)
            expected += float(steps * step + overhead * len(tunings)) / at_a_time
        return expected
