"""The loop of a run. A step does, in this order:

    deadline          is there time for another step?                     schedule.py
    batch             slices of pairs, drawn and read ahead               pretrain/pairs/positives.py
    rate, size        from the share of the budget used                   schedule.py
    step              Trainer.step: the method's `call` makes views, encodes them (in micro-batches, if memory is
                      short) and projects; its `compute_loss` compares; Keras takes gradients and AdamW updates
                                                                          trainer.py, pretrain/methods/NAME.py
    measure           monitors that are due                               monitors.py, pretrain/health/
    report            a line of metrics, now and then                     reports.py
    save              the state to resume from, and the encoder           saving.py

To experiment with this order, the schedule or a step's inputs, edit :meth:`Loop.run_steps`. recovery.py handles a
night's accidents (non-finite numbers, lack of memory, vanished slices), stop_signals.py signals, and starting.py where
a run starts from.
"""

from __future__ import annotations

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
from mri_transfer.pretrain.fit.out_of_memory import is_out_of_memory
from mri_transfer.pretrain.pairs.positives import Batch, PairSampler, read_ahead
from mri_transfer.pretrain.run import recovery
from mri_transfer.pretrain.run.monitors import SCORE, Monitors, RunView
from mri_transfer.pretrain.run.position import Position
from mri_transfer.pretrain.run.reports import Reports
from mri_transfer.pretrain.run.saving import Saver
from mri_transfer.pretrain.run.schedule import Budget, warmup_cosine
from mri_transfer.pretrain.run.stop_signals import Interrupts
from mri_transfer.pretrain.run.trainer import Trainer

# After the last measurements and the encoder: writing a summary and removing the state.
FINISHING_SECONDS = 0.2


