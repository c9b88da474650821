"""Where a run starts from: weights and position, how many pairs fit into memory, how much time is left."""

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
    """The trainer with its weights, where they come from, and where the run is.

    Args:
        config, backbone, store, sampler: what the run is made of.
        devices: that it trains with.
        limit: of memory in bytes, if it is known.
        killed: whether the process before this one was killed because memory was short.

    Raises:
        UserError: no such start, a damaged state, or too little memory.
    """
    from mri_transfer.checkpoints.state import load_state

    start_file = config.out / "start.json"
    full_size = config.size or store.size
    size = config.size_at(0.0, full_size)
    saved = load_state(config.out / "state")
    if saved:  # the starting weights may be gone by now; the state holds everything
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
    encoder.set_weights(weights)  # measuring moved the averages of batch normalisation
    write_card(start_file, start)
    return trainer_of(start["precision"]), start, Position()


def _precision(
    config: PretrainConfig, trainer_of: Callable[[str], Trainer], sampler: PairSampler
) -> dict[str, Any]:
    """The precision to train in, and what it was chosen by."""
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
    """Pairs at once: as told, or as many as fit at the largest size of views."""
    from mri_transfer.checkpoints.backbones import build_encoder

    if config.micro_batch is not None:
        return config.micro_batch
    if limit is None:  # GPUs with a memory of their own will tell
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
    """Pairs at once after the kernel killed a process that had `micro_batch`: half of them, if that makes sense.

    If not, the user hears of it and the run goes on: what was killed for want of memory may have been another program.
    """
    fewer = smaller(micro_batch, config.batch)
    at_once = micro_batch or config.batch
    outcome = f"going on with {fewer}" if fewer else f"if it happens again, {REMEDY}"
    progress.say(
        f"the system seems to have killed this run for lack of memory, with {at_once} pairs at once: {outcome}"
    )
    return fewer or micro_batch


def seconds_left(config: PretrainConfig, position: Position) -> float:
    """Seconds until the moment of --until, which is looked up on the clock once, when the run begins.

    A resumed run goes by the clock again, since only that knows how long it was off. But more time than at the last
    save can't be left: then the clock was set back, or a board without a battery for it has lost it.

    Args:
        config: with `until`.
        position: of the run; its `ends` is set when the run begins.

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
    """Of the best encoder that a run has kept so far; one that nobody has measured is worse than any score."""
    from mri_transfer.checkpoints.encoders import read_card

    try:
        return float(read_card(out / "best")["provenance"]["metrics"][SCORE])
    except (UserError, KeyError, TypeError, ValueError):
        return float("-inf")
