"""A run's start: weights and position, pairs that fit into memory, and time left."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mri_transfer import progress
from mri_transfer.checkpoints.initialisation import Initialisation
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.errors import UserError
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.fit.out_of_memory import REMEDY, largest_that_fits, smaller
from mri_transfer.pretrain.fit.precision import PRECISIONS, WORTH_SECONDS, fastest, measured
from mri_transfer.pretrain.pairs.positives import PairSampler
from mri_transfer.pretrain.run.monitors import SCORE
from mri_transfer.pretrain.run.position import Position
from mri_transfer.pretrain.run.schedule import next_moment
from mri_transfer.pretrain.run.trainer import Trainer, bytes_of_training
from mri_transfer.storage.files import read_object, write_card
from mri_transfer.words import size_in_words

if TYPE_CHECKING:
    import keras

    from mri_transfer.pretrain.devices.choice import Devices


def start_or_continue(
    config: PretrainConfig,
    backbone: str,
    store: SliceStore,
    sampler: PairSampler,
    devices: Devices,
    *,
    limit: float | None,
    killed: bool,
) -> tuple[Trainer, dict[str, Any], Position]:
    """The trainer with its weights, their origin, and the run's position.

    Args:
        config, backbone, store, sampler: the run's.
        devices: those it trains on.
        limit: memory limit in bytes, if known.
        killed: whether the previous process was killed for lack of memory.

    Raises:
        UserError: no such start, a damaged state, or too little memory.
    """
    from mri_transfer.checkpoints.state import load_state

    start_file = config.out / "start.json"
    full_size = config.size or store.size
    size = config.size_at(0.0, full_size)
    saved = load_state(config.out / "state")
    if saved:  # starting weights may be gone; the state holds everything
        arrays, info = saved
        position = Position.from_info(info)
        if killed:
            position.micro_batch = _after_a_kill(config, position.micro_batch)
        start = read_object(start_file, {"backbone": str})
        if start.get("precision", PRECISIONS[0]) not in PRECISIONS:
            raise UserError(f"{start_file}: is damaged (precision); choose another --out")
        trainer = devices.trainer(
            config,
            backbone,
            None,
            size=position.size or size,
            micro_batch=position.micro_batch,
            precision=start.get("precision", PRECISIONS[0]),
        )
        trainer.assign(arrays)
        progress.say(
            f"continuing {config.out} at step {position.step}, {position.seconds / 60:.1f} minutes in"
        )
        return trainer, start, position
    initialisation = Initialisation.read(config.init, backbone, seed=config.seed)
    encoder, facts = initialisation.load(size, config.imagenet_weights)
    weights = encoder.get_weights()
    micro_batch = _micro_batch(config, backbone, encoder, full_size, limit, devices.processes)
    if killed:
        micro_batch = _after_a_kill(config, micro_batch)

    def trainer_of(precision: str) -> Trainer:
        return devices.trainer(
            config, backbone, encoder, size=size, micro_batch=micro_batch, precision=precision
        )

    start = {"backbone": backbone, **facts, **_precision(config, trainer_of, sampler)}
    encoder.set_weights(weights)  # measuring moved batch-normalisation averages
    write_card(start_file, start)
    return trainer_of(start["precision"]), start, Position()


def _precision(
    config: PretrainConfig, trainer_of: Callable[[str], Trainer], sampler: PairSampler
) -> dict[str, Any]:
    """The precision to train in, and why."""
    if config.precision != "auto":
        return {"precision": config.precision}
    budget = config.seconds
    if config.until is not None:
        now = time.time()
        budget = next_moment(config.until_time, now) - now
    if budget is None or budget < WORTH_SECONDS:
        return {"precision": "float32"}
    seconds = measured(trainer_of, sampler(0))
    precision = fastest(seconds)
    speeds = ", ".join(f"{elapsed:.2f} s in {name}" for name, elapsed in seconds.items())
    progress.say(f"a step takes {speeds}: training in {precision}")
    return {
        "precision": precision,
        "step_seconds": {name: round(elapsed, 4) for name, elapsed in seconds.items()},
    }


def _micro_batch(
    config: PretrainConfig,
    backbone: str,
    encoder: keras.Model,
    size: int,
    limit: float | None,
    processes: int,
) -> int | None:
    """Pairs at once: as set, or as many as fit at the largest view size."""
    from mri_transfer.checkpoints.backbones import build_encoder

    if config.micro_batch is not None:
        return config.micro_batch
    if limit is None:  # GPUs with their own memory report it
        return None
    largest = encoder if encoder.input_shape[1] == size else build_encoder(backbone, size)
    micro_batch = largest_that_fits(
        lambda at_once: bytes_of_training(config, largest, at_once, processes), config.batch, limit
    )
    if micro_batch is not None:
        progress.say(
            f"{size_in_words(limit)} of memory may be used: {micro_batch} of {config.batch} pairs are encoded at once"
        )
    return micro_batch


def _after_a_kill(config: PretrainConfig, micro_batch: int | None) -> int | None:
    """Pairs at once after the kernel killed a process with `micro_batch`: half, if possible.

    If not, the run warns and goes on: another program may have been killed for lack of memory.
    """
    fewer = smaller(micro_batch, config.batch)
    at_once = micro_batch or config.batch
    outcome = f"continuing with {fewer}" if fewer else f"if it happens again, {REMEDY}"
    progress.say(
        f"the system seems to have killed this run for lack of memory, with {at_once} pairs at once: {outcome}"
    )
    return fewer or micro_batch


def seconds_left(config: PretrainConfig, position: Position) -> float:
    """Seconds until --until, which is converted to a clock time once, when the run begins.

    A resumed run reads the clock again, the only record of how long it was off. If that leaves more time than the last
    save had, the clock was set back, or a board without a clock battery lost it.

    Args:
        config: with `until`.
        position: the run's; its `ends` is set when the run begins.

    Raises:
        UserError: the clock was never set.
    """
    now = time.time()
    if position.ends is None or position.left is None:
        position.ends = next_moment(config.until_time, now)
        return position.ends - now
    if position.ends - now > position.left + 1:
        progress.say(
            "the clock shows an earlier time than when this run was saved, so it isn't trusted: the run goes "
            f"on for the {position.left / 60:.0f} minutes that were left then"
        )
    return min(position.left, max(0.0, position.ends - now))


def best_score(out: Path) -> float:
    """Score of the best encoder a run has kept so far; an unmeasured one counts as worse than any score."""
    from mri_transfer.checkpoints.encoders import read_card

    try:
        return float(read_card(out / "best")["provenance"]["metrics"][SCORE])
    except (UserError, KeyError, TypeError, ValueError):
        return float("-inf")