class Loop:
    """Everything between two power cuts.

    Args:
        config, store, sampler: settings, slices, and each step's choice of them.
        trainer: trains.
        budget: when to end.
        position: current position; kept up to date.
        saver, reports, monitors: called now and then.
        interrupts: stop requests from the user or the system.
        provenance: the encoder's, as known before training.
        best_score: a monitor's so far; -inf if there is none.

    Attributes:
        stopped: a sentence if the run must end early, else None.
        batch, loss, rate: the last step's; no loss before the first one or after going back.
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
        self.batch: Batch | None = None
        self.loss: float | None = None
        self.rate = 0.0
        self.batches: Generator[Batch, None, None]

    def run_steps(self) -> None:
        """Run until the budget is used, the user interrupts, or a monitor, callback or divergence ends it.

        Raises:
            UserError: slices can no longer be read, or even the smallest micro-batch doesn't fit into memory; the
                training is saved.
            KeyboardInterrupt: the user interrupts; the training is saved.
            OSError: an interrupted run can't be saved.
        """
        config, trainer, budget, position = self.config, self.trainer, self.budget, self.position
        saver, reports, interrupts = self.saver, self.reports, self.interrupts
        interrupts.patient = True
        reports.open_bar(position.step)
        self.begin()
        try:
            while not (self.stopped or self.monitors.enough or interrupts.asked or self._is_over()):
                interrupts.tell()
                if interrupts.hung_up:
                    reports.close()

                # This step's batch; a thread reads ahead.
                before = time.monotonic()
                try:
                    self.batch = next(self.batches)
                except (OSError, UserError) as error:
                    raise recovery.lost_slices(self, error) from error
                ready = time.monotonic()

                # The share of the budget used sets the learning rate and the size of views.
                share = position.share = budget.progress(position.step)
                size = config.size_at(share, config.size or self.store.size)
                if size != trainer.size:
                    progress.say(f"step {position.step}: views of {size} px from here on")
                    trainer.build(size=size)
                rate = self.rate = (
                    trainer.peak_rate * position.rate_scale * warmup_cosine(share, config.warmup)
                )

                # Views, loss, gradient, update.
                compiled = trainer.compiled
                try:
                    loss = trainer.step(self.batch, rate, share)
                except Exception as error:
                    if not is_out_of_memory(error):
                        raise
                    loss = None
                if loss is None:  # outside the handler, whose traceback keeps the step's allocations alive
                    recovery.encode_fewer(self)
                    continue
                if not math.isfinite(loss):
                    recovery.go_back(self, f"the loss is {loss}", position.step + 1)
                    continue

                # The step counts.
                self.loss = loss
                if position.first_loss is None:
                    position.first_loss = round(loss, 5)
                position.step += 1
                reports.note_step(ready - before, time.monotonic() - ready, compiled)

                # Measure, report and save when due.
                figures = self.measure()
                if figures or reports.due() or budget.is_over(position.step):
                    reports.report(position.step, loss, rate, figures)
                if saver.due(budget.elapsed()) and not self.save():
                    recovery.go_back(self, "the weights are not finite", position.step)
        finally:
            self.batches.close()
            reports.close()
            interrupts.tell()
        if interrupts.asked:
            self.save_now()
            raise KeyboardInterrupt

    def begin(self) -> None:
        """Restart batches and throughput at the current step."""
        self.batches = read_ahead(self.sampler, self.position.step)
        self.reports.begin(self.position.step)

    # -- the deadline

    def _is_over(self) -> bool:
        """Whether the budget is used; monitors measure before that is final.

        A process's first measurement compiles, so the last one is expected to take that long; if it is faster, there is
        time for more steps.
        """
        if not self.budget.is_over(self.position.step):
            return False
        if self.loss is not None and self._copies() is None:
            recovery.go_back(self, "the weights are not finite", self.position.step)
        else:
            self.measure_last()
        return self.budget.is_over(self.position.step)

    # -- measuring

    def measure(self, *, last: bool = False) -> dict[str, Any]:
        """Collect figures of monitors that are due, or of all at the end; save the encoder if it is the best so far."""
        step = self.position.step
        view = functools.partial(self.view, ending=last)
        figures = self.monitors.measure(view, step, self.budget.elapsed, last=last)
        self.stopped = self.stopped or self.monitors.stop
        score = figures.get(SCORE)
        if isinstance(score, (int, float)) and math.isfinite(score) and score > self._best_score:
            self._best_score = float(score)
            before = time.monotonic()
            provenance = self.provenance()
            provenance["metrics"] |= {"loss": self.loss, **figures}
            self.saver.save_best(self.trainer.copy_encoder(provenance), copying=time.monotonic() - before)
        words, again = self.monitors.finishing_seconds(step)
        self.budget.finishing = words + self.saver.encoder_seconds + FINISHING_SECONDS
        self.budget.finishing_later = again
        return figures

    def measure_last(self) -> None:
        """The last figures of all monitors, and the last metrics line."""
        figures = self.measure(last=True)
        if self.loss is not None and self.metrics.last.get("step") != self.position.step:
            self.reports.report(self.position.step, self.loss, self.rate, figures)
        elif figures and self.metrics.lines:
            self.metrics.amend(figures)

    def view(self, *, ending: bool = False) -> RunView:
        """The monitors' view of the run."""
        return RunView(
            config=self.config,
            out=self.config.out,
            store=self.store,
            trainer=self.trainer,
            batch=self.batch,
            loss=self.loss,
            share=self.position.share,
            metrics=self.metrics.lines,
            stopped=self.stopped,
            saving=self.saver.spent / max(self.budget.elapsed(), 1e-9),
            diverged_at=tuple(self.position.diverged),
            ending=ending,
        )

    # -- saving

    def provenance(self) -> dict[str, Any]:
        """The current encoder's provenance."""
        results = {"first_loss": self.position.first_loss, "last_loss": self.metrics.last.get("loss")}
        return {
            **self._provenance,
            "seconds": round(self.budget.elapsed(), 1),
            "steps": self.position.step,
            "metrics": results,
        }

    def _copies(self) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """State and information to save; None if weights are not finite.

        The loss doesn't always show that: XLA's ReLU turns NaN into zero.
        """
        position = self.position
        position.share = self.budget.progress(position.step)
        position.seconds = self.budget.elapsed()
        position.step_seconds = self.budget.step_seconds
        position.size, position.micro_batch = self.trainer.size, self.trainer.micro_batch
        position.saving_seconds, position.monitor_seconds = self.saver.spent, self.monitors.seconds
        position.left = self.budget.remaining(position.step)
        arrays = self.trainer.arrays()
        if not all(np.isfinite(array).all() for array in arrays.values() if array.dtype.kind == "f"):
            return None
        return arrays, position.info()

    def save(self) -> bool:
        """Save in the background; returns whether there was anything worth saving."""
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
