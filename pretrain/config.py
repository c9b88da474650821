"""Settings of a pretraining run."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from mri_transfer.checkpoints.initialisation import BACKBONE, FORMS, RANDOM, WEIGHTS, start
from mri_transfer.errors import UserError
from mri_transfer.options import (
    argument,
    non_negative_float,
    option,
    positive_float,
    positive_int,
    seed_number,
    share,
    side,
    time_in,
    whole,
)
from mri_transfer.pretrain import recipes
from mri_transfer.pretrain.augmentations.table import described, strengths_of, view_strength
from mri_transfer.pretrain.fit.precision import PRECISIONS
from mri_transfer.pretrain.methods import METHOD_OPTIONS, METHODS, NOTHING, RATE, TRAINED_RATE, takers
from mri_transfer.pretrain.pairs.positives import mixture_text


def _of_methods(name: str, help: str, *, default: Any = None, **how: Any) -> Any:
    """An option that only some methods take; METHODS says which, and its default."""
    values: dict[Any, list[str]] = {}
    for method in takers(name):
        values.setdefault(METHODS[method].options[name], []).append(method)
    if not values:
        raise ValueError(f"{name}: no method takes this option")
    if default is None:
        of_each = (
            f"{value:g}" + f" for {_joined(names)}" * (len(values) > 1) for value, names in values.items()
        )
        help += f" (default: {', '.join(of_each)})"
    return option(default, help=f"{_joined(takers(name))} only: {help}", **how)


def _joined(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _warmup(text: str) -> float:
    if (value := share(text)) == 1:
        raise ValueError("must be below 1, or the rate never falls")
    return value


def _clock(text: str) -> str:
    """A time of day; kept as given, for config.json."""
    try:
        datetime.time.fromisoformat(text)
    except ValueError:
        raise ValueError("must be a time of day such as 07:00") from None
    return text


def _address(text: str) -> str:
    """A host and a port."""
    host, colon, port = text.rpartition(":")
    if not (host and colon and ":" not in host and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError("must be HOST:PORT, such as node7:9000 or 10.0.0.7:9000")
    return text


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """Settings of one pretraining run; stored as `config.json` in the run folder and carried by its encoder."""

    EXAMPLE: ClassVar[str] = f"""\
examples:
  mri-transfer pretrain STORE --out RUN --hours 8                    overnight, from random weights
  mri-transfer pretrain STORE --out RUN --until 07:00                the same, but ready at seven
  mri-transfer pretrain STORE --out RUN --hours 8 --init imagenet    continue from ImageNet instead
  mri-transfer pretrain STORE --out RUN --steps 2000 --batch 32      a fixed number of steps, repeatable to the bit

Give exactly one of --hours, --until, --minutes and --steps. After a kill, an interrupt or a power cut, the same command
continues the run. --hours and --minutes count training only, not the time in between; --until keeps its end, so an
interruption shortens the training. Changing the system time has no effect on a run. Closing the terminal or the ssh
session doesn't end it; Ctrl-C saves and ends it.

recipes, for --recipe; options that you give take precedence:
{recipes.described()}

