"""The overnight run: one flat loop between a slice store and an encoder on disk."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mri_transfer import device, progress
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.errors import UserError
from mri_transfer.files import atomic_write, claim_folder, read_json, write_json
from mri_transfer.options import as_dict
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.positives import PairSampler, read_ahead
from mri_transfer.pretrain.schedule import Budget, warmup_cosine

KIND = "pretraining run"
REPORT_SECONDS = 5.0
# Above this many bytes of stored activations, `--recompute auto` recomputes them.
RECOMPUTE_ABOVE = 2e9
# What a run may change when it is continued: none of it touches the numbers.
FREE_TO_CHANGE = {"store", "out", "save_minutes", "preview", "imagenet_weights"}


def pretrain(config: PretrainConfig) -> dict[str, Any]:
    """Train an encoder within the budget, or continue the run that `config.out` holds.

    Returns:
        The summary that is also written to `summary.json`: steps, seconds, views, losses, where the encoder is.

    Raises:
        UserError: bad settings, a store that doesn't fit, a folder with another run, or a diverged loss.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once the state is saved.
    """
    started = time.monotonic()
    budgets = [value for value in (config.hours, config.minutes, config.steps) if value is not None]
    if not config.preview and len(budgets) != 1:
        raise UserError("give exactly one of --hours, --minutes and --steps")
    store = SliceStore.open(config.store)
    if config.preview:
        from mri_transfer.pretrain.preview import draw_views

        return draw_views(store, config)
    sampler = PairSampler(
        store, positives=config.positives, max_mm=config.max_mm, batch=config.batch, seed=config.seed
    )
    device.prepare()
    backbone = _backbone(config)
    claim_folder(config.out, KIND)
    _check_same_run(config, store)
    summary_file = config.out / "summary.json"
    if summary_file.is_file():
        progress.say(f"{config.out}: already finished; choose another --out for a new run")
        return read_json(summary_file)
    return _Run(config, backbone, store, sampler, started).train()


def _has_begun(out: Path) -> bool:
    """Whether a run's weights have been started from: before that its settings may still change."""
    started = (out / "state").is_dir() or (out / "summary.json").is_file()
    return started and (out / "start.json").is_file()  # other kinds of folder have a summary too


def _backbone(config: PretrainConfig) -> str:
    """The network: as given, or that of the run to start from, or the default."""
    from mri_transfer.checkpoints.backbones import check_backbone
    from mri_transfer.checkpoints.efficientnet_lite import NAME as DEFAULT
    from mri_transfer.checkpoints.encoders import read_card

    if _has_begun(config.out):  # the run it started from may be gone
        return read_json(config.out / "start.json")["backbone"]
    if config.init not in ("random", "imagenet"):
        if not Path(config.init).exists():
            raise UserError(f"--init {config.init}: no such run; give random, imagenet or a run folder")
        found = read_card(Path(config.init))["backbone"]
        if config.backbone not in (None, found):
            raise UserError(
                f"--init {config.init}: is a {found}, not a {config.backbone}; leave --backbone out"
            )
        return found
    backbone = config.backbone or DEFAULT
    check_backbone(backbone)
    return backbone


def _check_same_run(config: PretrainConfig, store: SliceStore) -> None:
    """Continuing with other settings would give a run that no command line describes."""
    file = config.out / "config.json"
    data = {
        "store": str(Path(config.store).resolve()),
        "fingerprint": store.fingerprint,
        "slices": len(store),
        "subjects": len(set(store.table["subject"].tolist())),
    }
    if not (file.is_file() and _has_begun(config.out)):
        write_json(file, {"config": as_dict(config), "data": data, "versions": device.versions()})
        return
    before = read_json(file)
    now = as_dict(config)
    changed = [
        f"--{name.replace('_', '-')} was {before['config'].get(name)}, is {now[name]}"
        for name in now
        if name not in FREE_TO_CHANGE and before["config"].get(name) != now[name]
    ]
    if before["data"]["fingerprint"] != data["fingerprint"]:
        changed.append("the slice store has other content")
    if changed:
        raise UserError(
            f"{config.out}: holds a run with other settings ({'; '.join(changed)}); choose another --out"
        )


