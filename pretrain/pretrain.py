"""The overnight run: from a slice store to an encoder on disk."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mri_transfer import progress
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.errors import UserError
from mri_transfer.machine import device, memory
from mri_transfer.machine.hardware import Hardware, summary_of
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.devices.choice import Devices, chosen_devices
from mri_transfer.pretrain.fit.out_of_memory import Marker
from mri_transfer.pretrain.methods import METHODS
from mri_transfer.pretrain.pairs.few_people import remarks
from mri_transfer.pretrain.pairs.positives import PairSampler
from mri_transfer.pretrain.run.callbacks import Callback, CallbackMonitor
from mri_transfer.pretrain.run.continuing import backbone_of, check_same_run
from mri_transfer.pretrain.run.loop import Loop
from mri_transfer.pretrain.run.metrics_file import Metrics
from mri_transfer.pretrain.run.monitors import Monitor, Monitors
from mri_transfer.pretrain.run.reports import Reports
from mri_transfer.pretrain.run.saving import Saver
from mri_transfer.pretrain.run.schedule import Budget, since_boot
from mri_transfer.pretrain.run.starting import best_score, seconds_left, start_or_continue
from mri_transfer.pretrain.run.stop_signals import Interrupts
from mri_transfer.storage.files import Kind, claim_folder, read_object, require_place, write_json
from mri_transfer.storage.locks import alone_in
from mri_transfer.storage.sums import write_sums
from mri_transfer.words import counted

KIND = "pretraining run"
_SUMMARY: dict[str, Kind] = {"encoder": str, "steps": int, "views": int}


def pretrain(config: PretrainConfig, callbacks: Sequence[Callback] = ()) -> dict[str, Any]:
    """Train an encoder within the budget, or continue the run that `config.out` holds.

    Args:
        config: the settings.
        callbacks: called in this order.

    Returns:
        The summary, also written to `summary.json`: steps, seconds, views, losses, path of the encoder.

    Raises:
        UserError: bad settings, an unsuitable store, a folder with another run, or a run that ended early (divergence
            or a monitor's request), with all saved.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once the state is saved.
    """
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise UserError(
                f"callbacks: {callback!r} is not a callback; make an object of a class that extends api.Callback"
            )
    clock = since_boot if config.until is not None else time.monotonic
    started = clock()
    budgets = [v for v in (config.hours, config.minutes, config.steps, config.until) if v is not None]
    if not config.preview and len(budgets) != 1:
        raise UserError("give exactly one of --hours, --until, --minutes and --steps")
    if config.preview:
        require_place(config.preview, "--preview")
    store = SliceStore.open(config.store)
    store.check_pixels()
    if config.preview:
        from mri_transfer.pretrain.health.preview import draw_views

        return draw_views(store, config)
    sampler = PairSampler(
        store,
        positives=config.positives,
        max_mm=config.max_mm,
        batch=config.batch,
        seed=config.seed,
        **METHODS[config.method].batches,
    )
    limit = config.memory * 1e9 if config.memory else memory.default_limit()
    device.limit_memory(limit)
    with Interrupts(config.out) as interrupts, chosen_devices(config, store, interrupts) as devices:
        if devices.rank:
            return devices.follow(config, sampler)
        watching: list[Monitor] = [
            *_monitors(config),
            *(CallbackMonitor(callback, config, n) for n, callback in enumerate(callbacks, 1)),
        ]
        return _lead(
            config, store, sampler, devices, interrupts, watching, limit=limit, started=started, clock=clock
        )


def _lead(
    config: PretrainConfig,
    store: SliceStore,
    sampler: PairSampler,
    devices: Devices,
    interrupts: Interrupts,
    watching: Sequence[Monitor],
    *,
    limit: float | None,
    started: float,
    clock: Callable[[], float],
) -> dict[str, Any]:
    """The run on rank 0, which decides and writes; arguments are its parts."""
    backbone = backbone_of(config)
    claim_folder(config.out, KIND)
    facts = check_same_run(config, store)
    if (summary := _summary_of_finished(config.out)) is not None:
        return summary
    progress.say(sampler.sentence())
    for line in remarks(store) if not config.banner else ():  # the demo has few heads on purpose
        progress.say(line)
    try:
        return _train(
            config, backbone, store, sampler, devices, interrupts, watching, facts, limit, started, clock
        )
    finally:
        if (config.out / "summary.json").is_file():  # it is over, even if it ended early
            write_sums(config.out)


def _train(
    config: PretrainConfig,
    backbone: str,
    store: SliceStore,
    sampler: PairSampler,
    devices: Devices,
    interrupts: Interrupts,
    watching: Sequence[Monitor],
    facts: dict[str, Any],
    limit: float | None,
    started: float,
    clock: Callable[[], float],
) -> dict[str, Any]:
    """Begin or continue, until the budget is spent."""
    with alone_in(config.out), Marker(config.out) as marker:
        trainer, start, position = start_or_continue(
            config, backbone, store, sampler, devices, limit=limit, killed=marker.killed
        )
        seconds = config.seconds
        if config.until is not None:
            seconds = position.seconds + seconds_left(config, position)
        budget = Budget(
            steps=config.steps,
            seconds=seconds,
            spent=position.seconds,
            share=position.share,
            step_seconds=position.step_seconds,
            started=started,
            clock=clock,
        )
        metrics = Metrics(config.out / "metrics.jsonl", position.step)
        with Saver(config.out, config.save_minutes * 60, position) as saver:
            loop = Loop(
                config=config,
                store=store,
                sampler=sampler,
                trainer=trainer,
                budget=budget,
                position=position,
                saver=saver,
                reports=Reports(config, metrics, budget, Hardware()),
                monitors=Monitors(watching, metrics.lines, position.monitor_seconds),
                interrupts=interrupts,
                provenance={
                    "start": start,
                    "method": config.method,
                    "pairs": sampler.describe(),
                    "versions": device.versions(),
                    **facts,
                },
                best_score=best_score(config.out),
            )
            if position.step == 0 or marker.killed:
                # Better to notice a full disk now than at three in the morning; and if this process is killed too, the
                # next must know that fewer pairs are encoded at once.
                loop.save_now()
            loop.run_steps()
            return _finish(loop)


def _summary_of_finished(out: Path) -> dict[str, Any] | None:
    """The summary of a finished run, or None.

    Raises:
        UserError: it ended early, or its summary is damaged.
    """
    if not (out / "summary.json").is_file():
        return None
    summary = read_object(out / "summary.json", _SUMMARY, remedy="restore it, or choose another --out")
    if summary.get("stopped"):
        raise UserError(f"{out}: ended early, {summary['stopped']}")
    progress.say(f"{out}: already finished; choose another --out for a new run")
    return summary


def _monitors(config: PretrainConfig) -> list[Monitor]:
    """This run's monitors."""
    from mri_transfer.pretrain.health.monitor import HealthMonitor
    from mri_transfer.pretrain.health.tensorboard import TensorBoardLog

    return [HealthMonitor(keep_going=config.keep_going), TensorBoardLog()]


def _finish(loop: Loop) -> dict[str, Any]:
    """The last measurements, the encoder, the pages, and the summary with the time up to itself."""
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
        "ended_by": loop.monitors.enough,
        **entries,
    }
    saver.save_at_last(lambda: write_json(out / "summary.json", summary), given_up)
    shutil.rmtree(saver.state, ignore_errors=True)  # the encoder is safe; the optimizer's state is unneeded
    # Both are missing if a power cut lost the metrics of a run that only needed finishing.
    losses = [f"{loss:.3f}" for loss in (position.first_loss, metrics.last.get("loss")) if loss is not None]
    progress.say(
        f"{counted(position.step, 'step')} in {seconds / 60:.1f} min, loss {' → '.join(losses) or 'unknown'}; "
        f"the encoder is in {summary['encoder']}"
    )
    for sentence in (summary.get("sentence"), machine.get("sentence")):
        if sentence:
            progress.say(sentence)
    if loop.stopped:
        raise UserError(f"{out}: ended early, {loop.stopped}")
    return summary
