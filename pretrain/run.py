"""The overnight run: between a slice store and an encoder on disk."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mri_transfer import device, memory, progress
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.errors import UserError
from mri_transfer.files import claim_folder, lock, read_json, write_json
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.continuing import backbone_of, check_same_run
from mri_transfer.pretrain.hardware import Hardware, summary_of
from mri_transfer.pretrain.interrupt import Interrupts
from mri_transfer.pretrain.loop import Loop
from mri_transfer.pretrain.metrics import Metrics
from mri_transfer.pretrain.monitors import SCORE, Monitor, Monitors
from mri_transfer.pretrain.out_of_memory import REMEDY, Marker, largest_that_fits, smaller
from mri_transfer.pretrain.position import Position
from mri_transfer.pretrain.positives import PairSampler
from mri_transfer.pretrain.reports import Reports
from mri_transfer.pretrain.saving import Saver
from mri_transfer.pretrain.schedule import Budget, next_moment, since_boot
from mri_transfer.pretrain.trainer import Trainer, bytes_of_training

KIND = "pretraining run"


def pretrain(config: PretrainConfig) -> dict[str, Any]:
    """Train an encoder within the budget, or continue the run that `config.out` holds.

    Returns:
        The summary that is also written to `summary.json`: steps, seconds, views, losses, where the encoder is.

    Raises:
        UserError: bad settings, a store that doesn't fit, a folder with another run, or a run that ended early because
            it diverged or a monitor asked for it; all is saved then.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once the state is saved.
    """
    clock = since_boot if config.until is not None else time.monotonic
    started = clock()
    budgets = [v for v in (config.hours, config.minutes, config.steps, config.until) if v is not None]
    if not config.preview and len(budgets) != 1:
        raise UserError("give exactly one of --hours, --until, --minutes and --steps")
    store = SliceStore.open(config.store)
    if config.preview:
        from mri_transfer.pretrain.preview import draw_views

        return draw_views(store, config)
    sampler = PairSampler(
        store, positives=config.positives, max_mm=config.max_mm, batch=config.batch, seed=config.seed
    )
    limit = config.memory * 1e9 if config.memory else memory.default_limit()
    device.limit_memory(limit)
    device.prepare()
    backbone = backbone_of(config)
    claim_folder(config.out, KIND)
    about = check_same_run(config, store)
    summary_file = config.out / "summary.json"
    if summary_file.is_file():
        summary = read_json(summary_file)
        if summary.get("stopped"):
            raise UserError(f"{config.out}: ended early, {summary['stopped']}")
        progress.say(f"{config.out}: already finished; choose another --out for a new run")
        return summary
    pairs = sampler.describe()
    progress.say(sampler.sentence())
    with Interrupts(config.out) as interrupts, _alone(config.out), Marker(config.out) as marker:
        trainer, start, position = _start(config, backbone, store, limit, marker.killed)
        seconds = config.seconds
        if config.until is not None:
            seconds = position.seconds + _seconds_left(config, position)
        budget = Budget(
            steps=config.steps,
            seconds=seconds,
            spent=position.seconds,
            share=position.share,
            started=started,
            clock=clock,
        )
        metrics = Metrics(config.out / "metrics.jsonl", position.step)
        saver = Saver(config.out, config.save_minutes * 60, position.saving_seconds)
        saver.saved_at = position.seconds
        loop = Loop(
            config=config,
            store=store,
            sampler=sampler,
            trainer=trainer,
            budget=budget,
            position=position,
            saver=saver,
            reports=Reports(config, metrics, budget, Hardware()),
            monitors=Monitors(_monitors(config, store), metrics.lines, position.monitor_seconds),
            interrupts=interrupts,
            provenance={
                "start": start,
                "method": config.method,
                "pairs": pairs,
                "versions": device.versions(),
                **about,
            },
            best_score=_best_score(config.out),
        )
        try:
            if marker.killed and position.step:
                loop.save_now()  # with the smaller micro-batch: this process may be killed too
            loop.train()
            return _finish(loop)
        finally:
            saver.close()


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Two processes that save into one folder would remove each other's states."""
    with (out / "lock").open("ab") as file:
        lock(file, out)
        yield


def _monitors(config: PretrainConfig, store: SliceStore) -> list[Monitor]:
    """What watches this run."""
    from mri_transfer.pretrain.health.monitor import HealthMonitor
    from mri_transfer.pretrain.health.tensorboard import TensorBoardLog

    return [HealthMonitor(keep_going=config.keep_going), TensorBoardLog()]