@contextlib.contextmanager
def _sigterm_as(action: Callable[[], None]) -> Iterator[None]:
    """What `kill` and a shutting-down system send becomes a clean stop. Only the main thread may ask for that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: action())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Run:
    """One process's part of a run: everything that lives between two power cuts."""

    def __init__(
        self, config: PretrainConfig, backbone: str, store: SliceStore, sampler: PairSampler, started: float
    ):
        import keras

        from mri_transfer.checkpoints.backbones import build_encoder
        from mri_transfer.checkpoints.encoders import start_encoder
        from mri_transfer.checkpoints.state import assign_arrays, load_state
        from mri_transfer.pretrain.methods import build_method
        from mri_transfer.pretrain.recompute import activation_bytes, recomputing
        from mri_transfer.pretrain.views import Views

        self.config, self.backbone, self.store, self.sampler = config, backbone, store, sampler
        self.size = config.size or store.size
        self.state_folder = config.out / "state"
        saved = load_state(self.state_folder)
        start_file = config.out / "start.json"
        if saved:
            # The starting weights may be gone by now; the state holds everything.
            self.encoder = build_encoder(backbone, self.size, config.seed)
            self.start = read_json(start_file)
        else:
            self.encoder, start = start_encoder(
                config.init,
                backbone=backbone,
                size=self.size,
                seed=config.seed,
                imagenet_weights=config.imagenet_weights,
            )
            self.start = {"backbone": backbone, **start}
            write_json(start_file, self.start)
        stored = 2 * config.batch * activation_bytes(self.encoder)
        recompute = config.recompute == "always" or (config.recompute == "auto" and stored > RECOMPUTE_ABOVE)
        self.model = build_method(
            config,
            self.encoder,
            Views(self.size, config.strength, seed=config.seed),
            recomputing if recompute else None,
        )
        self.peak_rate = config.learning_rate or (1e-3 if config.init == "random" else 3e-4)
        self.optimizer = keras.optimizers.AdamW(self.peak_rate, weight_decay=config.weight_decay)
        self.optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
        self.model.compile(optimizer=self.optimizer, jit_compile=device.jit_compile())
        self.optimizer.build(self.model.trainable_variables)
        self.step, spent, self.first_loss = 0, 0.0, None
        if saved:
            arrays, info = saved
            assign_arrays(arrays, self.model, self.optimizer)
            self.step, spent, self.first_loss = info["step"], info["seconds"], info["first_loss"]
            progress.say(f"continuing {config.out} at step {self.step}, {spent / 60:.1f} minutes in")
        self.budget = Budget(steps=config.steps, seconds=config.seconds, spent=spent, started=started)
        self.metrics_file = config.out / "metrics.jsonl"
        self._drop_metrics_after(self.step)
        self.interrupted = False
        self.last: dict[str, Any] = {}

    def train(self) -> dict[str, Any]:
        """The loop: batch, rate, step; report every few seconds, save every few minutes."""
        with _sigterm_as(self._interrupt):
            return self._train()

    def _interrupt(self) -> None:
        self.interrupted = True

    def _train(self) -> dict[str, Any]:
        self._save_state()
        next_save = self.budget.elapsed() + self.config.save_minutes * 60
        report_from, reported_at, waited = self.step, self.budget.elapsed(), 0.0
        batches = read_ahead(self.sampler, self.step)
        bar = self._bar()
        self.model.reset_metrics()
        fresh = True  # the first step of a process compiles the graph
        try:
            while not self.budget.is_over(self.step) and not self.interrupted:
                before = time.monotonic()
                batch = next(batches)
                ready = time.monotonic()
                share = warmup_cosine(self.budget.progress(self.step), self.config.warmup)
                self.optimizer.learning_rate.assign(self.peak_rate * share)
                loss = float(self.model.train_on_batch(batch, return_dict=True)["loss"])
                after = time.monotonic()
                self.step += 1
                waited += ready - before
                if not fresh:
                    self.budget.note_step(after - before)
                fresh = False
                elapsed = self.budget.elapsed()
                if not math.isfinite(loss):
                    raise UserError(
                        f"{self.config.out}: the loss is {loss} at step {self.step}; the run diverged. "
                        "Start again with another --out and a lower --learning-rate"
                    )
                if elapsed - reported_at >= REPORT_SECONDS or self.budget.is_over(self.step):
                    seconds = elapsed - reported_at
                    rate = 2 * self.config.batch * (self.step - report_from) / seconds
                    self._report(loss, self.peak_rate * share, rate, waited / seconds, bar)
                    report_from, reported_at, waited = self.step, elapsed, 0.0
                    self.model.reset_metrics()
                if elapsed >= next_save:
                    self._save_state()
                    next_save = self.budget.elapsed() + self.config.save_minutes * 60
                    if not progress.shows_bars():
                        progress.say(self._line())
        except KeyboardInterrupt:
            self.interrupted = True
        finally:
            batches.close()
            bar.close()
        if self.interrupted:
            self._save_state()
            raise KeyboardInterrupt
        return self._finish()

    def _bar(self):
        if self.config.steps is not None:
            return progress.bar(desc="pretrain", unit="step", total=self.config.steps, initial=self.step)
        return progress.bar(
            desc="pretrain",
            unit="s",
            total=round(self.config.seconds or 0),
            initial=round(self.budget.elapsed()),
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s{postfix}",
        )

    def _report(self, loss: float, rate: float, views_per_second: float, data_wait: float, bar: Any) -> None:
        if self.first_loss is None:
            self.first_loss = round(loss, 5)
        self.last = {
            "step": self.step,
            "seconds": round(self.budget.elapsed(), 2),
            "loss": round(loss, 5),
            "learning_rate": float(f"{rate:.4g}"),
            "views_per_second": round(views_per_second, 1),
            "data_wait": round(data_wait, 4),
        }
        with self.metrics_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.last) + "\n")
        bar.set_postfix_str(self._line(), refresh=False)
        bar.update((self.step if self.config.steps is not None else self.budget.elapsed()) - bar.n)

    def _line(self) -> str:
        left = self.budget.remaining(self.step)
        loss = (
            f"loss {self.last['loss']:.3f}, {self.last['views_per_second']:.0f} views/s, "
            if self.last
            else ""
        )
        return f"step {self.step}, {loss}{left / 60:.1f} min left"

    def _drop_metrics_after(self, step: int) -> None:
        """Lines of steps that a power cut undid; they will be written again."""
        if not self.metrics_file.is_file():
            return
        kept = []
        for line in self.metrics_file.read_text(encoding="utf-8").splitlines():
            try:
                known = json.loads(line)
            except json.JSONDecodeError:
                continue  # torn by the cut
            if known["step"] <= step:
                kept.append(line)
                self.last = known
        with atomic_write(self.metrics_file) as file:
            file.writelines(line + "\n" for line in kept)

    def _save_state(self) -> None:
        from mri_transfer.checkpoints.state import model_arrays, save_state

        before = time.monotonic()
        info = {"step": self.step, "seconds": self.budget.elapsed(), "first_loss": self.first_loss}
        save_state(self.state_folder, model_arrays(self.model, self.optimizer), info)
        # The end writes the encoder alone, which is a third of this; the rest is room for a slow disk.
        self.budget.finishing = time.monotonic() - before + 0.2

    def _finish(self) -> dict[str, Any]:
        from mri_transfer.checkpoints.encoders import save_encoder

        out = self.config.out
        run = read_json(out / "config.json")
        seconds = round(self.budget.elapsed(), 1)
        results = {"first_loss": self.first_loss, "last_loss": self.last.get("loss")}
        provenance = {
            "start": self.start,
            "method": self.config.method,
            "data": run["data"],
            "seconds": seconds,
            "steps": self.step,
            "versions": device.versions(),
            "metrics": results,
            "config": run["config"],
        }
        save_encoder(
            self.encoder,
            out / "encoder",
            backbone=self.backbone,
            size=self.size,
            provenance=provenance,
        )
        summary = {
            "encoder": str(out / "encoder"),
            "steps": self.step,
            "training_seconds": round(self.budget.elapsed(), 1),
            "views": 2 * self.config.batch * self.step,
            **results,
            "views_per_second": self.last.get("views_per_second"),
        }
        write_json(out / "summary.json", summary)
        shutil.rmtree(self.state_folder)  # the encoder is safe; the optimizer's state has served
        # Both are missing if a power cut took the metrics of a run that only had to be finished.
        losses = [f"{loss:.3f}" for loss in results.values() if loss is not None]
        progress.say(
            f"{self.step} steps in {seconds / 60:.1f} min, loss {' → '.join(losses) or 'unknown'}; "
            f"the encoder is in {summary['encoder']}"
        )
        return summary
