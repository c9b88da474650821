"""A run's progress reports: lines of metrics.jsonl, and a progress bar."""

from __future__ import annotations

from typing import Any

from mri_transfer import progress
from mri_transfer.machine.hardware import Hardware
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.run.metrics_file import Metrics
from mri_transfer.pretrain.run.schedule import Budget
from mri_transfer.storage.locks import require_here
from mri_transfer.words import duration

REPORT_SECONDS = 5.0
# Steps and seconds after which throughput is meaningful and the user learns how much fits into the budget.
WARMED_UP_STEPS, WARMED_UP_SECONDS = 3, 10.0


class Reports:
    """Measures throughput between reports, and writes them.

    Args:
        config: the run's settings.
        metrics: receives the lines.
        budget: keeps time.
        hardware: read at every report.
    """

    def __init__(self, config: PretrainConfig, metrics: Metrics, budget: Budget, hardware: Hardware):
        self.config, self.metrics, self.budget, self.hardware = config, metrics, budget, hardware
        self.bar: Any = None
        self.begin(0)
        self._steady_steps, self._steady_seconds, self._announced = 0, 0.0, False

    def begin(self, step: int) -> None:
        """Begin a new stretch of steps at `step`."""
        self._began, self._from, self._waited = self.budget.elapsed(), step, 0.0

    def open_bar(self, step: int) -> None:
        """Show the run's progress."""
        if self.config.steps is not None:
            self.bar = progress.bar(desc="pretrain", unit="step", total=self.config.steps, initial=step)
            return
        self.bar = progress.bar(
            desc="pretrain",
            unit="s",
            total=round(self.budget.seconds or 0),
            initial=round(self.budget.elapsed()),
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {remaining} left{postfix}",
        )

    def note_step(self, waited: float, took: float, compiled: bool) -> None:
        """Record a step.

        Args:
            waited: seconds that training waited for slices.
            took: seconds of the step itself.
            compiled: whether its graph existed already; else its time says nothing about later steps.
        """
        self._waited += waited
        if not compiled:
            return
        self.budget.note_step(waited + took)
        self._steady_steps += 1
        self._steady_seconds += waited + took
        warm = self._steady_steps >= WARMED_UP_STEPS and self._steady_seconds >= WARMED_UP_SECONDS
        if warm and not self._announced and self.budget.seconds is not None:
            self._announced = True
            step = self._steady_seconds / self._steady_steps
            steps = max(0.0, self.budget.seconds - self.budget.finishing - self.budget.elapsed()) / step
            progress.say(
                f"{2 * self.config.batch / step:.0f} views/s: about {steps:,.0f} more steps, "
                f"{2 * self.config.batch * steps:,.0f} views, fit into the "
                f"{duration(self.budget.seconds, spelled=True)} of this run"
            )

    def due(self) -> bool:
        """Whether a report is due."""
        return self.budget.elapsed() - self._began >= REPORT_SECONDS

    def report(self, step: int, loss: float, rate: float, figures: dict[str, Any]) -> None:
        """Write a line of metrics, and begin a new stretch.

        Args:
            step: steps done.
            loss, rate: the last step's.
            figures: the monitors'.

        Raises:
            UserError: the run folder is gone.
        """
        require_here(self.config.out)
        seconds = max(1e-6, self.budget.elapsed() - self._began)
        self.metrics.add(
            {
                "step": step,
                "seconds": round(self.budget.elapsed(), 2),
                "loss": round(loss, 5),
                "learning_rate": float(f"{rate:.4g}"),
                "views_per_second": round(2 * self.config.batch * (step - self._from) / seconds, 1),
                "data_wait": round(self._waited / seconds, 4),
                **self.hardware.read(),
                **figures,
            }
        )
        self.begin(step)
        if self.bar is not None:
            self.bar.set_postfix_str(self.line(step), refresh=False)
            self.bar.update((step if self.config.steps is not None else self.budget.elapsed()) - self.bar.n)

    def line(self, step: int) -> str:
        """Show step, loss and speed on the bar."""
        last = self.metrics.last
        loss = f", loss {last['loss']:.3f}, {last['views_per_second']:.0f} views/s" if last else ""
        return f"step {step}{loss}"

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
