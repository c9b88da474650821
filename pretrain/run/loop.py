"""The loop of a run: batch, rate, step; now and then a report, a measurement, a save."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Generator
from typing import Any

import numpy as np

from mri_transfer import progress
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.errors import UserError
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.fit.out_of_memory import REMEDY, is_out_of_memory, smaller
from mri_transfer.pretrain.pairs.positives import Batch, PairSampler, read_ahead
from mri_transfer.pretrain.run.interrupts import Interrupts
from mri_transfer.pretrain.run.monitors import SCORE, Monitors, RunView
from mri_transfer.pretrain.run.position import Position
from mri_transfer.pretrain.run.reports import Reports
from mri_transfer.pretrain.run.saving import Saver
from mri_transfer.pretrain.run.schedule import Budget, warmup_cosine
from mri_transfer.pretrain.run.trainer import Trainer

# After the last measurements and the encoder: a summary, and removing the state.
FINISHING_SECONDS = 0.2


class Loop:
    """Everything that happens between two power cuts.

    Args:
        config, store, sampler: settings, slices, and which of them a step sees.
        trainer: what is trained.
        budget: when to end.
        position: where the run is; kept up to date.
        saver, reports, monitors: what is called now and then.
        interrupts: what the user or the system asks for.
        provenance: of the encoder, what is known before training.
        best_score: of a monitor so far; -inf if there is none.

    Attributes:
        stopped: a sentence if the run must end early, else None.
    """

    def __init__(
        self,
        *,
        config: PretrainConfig,
        store: SliceStore,
        sampler: PairSampler,
        trainer: Trainer,
        budget: Budget,
        position: Position,
        saver: Saver,
        reports: Reports,
        monitors: Monitors,
        interrupts: Interrupts,
        provenance: dict[str, Any],
        best_score: float,
    ):
        self.config, self.store, self.sampler, self.trainer = config, store, sampler, trainer
        self.budget, self.position, self.saver, self.reports = budget, position, saver, reports
        self.monitors, self.interrupts = monitors, interrupts
        self.metrics = reports.metrics
        self._provenance, self._best_score = provenance, best_score
        self.stopped: str | None = None
        self._batch: Batch | None = None
        self._loss: float | None = None
        self._rate = 0.0
        self._batches: Generator[Batch, None, None]

    def train(self) -> None:
        """Until the budget is used, the user interrupts, or a monitor or a divergence asks for the end.

        Raises:
            UserError: slices can't be read any more, or memory is short for the smallest micro-batch; what was
                trained is saved.
            KeyboardInterrupt: the user interrupts; what was trained is saved.
            OSError: an interrupted run can't be saved.
        """
        self.interrupts.patient = True
        self.reports.open_bar(self.position.step)
        self._go_on()
        try:
            while not (self.stopped or self.interrupts.asked or self._is_over()):
                self.interrupts.tell()
                if self.interrupts.hung_up:
                    self.reports.close()
                self._step()
        finally:
            self._batches.close()
            self.reports.close()
            self.interrupts.tell()
        if self.interrupts.asked:
            self.save_now()
            raise KeyboardInterrupt

    def _is_over(self) -> bool:
        """Whether the budget is used; before that is final, monitors measure.

        The first measurement of a process compiles, and so the last one is expected to take too long; if it has not,
        there is time for more steps.
        """
        if not self.budget.is_over(self.position.step):
            return False
        if self._loss is not None and self._copies() is None:
            self._diverged("the weights are not finite", self.position.step)
            return self.budget.is_over(self.position.step)
        self.measure_last()
        self._expect_the_end()
        return self.budget.is_over(self.position.step)

    def _expect_the_end(self) -> None:
        words, again = self.monitors.finishing_seconds(self.position.step)
        self.budget.finishing = words + self.saver.encoder_seconds + FINISHING_SECONDS
        self.budget.finishing_later = again

    def _go_on(self) -> None:
        """Batches and throughput from the present step on."""
        self._batches = read_ahead(self.sampler, self.position.step)
        self.reports.begin(self.position.step)

    def _step(self) -> None:
        """One step and what it entails."""
        position = self.position
        before = time.monotonic()
        try:
            self._batch = next(self._batches)
        except (OSError, UserError) as error:
            raise self._lost_slices(error) from error
        ready = time.monotonic()
        position.share = self.budget.progress(position.step)
        size = self.config.size_at(position.share, self.config.size or self.store.size)
        if size != self.trainer.size:
            progress.say(f"step {position.step}: views of {size} px from here on")
            self.trainer.build(size=size)
        self._rate = self.trainer.peak_rate * position.rate_scale
        self._rate *= warmup_cosine(position.share, self.config.warmup)
        compiled = self.trainer.compiled
        try:
            loss = self.trainer.step(self._batch, self._rate, position.share)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            loss = None
        if loss is None:  # outside the handler, whose traceback holds on to what the step had allocated
            return self._need_less_memory()
        if not math.isfinite(loss):
            return self._diverged(f"the loss is {loss}", position.step + 1)
        self._loss = loss
        if position.first_loss is None:
            position.first_loss = round(loss, 5)
        position.step += 1
        self.reports.note_step(ready - before, time.monotonic() - ready, compiled)
        figures = self._measure(last=False)
        self._expect_the_end()
        if figures or self.reports.due() or self.budget.is_over(position.step):
            self._report(figures)
        if self.saver.due(self.budget.elapsed()):
            if not self._save():
                return self._diverged("the weights are not finite", position.step)
            if not progress.shows_bars():
                progress.say(self.reports.line(position.step))

    # -- measuring

    def _measure(self, *, last: bool) -> dict[str, Any]:
        """Figures of the monitors that are due, or of all at the end."""
        view = functools.partial(self.view, ending=last)
        figures = self.monitors.measure(view, self.position.step, self.budget.elapsed, last=last)
        self.stopped = self.stopped or self.monitors.stop
        score = figures.get(SCORE)
        if isinstance(score, (int, float)) and math.isfinite(score) and score > self._best_score:
            self._best_score = float(score)
            before = time.monotonic()
            provenance = self.provenance()
            provenance["metrics"] |= {"loss": self._loss, **figures}
            self.saver.save_best(self.trainer.copy_encoder(provenance), copying=time.monotonic() - before)
        return figures

    def _report(self, figures: dict[str, Any]) -> None:
        assert self._loss is not None
        self.reports.report(self.position.step, self._loss, self._rate, figures)

    def measure_last(self) -> None:
        """The last figures of all monitors, and the last line of metrics."""
        figures = self._measure(last=True)
        if self._loss is not None and self.metrics.last.get("step") != self.position.step:
            self._report(figures)
        elif figures and self.metrics.lines:
            self.metrics.amend(figures)

    def view(self, *, ending: bool = False) -> RunView:
        """What monitors see."""
        return RunView(
            config=self.config,
            out=self.config.out,
            store=self.store,
            trainer=self.trainer,
            batch=self._batch,
            loss=self._loss,
            share=self.position.share,
            metrics=self.metrics.lines,
            stopped=self.stopped,
            saving=self.saver.spent / max(self.budget.elapsed(), 1e-9),
            diverged_at=tuple(self.position.diverged),
            ending=ending,
        )

    # -- saving

    def provenance(self) -> dict[str, Any]:
        """What made the encoder as it is now."""
        results = {"first_loss": self.position.first_loss, "last_loss": self.metrics.last.get("loss")}
        return {
            **self._provenance,
            "seconds": round(self.budget.elapsed(), 1),
            "steps": self.position.step,
            "metrics": results,
        }

    def _copies(self) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """State and information to save; None if weights are not finite.

        A loss doesn't always show that: XLA's ReLU makes zeros of what is no number.
        """
        position = self.position
        position.seconds = self.budget.elapsed()
        position.size, position.micro_batch = self.trainer.size, self.trainer.micro_batch
        position.saving_seconds, position.monitor_seconds = self.saver.spent, self.monitors.seconds
        position.left = self.budget.remaining(position.step)
        arrays = self.trainer.arrays()
        if not all(np.isfinite(array).all() for array in arrays.values() if array.dtype.kind == "f"):
            return None
        return arrays, position.info()

    def _save(self) -> bool:
        """Save in the background; returns whether there was something that is worth it."""
        before = time.monotonic()
        copies = self._copies()
        if copies is None:
            return False
        encoder = self.trainer.copy_encoder(self.provenance())
        self.saver.save(*copies, encoder, copying=time.monotonic() - before)
        return True

    def save_now(self) -> None:
        """Save and wait for it.

        Raises:
            OSError: it could not be written.
        """
        if copies := self._copies():
            encoder = self.trainer.copy_encoder(self.provenance()) if self.position.step else None
            self.saver.save_now(*copies, encoder)

    # -- what a night may bring

    def _lost_slices(self, error: Exception) -> UserError:
        self.save_now()
        reason = getattr(error, "strerror", None) or str(error)
        where = getattr(error, "filename", None) or self.store.folder
        return UserError(
            f"{where}: slices can't be read any more ({reason}); {self.position.step} steps are saved. Bring the store "
            "back and run the same command again, it continues"
        )

    def _last_saved(self) -> tuple[dict[str, np.ndarray], int]:
        """The newest state on disk, and its step."""
        from mri_transfer.checkpoints.state import load_state

        self.saver.wait()
        found = load_state(self.saver.state)
        assert found is not None  # a run begins with a save
        return found[0], found[1]["step"]

    def _go_back(self, step: int) -> None:
        """What was done after `step` is undone, and will be done again."""
        self.position.step = step
        self._batches.close()
        with contextlib.suppress(OSError):  # on a full disk undone lines stay; the next start drops them
            self.metrics.drop_after(step)
        self._go_on()

    def _diverged(self, what: str, at: int) -> None:
        """Once, the run goes back to its last state with half the rate; the second time it ends there.

        Args:
            what: isn't finite.
            at: step at which that was seen, counted from 1.
        """
        position = self.position
        position.diverged.append(at)
        arrays, step = self._last_saved()
        self.trainer.assign(arrays)
        if len(position.diverged) > 1:
            where = " and ".join(f"step {number}" for number in position.diverged)
            self.stopped = (
                f"diverged: numbers were not finite at {where}, the second time with half the learning rate. "
                "Start again with another --out and a lower --learning-rate"
            )
        else:
            position.rate_scale /= 2
            progress.say(f"{what} at step {at}: going back to step {step} with half the learning rate")
        self._loss = None
        self._go_back(step)
        self._save()  # a resumed run must not forget it

    def _need_less_memory(self) -> None:
        """Half as many pairs at once, from where the run is."""
        trainer, at_once = self.trainer, self.trainer.micro_batch or self.config.batch
        fewer = smaller(trainer.micro_batch, self.config.batch)
        step = self.position.step
        try:
            arrays = trainer.arrays()
        except Exception:  # JAX gives a step its arrays for good, and it failed
            arrays, step = self._last_saved()
        if fewer is None:
            with contextlib.suppress(Exception):  # memory may be short for that as well
                self.save_now()
            raise UserError(f"{self.config.out}: out of memory with {at_once} pairs at once; {REMEDY}")
        progress.say(f"out of memory with {at_once} pairs at once: going on with {fewer}")
        trainer.build(micro_batch=fewer, arrays=arrays)
        self._go_back(step)
        self._save()
