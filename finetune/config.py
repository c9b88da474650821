"""Settings of `finetune`, `compare` and `predict`; the command line is made from these."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import ClassVar

from mri_transfer.checkpoints.initialisation import BACKBONE, FORMS, WEIGHTS, start
from mri_transfer.errors import UserError
from mri_transfer.options import (
    argument,
    at_least,
    did_you_mean,
    fractions,
    non_negative_float,
    option,
    positive_float,
    positive_int,
    same_as,
    seed_number,
    share,
    side,
    whole,
)

RUN_KIND = "fine-tuning run"  # kind recorded in a run's folder
MODES = ("probe", "nearest", "finetune")
BOTH = ("probe", "finetune")
SCORED = ("headline", "development", "all")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Fine-tuning settings: the same for every arm, and part of every trial's identity.

    Attributes:
        epochs: passes over the training images in the second phase; the first phase is the linear probe's exact
            solution, so it costs no pass. None takes `usual`, or for few images enough for `least_steps`.
        batch: images per step.
        rate: peak learning rate of AdamW, for the head; linear warm-up, then cosine decay to zero.
        rates: grid of such rates; the best on an inner split of the training groups is used instead.
        unfreeze: share of the encoder's weighted layers, from the top, trained in the second phase.
        decay: ratio of the rate of a twelfth of the encoder's layers to that of the twelfth above it.
        gradual: share of steps in which the trained part grows from the top down; 0 trains all of it at once.
        warmup: share of steps for warm-up.
        weight_decay: AdamW's decoupled weight decay.
        smoothing: label smoothing, the share of every label spread over all classes.
        average: time constant, in epochs, of the moving average of weights kept at the end; 0 keeps the last.
        balance: whether every class has equal weight in the loss, whatever its number of images.
        calibration: "temperature" fits one on an inner split, at the cost of a second training; or "none".
        early_stopping: whether training ends at the best epoch on the inner split.
        rotation: maximum rotation, degrees.
        zoom: maximum change of size, as a fraction.
        shift: maximum shift, as a fraction of the side.
        light: maximum change of gain, as a fraction, and of log gamma.
        flip: whether to mirror left and right at random.
        inner_parts: an inner split holds out one of this many parts of the training groups; fewer for few groups.
        choosing: length of the trainings that choose the rate, as a share of epochs.
        usual, least_steps: see `epochs`.
    """

    epochs: int | None = None
    batch: int = 16
    rate: float = 3e-4
    rates: tuple[float, ...] = ()
    unfreeze: float = 0.5
    decay: float = 1.0
    gradual: float = 0.0
    warmup: float = 0.1
    weight_decay: float = 1e-4
    smoothing: float = 0.0
    average: float = 0.0
    balance: bool = True
    calibration: str = "temperature"
    early_stopping: bool = False
    rotation: float = 10.0
    zoom: float = 0.1
    shift: float = 0.05
    light: float = 0.2
    flip: bool = True
    inner_parts: int = 5
    choosing: float = 1 / 3
    usual: int = 12
    least_steps: int = 300

    def passes(self, images: int) -> int:
        """Epochs of a training on this many images."""
        if self.epochs is not None:
            return self.epochs
        return max(self.usual, math.ceil(self.least_steps / math.ceil(images / self.batch)))


folds = at_least(2, ", so that there is something to train on and something to test on")
draws = at_least(2)  # an interval needs as many


def rates(text: str) -> tuple[float, ...]:
    """Comma-separated learning rates, such as 1e-4,3e-4,1e-3."""
    return tuple(sorted({positive_float(rate) for rate in text.split(",")}))


def modes(text: str) -> str:
    """Comma-separated modes, or `both`; in order of execution.

    Raises:
        ValueError: no such mode.
    """
    names = {mode.strip().lower() for mode in text.split(",")}
    if "both" in names:
        names = names - {"both"} | set(BOTH)
    if unknown := sorted(names - set(MODES)):
        hint = did_you_mean(unknown[0], MODES)
        raise ValueError(f"there is no mode {unknown[0]!r}; choose among {', '.join(MODES)}, or both{hint}")
    return ",".join(mode for mode in MODES if mode in names)