augmentations of views, for --view, each with what it stands for:
{described()}
"""

    HEADINGS: ClassVar[dict[str, str]] = {
        "how long": "hours until minutes steps save_minutes keep_going",
        "network and method": "init backbone imagenet_weights method temperature decoupled lesions label_weight",
        "pairs and views": "positives max_mm batch size first_size first_share strength view preview",
        "optimizer": "learning_rate weight_decay warmup",
        "memory and speed": "recompute micro_batch precision memory",
        "several processes": "coordinator processes process",
    }
    ONE_OF: ClassVar[tuple[tuple[str, ...], ...]] = (("hours", "until", "minutes", "steps"),)

    store: Path = argument(metavar="STORE", help="slice store, made by `mri-transfer slices`")
    out: Path = option(
        help="run folder: the encoder, its provenance, metrics and the state to resume from", metavar="RUN"
    )
    recipe: str | None = option(
        None, help="settings for a kind of machine (listed below)", choices=tuple(recipes.RECIPES)
    )
    hours: float | None = option(
        None, help="time budget in hours, everything included", metavar="H", parse=time_in("h")
    )
    until: str | None = option(
        None,
        help="finish by the next occurrence of this local time",
        metavar="HH:MM",
        parse=_clock,
    )
    minutes: float | None = option(None, help="time budget in minutes", metavar="M", parse=time_in("min"))
    steps: int | None = option(
        None, help="number of optimizer steps, instead of a time", metavar="N", parse=positive_int
    )
    method: str = option(
        "simclr",
        help="; ".join(f"{name} {method.about}" for name, method in METHODS.items()),
        choices=METHODS,  # not a copy: registered methods join
    )
    backbone: str | None = option(None, help=BACKBONE, metavar="NAME")
    init: str = option(RANDOM, help=f"starting weights: {FORMS}", metavar="START", parse=start)
    imagenet_weights: Path | None = option(None, help=WEIGHTS, metavar="FILE")
    positives: str = option(
        "adjacent",
        help="what the two views of a pair show: 'adjacent' slices (at most --max-mm apart), the "
        "same place in another 'sequence' (same session and grid), the 'same' slice, or a mixture such as "
        "adjacent:0.5,sequence:0.3,same:0.2; slices without a partner of one kind use the others",
        metavar="KINDS",
        parse=mixture_text,
    )
    max_mm: float = option(
        6.0, help="maximum distance between two adjacent slices, in mm", metavar="MM", parse=positive_float
    )
    batch: int = option(64, help="pairs of slices in a step", metavar="PAIRS", parse=positive_int)
    size: int | None = option(
        None,
        help="side of the views in pixels (default: that of the store)",
        metavar="PX",
        parse=side,
    )
    first_size: int | None = option(
        None,
        help="begin with views of this size for --first-share of the budget: smaller views cost less, so more are seen",
        metavar="PX",
        parse=side,
    )
    first_share: float = option(
        0.5, help="share of the budget that --first-size is used for", metavar="SHARE", parse=share
    )
    strength: float = option(
        1.0, help="strength of all augmentations; 0 turns them off", metavar="X", parse=non_negative_float
    )
    view: tuple[str, ...] = option(
        (),
        help="multiply the strength of one augmentation (listed below), such as jpeg=0 or rotation=2; may be repeated",
        metavar="NAME=X",
        repeat=True,
        parse=view_strength,
    )
    learning_rate: float | None = option(
        None,
        help=f"peak rate of AdamW (default: {RATE:g} from random weights, {TRAINED_RATE:g} from trained ones"
        + "".join(f", {m.rate:g} for {name}" for name, m in METHODS.items() if m.rate != RATE)
        + ")",
        metavar="RATE",
        parse=positive_float,
    )
    weight_decay: float = option(
        1e-4,
        help="decoupled weight decay; biases and normalisation are left out",
        metavar="X",
        parse=non_negative_float,
    )
    warmup: float = option(
        0.05, help="share of the budget over which the rate rises to its peak", metavar="SHARE", parse=_warmup
    )
    temperature: float | None = _of_methods(
        "temperature", "temperature of the similarities", metavar="T", parse=positive_float
    )
    decoupled: bool = _of_methods(
        "decoupled", "leave the partner out of the denominator (DCL), for small batches", default=False
    )
    lesions: float | None = _of_methods(
        "lesions", "share of the pairs that get a synthetic lesion; 0 for none", metavar="SHARE", parse=share
    )
    label_weight: float | None = _of_methods(
        "label_weight",
        "weight of each loss of free labels beside the contrast",
        metavar="X",
        parse=non_negative_float,
    )
    recompute: str = option(
        "auto",
        help="compute early activations twice instead of storing them: less memory, more time; auto does so when "
        "they would take over 2 GB",
        choices=("auto", "always", "never"),
    )
    micro_batch: int | None = option(
        None,
        help="pairs that are encoded at once: memory grows with this instead of --batch, and the loss still "
        "sees the whole batch (default: as many as --memory allows; halved when memory turns out to be short)",
        metavar="PAIRS",
        parse=positive_int,
    )
    precision: str = option(
        "auto",
        help="number format of the layers; auto times both when a run of an hour or more starts and takes bfloat16 if "
        "that is 10% faster; shorter runs and --steps use float32",
        choices=("auto", *PRECISIONS),
    )
    memory: float | None = option(
        None,
        help="memory that the training may take, in GB (default: what is free when it starts, in the machine or its "
        "container, less a reserve for the system). On a Jetson it also bounds what TensorFlow or JAX may take",
        metavar="GB",
        parse=positive_float,
    )
    save_minutes: float = option(
        5.0,
        help="save this often, in minutes: at most this much work is lost to a power cut. Where saving would "
        "cost more than 1% of the time, it is done less often",
        metavar="M",
        parse=positive_float,
    )
    keep_going: bool = option(
        False,
        help="don't end early when the embeddings have collapsed; by default such a run ends with code 2",
    )
    coordinator: str | None = option(
        None,
        help="train in several processes, on one or many machines, with KERAS_BACKEND=jax: the address of process 0, "
        "the same for all. --batch is shared out among them",
        metavar="HOST:PORT",
        parse=_address,
    )
    processes: int | None = option(
        None,
        help="number of processes, each started with this command (default: what SLURM or MPI says)",
        metavar="N",
        parse=positive_int,
    )
    process: int | None = option(
        None, help="number of this process, from 0; only process 0 writes", metavar="I", parse=whole
    )
    seed: int = option(0, help="seed of weights, batches and views", metavar="N", parse=seed_number)
    preview: Path | None = option(
        None, help="draw slices and their views into this PNG, and stop", metavar="FILE"
    )
    banner: str = ""  # not an option: the demo's banner across its page

    def __post_init__(self) -> None:
        if self.first_size and self.size and self.first_size > self.size:
            raise UserError(
                f"--first-size {self.first_size}: is larger than --size {self.size}; choose a smaller one"
            )
        method = METHODS[self.method]
        for name in self.method_options:
            if name not in method.options:
                raise UserError(
                    f"--{name.replace('_', '-')}: --method {self.method} has no such setting "
                    f"({', '.join(takers(name))} has); leave it out"
                )
        if self.batch == 1 and method.compares != NOTHING:
            raise UserError(
                f"--batch 1: --method {self.method} compares the pairs of a batch with one another, so with one pair "
                "there is nothing to learn from; use --batch 2 or more (--micro-batch 1 saves memory)"
            )

    @classmethod
    def preset(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Defaults that a recipe sets, for the command line.

        Args:
            given: option values by name.
        """
        return recipes.settings_of(given["recipe"], given) if given.get("recipe") else {}

    def size_at(self, used: float, full: int) -> int:
        """Side of the views in pixels after a fraction `used` of the budget; `full` is the final size."""
        return self.first_size if self.first_size is not None and used < self.first_share else full

    @property
    def until_time(self) -> datetime.time:
        """The time of day by which the run must be ready."""
        assert self.until is not None
        return datetime.time.fromisoformat(self.until)

    @property
    def trained_start(self) -> bool:
        """Whether the starting weights are pretrained."""
        return self.init != RANDOM

    @property
    def default_rate(self) -> float:
        """Default peak learning rate."""
        rate = METHODS[self.method].rate
        return min(rate, TRAINED_RATE) if self.trained_start else rate

    @property
    def method_options(self) -> dict[str, Any]:
        """The method options that were given."""
        options = {name: getattr(self, name) for name in METHOD_OPTIONS}
        return {name: value for name, value in options.items() if value is not None and value is not False}

    @property
    def strengths(self) -> dict[str, float]:
        """Factors for single augmentations, by name."""
        return strengths_of(self.view)

    @property
    def seconds(self) -> float | None:
        """The time budget in seconds, or None for a budget in steps or one that ends at a time of day."""
        if self.hours is not None:
            return self.hours * 3600
        return self.minutes * 60 if self.minutes is not None else None