def _start(
    config: PretrainConfig, backbone: str, store: SliceStore, limit: float | None, killed: bool
) -> tuple[Trainer, dict[str, Any], Position]:
    """The trainer with its weights, where they come from, and where the run is.

    Args:
        config, backbone, store: what the run is made of.
        limit: of memory in bytes, if it is known.
        killed: whether the process before this one was killed because memory was short.
    """
    from mri_transfer.checkpoints.encoders import start_encoder
    from mri_transfer.checkpoints.state import load_state

    start_file = config.out / "start.json"
    saved = load_state(config.out / "state")
    size = config.size_at(0.0, config.size or store.size)
    if saved:  # the starting weights may be gone by now; the state holds everything
        arrays, info = saved
        position = Position.from_info(info)
        if killed:
            position.micro_batch = _after_a_kill(config, position.micro_batch)
        trainer = Trainer(
            config, backbone, None, size=position.size or size, micro_batch=position.micro_batch
        )
        trainer.assign(arrays)
        progress.say(
            f"continuing {config.out} at step {position.step}, {position.seconds / 60:.1f} minutes in"
        )
        return trainer, read_json(start_file), position
    encoder, found = start_encoder(
        config.init,
        backbone=backbone,
        size=size,
        seed=config.seed,
        imagenet_weights=config.imagenet_weights,
    )
    start = {"backbone": backbone, **found}
    write_json(start_file, start)
    micro_batch = config.micro_batch
    if micro_batch is None:
        micro_batch = largest_that_fits(
            lambda at_once: bytes_of_training(config, encoder, at_once), config.batch, limit
        )
        if micro_batch is not None:
            progress.say(
                f"{limit / 1e9:.1f} GB of memory may be used: {micro_batch} of {config.batch} pairs are encoded at once"
            )
    if killed:
        micro_batch = _after_a_kill(config, micro_batch)
    return Trainer(config, backbone, encoder, size=size, micro_batch=micro_batch), start, Position()


def _after_a_kill(config: PretrainConfig, micro_batch: int | None) -> int:
    """Pairs at once after the kernel killed a process that had `micro_batch` at once."""
    fewer, at_once = smaller(micro_batch, config.batch), micro_batch or config.batch
    if fewer is None:
        raise UserError(
            f"{config.out}: the system killed this run for want of memory with {at_once} pairs at once; {REMEDY}"
        )
    progress.say(
        f"the system killed this run for want of memory with {at_once} pairs at once: going on with {fewer}"
    )
    return fewer


def _seconds_left(config: PretrainConfig, position: Position) -> float:
    """Seconds until the moment of --until, which is looked up on the clock once, when the run begins.

    A resumed run goes by the clock again, since only that knows how long it was off; unless the clock is earlier than
    at the last save. Then it was set back or lost, and the time that was left at that save is left now.
    """
    assert config.until is not None
    now = time.time()
    if position.ends is None or position.left is None:
        position.ends = next_moment(config.until_time, now)
        return position.ends - now
    if now < position.wall:
        progress.say(
            "the clock shows an earlier time than when this run was saved, so it isn't trusted: the run goes "
            f"on for the {position.left / 60:.0f} minutes that were left then"
        )
        position.ends = now + position.left
        return position.left
    return max(0.0, position.ends - now)


def _best_score(out: Path) -> float:
    """Of the best encoder so far; that no one has measured yet is worse than any score."""
    from mri_transfer.checkpoints.encoders import read_card

    try:
        return float(read_card(out / "best")["provenance"]["metrics"][SCORE])
    except (UserError, KeyError, TypeError, ValueError):
        return float("-inf")


def _finish(loop: Loop) -> dict[str, Any]:
    """The last measurements, the encoder, the pages, the summary; what is told of the time includes all but "
    "the last."""
    config, saver, position, metrics = loop.config, loop.saver, loop.position, loop.metrics
    out = config.out

    def given_up() -> bool:
        return loop.interrupts.asked

    loop.measure_last()
    write_encoder = loop.trainer.copy_encoder(loop.provenance())
    saver.save_at_last(lambda: write_encoder(out / "encoder"), given_up)
    entries = loop.monitors.finish(loop.view, position.step, loop.budget.elapsed())
    machine = summary_of(metrics.lines)
    seconds = loop.budget.elapsed()
    summary = {
        "encoder": str(out / "encoder"),
        "best": str(out / "best") if (out / "best").is_dir() else None,
        "pairs": loop.sampler.describe(),
        "steps": position.step,
        "training_seconds": round(seconds, 1),
        "views": 2 * config.batch * position.step,
        "first_loss": position.first_loss,
        "last_loss": metrics.last.get("loss"),
        "views_per_second": metrics.last.get("views_per_second"),
        "saving_share": round(saver.spent / seconds, 5),
        "monitor_share": round(sum(loop.monitors.seconds.values()) / seconds, 5),
        "diverged_at_steps": position.diverged,
        "micro_batch": loop.trainer.micro_batch,
        "hardware": machine,
        "stopped": loop.stopped,
        **entries,
    }
    saver.save_at_last(lambda: write_json(out / "summary.json", summary), given_up)
    shutil.rmtree(saver.state, ignore_errors=True)  # the encoder is safe; the optimizer's state has served
    # Both are missing if a power cut took the metrics of a run that only had to be finished.
    losses = [f"{loss:.3f}" for loss in (position.first_loss, metrics.last.get("loss")) if loss is not None]
    progress.say(
        f"{position.step} steps in {seconds / 60:.1f} min, loss {' → '.join(losses) or 'unknown'}; "
        f"the encoder is in {summary['encoder']}"
    )
    for sentence in (summary.get("sentence"), machine.get("sentence")):
        if sentence:
            progress.say(sentence)
    if loop.stopped:
        raise UserError(f"{out}: ended early, {loop.stopped}")
    return summary