TUMORS = "folder of labelled images: one folder per class, with or without Training/ and Testing/ above"
EPOCHS = (
    f"passes over the training images when fine-tuning (default: {Recipe.usual}, or more where images are few, to make "
    f"{Recipe.least_steps} steps)"
)
BATCH = "images in one step of fine-tuning"
RATE = "peak learning rate of fine-tuning"
RATES = (
    "learning rates to choose from instead, e.g. 1e-4,3e-4,1e-3: every arm tries all of them in short trainings on an "
    "inner split of its training groups"
)
CALIBRATION = (
    "temperature: calibrate probabilities by a temperature fitted on an inner split, which takes a second training; "
    "none: skip that"
)
UNFREEZE = "share of the encoder, from the top, that fine-tuning trains (0: the head only)"
GROUPS = (
    "table of groups that every split keeps together, as `mri-transfer audit` writes it (groups.csv); a known person "
    "takes precedence over a group, and copies and near-copies stay together in any case (default: persons where they "
    "are known, inferred groups elsewhere)"
)
FORCE_GROUPS = "accept --groups even if one group holds more than a quarter of a class"
LABELS = (
    "source: use the label of the public collection where an image is recognised as one of its slices; folder: trust "
    "the folders. The published split always uses the folders' labels"
)


TUNING = "epochs batch rate rates unfreeze calibration"


