"""The loop of a run: batch, rate, step; now and then a report, a measurement, a save."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator
from typing import Any

import numpy as np

from mri_transfer import progress
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.errors import UserError
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.interrupt import Interrupts
from mri_transfer.pretrain.metrics import Metrics
from mri_transfer.pretrain.monitors import SCORE, Monitors, RunView
from mri_transfer.pretrain.position import Position
from mri_transfer.pretrain.positives import Batch, PairSampler, read_ahead
from mri_transfer.pretrain.saving import Saver
from mri_transfer.pretrain.schedule import Budget, warmup_cosine
from mri_transfer.pretrain.trainer import Trainer

REPORT_SECONDS = 5.0
# Between the last measurement and the exit: a summary, removing the state.
FINISHING_SECONDS = 0.2


class Loop:
    """Everything that happens between two power cuts.

    Attributes:
        position: where the run is.
        stopped: a sentence if the run must end early, else None.
    """

    def __init__(
        self,
        config: PretrainConfig,
        store: SliceStore,
        sampler: PairSampler,
        trainer: Trainer,
        budget: Budget,
        position: Position,
        saver: Saver,
        metrics: Metrics,
        monitors: Monitors,
        interrupts: Interrupts,
        provenance: dict[str, Any],
        best_score: float,
    ):
        self.config, self.store, self.sampler, self.trainer = config, store, sampler, trainer
        self.budget, self.position, self.saver, self.metrics = budget, position, saver, metrics
        self.monitors, self.interrupts = monitors, interrupts
        self.provenance_start, self.best_score = provenance, best_score
        self.stopped: str | None = None
        self.batch: Batch | None = None
        self.loss: float | None = None
        self.rate = 0.0

    def train(self) -> None:
        """Until the budget is used, the user interrupts, or a monitor or a divergence asks for the end.

        Raises:
            UserError: slices can't be read any more; all that was trained is saved.
            KeyboardInterrupt: the user interrupts; all that was trained is saved.
            OSError: a new run can't be saved even once, or an interrupted one not any more.
        """
        if self.position.step == 0:
            self.save_now()  # a disk that has no room is better met now than at three in the morning
        self._start_window()
        batches = read_ahead(self.sampler, self.position.step)
        bar = self._bar()
        try:
            while not (self.stopped or self.interrupts.asked or self.budget.is_over(self.position.step)):
                self.interrupts.tell()
                batches = self._step(batches, bar)
        finally:
            batches.close()
            bar.close()
            self.interrupts.tell()
        if self.interrupts.asked:
            self.save_now()
            raise KeyboardInterrupt

    def _step(self, batches: Generator[Batch, None, None], bar: Any) -> Generator[Batch, None, None]:
        """One step and what it entails; returns where the next batch comes from."""
        position, step = self.position, self.position.step
        before = time.monotonic()
        try:
            self.batch = next(batches)
        except (OSError, UserError) as error:
            self._lost_slices(error)
        ready = time.monotonic()
        position.share = self.budget.progress(step)
        self.rate = self.trainer.peak_rate * position.rate_scale
        self.rate *= warmup_cosine(position.share, self.config.warmup)
        compiled = self.trainer.compiled
        loss = self.trainer.step(self.batch, self.rate, position.share)
        if not math.isfinite(loss):
            return self._go_back(batches, loss)
        self.loss, position.step = loss, step + 1
        self._waited += ready - before
        if compiled:
            self.budget.note_step(time.monotonic() - ready)
        self.budget.finishing = self._finishing_seconds()
        figures = self.monitors.measure(self.view, position.step, self.budget.elapsed)
        self._keep_best(figures)
        self.stopped = self.monitors.stop
        elapsed = self.budget.elapsed()
        if (
            figures
            or self.stopped
            or elapsed - self._window_began >= REPORT_SECONDS
            or self.budget.is_over(position.step)
        ):
            self._report(figures)
            self._show(bar)
        if self.saver.due(elapsed):
            self._save()
            if not progress.shows_bars():
                progress.say(self._line())
        return batches

    def _finishing_seconds(self) -> float:
        return self.saver.encoder_seconds + self.monitors.finishing_seconds() + FINISHING_SECONDS

    def finish_measuring(self) -> None:
        """The last figures of all monitors, and the last line of metrics."""
        figures = self.monitors.measure(self.view, self.position.step, self.budget.elapsed, last=True)
        self._keep_best(figures)
        if self.loss is not None and self.metrics.last.get("step") != self.position.step:
            self._report(figures)
        elif figures and self.metrics.lines:
            self.metrics.amend(figures)

    def view(self) -> RunView:
        """What monitors see."""
        return RunView(
            config=self.config,
            out=self.config.out,
            store=self.store,
            method=self.trainer.method,
            size=self.trainer.size,
            batch=self.batch,
            loss=self.loss,
            share=self.position.share,
            metrics=self.metrics.lines,
            stopped=self.stopped,
        )

    def provenance(self) -> dict[str, Any]:
        """What made the encoder as it is now."""
        last = {key: value for key, value in self.metrics.last.items() if key not in ("step", "seconds")}
        return {
            **self.provenance_start,
            "seconds": round(self.budget.elapsed(), 1),
            "steps": self.position.step,
            "metrics": {
                "first_loss": self.position.first_loss,
                "last_loss": self.metrics.last.get("loss"),
                **last,
            },
        }

    # -- saving

    def _info(self) -> dict[str, Any]:
        position = self.position
        position.seconds = self.budget.elapsed()
        position.size, position.micro_batch = self.trainer.size, self.trainer.micro_batch
        position.saving_seconds, position.monitor_seconds = self.saver.spent, self.monitors.seconds
        position.wall, position.left = time.time(), self.budget.remaining(position.step)
        return position.info()

    def _save(self) -> None:
        """Save in the background, unless the weights themselves are not finite: the next loss will show it."""
        before = time.monotonic()
        info, arrays = self._info(), self.trainer.arrays()
        if not _all_finite(arrays):
            return
        encoder = self.trainer.copy_encoder(self.provenance())
        self.saver.save(arrays, info, encoder, copying=time.monotonic() - before)

    def save_now(self) -> None:
        """Save and wait for it; a state that is not finite is not worth it.

        Raises:
            OSError: it could not be written.
        """
        info, arrays = self._info(), self.trainer.arrays()
        if _all_finite(arrays):
            encoder = self.trainer.copy_encoder(self.provenance()) if self.position.step else None
            self.saver.save_now(arrays, info, encoder)

    def _keep_best(self, figures: dict[str, Any]) -> None:
        score = figures.get(SCORE)
        if isinstance(score, (int, float)) and math.isfinite(score) and score > self.best_score:
            self.best_score = float(score)
            before = time.monotonic()
            provenance = self.provenance()
            provenance["metrics"] |= {"loss": self.loss, **figures}
            self.saver.save_best(self.trainer.copy_encoder(provenance), copying=time.monotonic() - before)

    def _lost_slices(self, error: Exception) -> None:
        self.save_now()
        reason = getattr(error, "strerror", None) or str(error)
        where = getattr(error, "filename", None) or self.store.folder
        raise UserError(
            f"{where}: slices can't be read any more ({reason}); {self.position.step} steps are saved. Bring "
            "the store back and run the same command again, it continues"
        ) from error

    # -- what a night may bring

    def _go_back(self, batches: Generator[Batch, None, None], loss: float) -> Generator[Batch, None, None]:
        """The loss is not finite: once the run goes back to its last state, with half the rate; then it ends."""
        from mri_transfer.checkpoints.state import load_state

        position = self.position
        first = not position.diverged
        position.diverged.append(position.step + 1)
        self.saver.wait()
        found = load_state(self.saver.state)
        assert found is not None  # a run begins with a save
        arrays, info = found
        self.trainer.assign(arrays)
        if not first:
            at = " and ".join(f"step {step}" for step in position.diverged)
            position.step, self.loss = info["step"], None
            self._forget_metrics()
            self.stopped = (
                f"diverged: the loss was not finite at {at}, the second time with half the rate. Start again "
                "with another --out and a lower --learning-rate"
            )
            return batches
        position.rate_scale /= 2
        progress.say(
            f"the loss is {loss} at step {position.step + 1}: going back to step {info['step']} with half the "
            "learning rate"
        )
        position.step = info["step"]
        self._forget_metrics()
        self._save()  # a resumed run must not forget it
        self._start_window()
        batches.close()
        return read_ahead(self.sampler, position.step)

    def _forget_metrics(self) -> None:
        with contextlib.suppress(
            OSError
        ):  # on a full disk the lines of undone steps stay; the next start drops them
            self.metrics.drop_after(self.position.step)

    # -- reports

    def _start_window(self) -> None:
        self._window_began, self._window_step, self._waited = self.budget.elapsed(), self.position.step, 0.0

    def _where(self) -> dict[str, Any]:
        return {"step": self.position.step, "seconds": round(self.budget.elapsed(), 2)}

    def _report(self, figures: dict[str, Any]) -> None:
        assert self.loss is not None
        if self.position.first_loss is None:
            self.position.first_loss = round(self.loss, 5)
        seconds = max(1e-6, self.budget.elapsed() - self._window_began)
        steps = self.position.step - self._window_step
        self.metrics.add(
            {
                **self._where(),
                "loss": round(self.loss, 5),
                "learning_rate": float(f"{self.rate:.4g}"),
                "views_per_second": round(2 * self.config.batch * steps / seconds, 1),
                "data_wait": round(self._waited / seconds, 4),
                **figures,
            }
        )
        self._start_window()

    def _show(self, bar: Any) -> None:
        bar.set_postfix_str(self._line(), refresh=False)
        bar.update((self.position.step if self.config.steps is not None else self.budget.elapsed()) - bar.n)

    def _bar(self):
        if self.config.steps is not None:
            return progress.bar(
                desc="pretrain", unit="step", total=self.config.steps, initial=self.position.step
            )
        return progress.bar(
            desc="pretrain",
            unit="s",
            total=round(self.budget.seconds or 0),
            initial=round(self.budget.elapsed()),
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s{postfix}",
        )

    def _line(self) -> str:
        last, left = self.metrics.last, self.budget.remaining(self.position.step)
        loss = f"loss {last['loss']:.3f}, {last['views_per_second']:.0f} views/s, " if last else ""
        return f"step {self.position.step}, {loss}{left / 60:.1f} min left"


def _all_finite(arrays: dict[str, np.ndarray]) -> bool:
    return all(np.isfinite(array).all() for array in arrays.values() if array.dtype.kind == "f")