def _recipe(config: FinetuneConfig | CompareConfig) -> Recipe:
    names = ("epochs", "batch", "rate", "rates", "unfreeze", "calibration")
    return Recipe(**{name: getattr(config, name) for name in names})


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """One classifier from one encoder."""

    EXAMPLE: ClassVar[str] = (
        "example: mri-transfer finetune tumors/ --init runs/mri --out runs/classifier\n"
        "One fold of groups is held out and scored; about ten minutes on two cores for the default 12 epochs."
    )

    HEADINGS: ClassVar[dict[str, str]] = {
        "start": "init backbone imagenet_weights",
        "images": "size folds groups force_groups labels strict",
        "fine-tuning": TUNING,
    }

    tumors: Path = argument(help=TUMORS, metavar="TUMORS")
    out: Path = option(help="folder for the classifier", metavar="RUN")
    init: str = option(
        "imagenet",
        help=f"starting weights: {FORMS}",
        metavar="START",
        parse=start,
    )
    size: int = option(160, help="side of the images, pixels", metavar="PIXELS", parse=side)
    backbone: str | None = option(None, help=BACKBONE, metavar="NAME")
    imagenet_weights: Path | None = option(None, help=WEIGHTS, metavar="FILE")
    folds: int = option(
        5, help="number of folds that groups are split into; one is held out", metavar="N", parse=folds
    )
    epochs: int | None = option(Recipe.epochs, help=EPOCHS, metavar="N", parse=whole)
    batch: int = option(Recipe.batch, help=BATCH, metavar="N", parse=positive_int)
    rate: float = option(Recipe.rate, help=RATE, metavar="RATE", parse=positive_float)
    rates: tuple[float, ...] = option(Recipe.rates, help=RATES, metavar="LIST", parse=rates)
    unfreeze: float = option(Recipe.unfreeze, help=UNFREEZE, metavar="SHARE", parse=share)
    calibration: str = option(Recipe.calibration, help=CALIBRATION, choices=("temperature", "none"))
    seed: int = option(
        0, help="seed of folds, augmentation and a random start", metavar="N", parse=seed_number
    )
    groups: Path | None = option(None, help=GROUPS, metavar="FILE")
    force_groups: bool = option(False, help=FORCE_GROUPS)
    labels: str = option("source", help=LABELS, choices=("source", "folder"))
    strict: bool = option(False, help="stop at the first unreadable image instead of skipping it")

    def recipe(self) -> Recipe:
        """The fine-tuning settings among these."""
        return _recipe(self)


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    """Every arm on the same folds."""

    EXAMPLE: ClassVar[str] = (
        "example: mri-transfer compare tumors/ --arm random --arm imagenet --arm mri=runs/mri --out report/\n"
        "Linear probes take minutes. Fine-tuning every arm takes hours on a processor without a GPU:\n"
        "         mri-transfer compare tumors/ --arm imagenet --arm mri=runs/mri --mode both --out report/\n"
        "`--dry-run` says how many hours before they are spent."
    )

    HEADINGS: ClassVar[dict[str, str]] = {
        "starts": "arm backbone mixed_backbones imagenet_weights target_stores",
        "images": "size groups force_groups labels strict against external class_map",
        "comparison": "mode folds seeds fractions scored one_source draws seed",
        "plan": "plan hypothesis",
        "fine-tuning": TUNING,
        "where it is computed": "workers cluster",
    }

    tumors: Path = same_as(FinetuneConfig, "tumors")
    out: Path = option(help="folder for the report and the finished trials", metavar="REPORT")
    arm: tuple[str, ...] = option(
        (),
        help="a start to compare: random, imagenet, or NAME=RUN with a pretraining run or encoder; NAME=FILE.keras, a "
        "network of your own; NAME=FILE.h5, weights of --backbone; NAME=features:FILE (.npz, .csv), features made "
        "elsewhere; NAME=scaled:START, random weights scaled like imagenet's or a run's; pixels or figures, no "
        "network at all; with {seed} in RUN each seed has a run of its own, so that intervals cover pretraining "
        "too; with {seed} and {fold} each fold has its own (see --target-stores); repeat it (default: random and "
        "imagenet)",
        metavar="ARM",
        repeat=True,
    )
    mode: str = option(
        "probe",
        help="some of probe (linear, on fixed features: minutes), nearest (neighbours of fixed features: minutes) and "
        "finetune (hours on a CPU), such as probe,nearest; both is probe,finetune",
        metavar="LIST",
        parse=modes,
    )
    folds: int = same_as(FinetuneConfig, "folds", help="folds of groups")
    seeds: int = option(
        3, help="repetitions, each with its own folds and random numbers", metavar="N", parse=positive_int
    )
    fractions: tuple[float, ...] = option(
        (1.0,),
        help="shares of the training groups whose labels are used, e.g. 0.05,0.25,1; the published split is "
        "trained on if 1 is among them",
        metavar="LIST",
        parse=fractions,
    )
    size: int = same_as(FinetuneConfig, "size")
    backbone: tuple[str, ...] = option(
        (),
        help=f"{BACKBONE}; repeat it to compare the built-in starts on several",
        metavar="NAME",
        repeat=True,
    )
    mixed_backbones: bool = option(False, help="allow arms whose networks differ")
    imagenet_weights: Path | None = same_as(FinetuneConfig, "imagenet_weights")
    against: tuple[Path, ...] = option(
        (),
        help="slice store to check for copies of these images; may be repeated (default: the stores that the encoders "
        "were pretrained on, if they still exist)",
        metavar="STORE",
        repeat=True,
    )
    external: tuple[Path, ...] = option(
        (),
        help="folder of other images of the same classes: models trained on all labels are tested on it too, without "
        "the images that are also in the training set; may be repeated",
        metavar="DIR",
        repeat=True,
    )
    class_map: tuple[str, ...] = option(
        (),
        help="what a class of an --external folder is called here, if its name is not understood (glioma, notumor, "
        "healthy and the like are); nothing after = leaves the class out; may be repeated",
        metavar="'THEIRS=OURS'",
        repeat=True,
    )
    target_stores: Path | None = option(
        None,
        help="write a slice store of the training images of every split here and stop; an encoder pretrained on each "
        "can be compared without a leak, by --arm target=RUN-{seed}-{fold}",
        metavar="DIR",
    )
    epochs: int | None = same_as(FinetuneConfig, "epochs")
    batch: int = same_as(FinetuneConfig, "batch")
    rate: float = same_as(FinetuneConfig, "rate")
    rates: tuple[float, ...] = same_as(FinetuneConfig, "rates")
    unfreeze: float = same_as(FinetuneConfig, "unfreeze")
    calibration: str = same_as(FinetuneConfig, "calibration")
    scored: str = option(
        "headline",
        help="which images are scored: those outside the development groups (a fixed fifth, reserved for choosing "
        "methods and settings), only those in them, or all; all are used for training either way",
        choices=SCORED,
    )
    one_source: str = option(
        "features",
        help="if images are recognised as slices of a collection whose persons are known, compare starts within it, "
        "too: with probe and nearest only (features), with fine-tuning as well (all), or not at all (none)",
        choices=("features", "all", "none"),
    )
    plan: Path | None = option(
        None,
        help="plan of the comparison: written here before anything is scored (with --dry-run nothing else is done); if "
        "the file exists, what is run is checked against it, and the report says whether it was followed",
        metavar="FILE",
    )
    hypothesis: str = option("", help="what you expect, in a sentence, for a new plan", metavar="TEXT")
    draws: int = option(
        2000,
        help="bootstrap draws over groups; under 1,000, intervals and p-values are coarse and may disagree",
        metavar="N",
        parse=draws,
    )
    seed: int = option(
        0, help="first seed of folds, augmentation and random starts", metavar="N", parse=seed_number
    )
    workers: int | None = option(
        None,
        help="trials at a time, each in a process with one thread (default: one per core, fewer trainings where memory "
        "is short, and one training on a GPU); figures don't depend on it",
        metavar="N",
        parse=positive_int,
    )
    cluster: str | None = option(
        None,
        help="run the trials on a Dask cluster instead: address of its scheduler, such as tcp://host:8786 (extra "
        "[cluster]); its workers must see OUT and the encoders",
        metavar="ADDRESS",
    )
    title: str = option("Which start is better?", help="title of the report", metavar="TEXT")
    dry_run: bool = option(
        False, help="say how many trials there are and how long they would take, then stop"
    )
    groups: Path | None = same_as(FinetuneConfig, "groups")
    force_groups: bool = same_as(FinetuneConfig, "force_groups")
    labels: str = same_as(FinetuneConfig, "labels")
    strict: bool = same_as(FinetuneConfig, "strict")
    banner: str = ""  # not an option: the demo's banner across its report

    def recipe(self) -> Recipe:
        """The fine-tuning settings among these."""
        return _recipe(self)

    def modes(self) -> tuple[str, ...]:
        """The modes, in order of execution."""
        return tuple(modes(self.mode).split(","))


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    """Class probabilities for images and volumes."""

    EXAMPLE: ClassVar[str] = (
        "example: mri-transfer predict runs/classifier scan.png folder/ --csv probabilities.csv --gradcam where/\n"
        "A volume (NIfTI, DICOM, ...) is cut into slices; each is classified, and what is unlike the training images,\n"
        "such as a photograph or another part of the body, is marked. Not a medical device."
    )

    run: Path = argument(help="folder that `mri-transfer finetune` made", metavar="RUN")
    images: tuple[Path, ...] = argument(
        help="image files, volumes (.nii, .nii.gz, DICOM, ...), or folders of them",
        metavar="IMAGE",
        many=True,
    )
    csv: Path | None = option(None, help="write the table here instead of printing it", metavar="FILE")
    gradcam: Path | None = option(
        None, help="write a class activation map here, one picture per image or slice", metavar="DIR"
    )
    spacing: float = option(
        4.0,
        help="slices taken of a volume stand at least this far apart, mm (0 takes every one)",
        metavar="MM",
        parse=non_negative_float,
    )
    batch: int = option(32, help="images at a time", metavar="N", parse=positive_int)
    strict: bool = option(False, help="stop at the first unreadable file instead of skipping it")


def require_tumors(folder: Path) -> None:
    """Check before any work that the tumour folder exists.

    Raises:
        UserError: it does not exist or is a file.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; name the one with the class folders, or Training/ and Testing/"
        )
