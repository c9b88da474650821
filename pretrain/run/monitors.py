"""Monitors watch a run without touching it: their protocol, and how the loop calls a list of them.

A monitor measures something now and then (is the encoder healthy? how fast does it learn?), adds its figures to the
run's metrics and may ask for an early end. It sees the live encoder and must not change any variable or random
generator: a run with monitors equals one without, bit for bit. Monitors know no method; methods, schedules and saving
know no monitor.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

from mri_transfer import progress
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.storage.files import finite, to_json

if TYPE_CHECKING:
    from mri_transfer.pretrain.methods.method import Method
    from mri_transfer.pretrain.run.trainer import Trainer

# The figure with this name rates the encoder, higher is better; the run keeps the best one.
SCORE = "score"


class At(TypedDict):
    """A run's position: steps done, and seconds of its budget used (excluding interruptions)."""

    step: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class RunView:
    """A monitor's view of a run. Made anew for each call, as a run may rebuild its method midway.

    Attributes:
        config: the run's settings.
        out: the run folder; a monitor may write its own files there (atomically).
        store: the slices, with their table of subject, sequence, plane and position.
        trainer: the run's.
        batch: the last step's: "a", "b" uint8 (pairs, size, size), "subject" int32 (pairs,); None before the first
            step.
        loss: the last step's; finite (None before the first one).
        share: of the budget used, 0..1.
        metrics: the lines of metrics.jsonl so far, oldest first.
        stopped: why the run ends early (divergence, or a monitor's sentence), else None.
        saving: share of the time that training waited for saves.
        diverged_at: steps with a non-finite loss, at which the run went back.
        ending: whether `finish` is expected next.
    """

    config: PretrainConfig
    out: Path
    store: SliceStore
    trainer: Trainer
    batch: Mapping[str, Any] | None
    loss: float | None
    share: float
    metrics: Sequence[Mapping[str, Any]]
    stopped: str | None
    saving: float = 0.0
    diverged_at: tuple[int, ...] = ()
    ending: bool = False

    @property
    def method(self) -> Method:
        """The live method; `method.encoder` is the encoder, (n, size, size, 1) in 0..255 → (n, features)."""
        return self.trainer.method

    @property
    def size(self) -> int:
        """Current side of the views in pixels."""
        return self.trainer.size


class Monitor(Protocol):
    """Watches one aspect of a run.

    The loop calls, in this order: `restore` once; after every step `due` and, if true, `measure`; at the end of the run
    `measure` again (unless just called) and `finish`. An exception other than `KeyboardInterrupt` switches the monitor
    off with a warning; it never ends the run.

    Attributes:
        name: for messages.
        used: share of the run's time taken by this monitor so far; the loop sets it before each `due`, so that a
            monitor can respect a limit.
        stop: a sentence saying why the run should end now ("collapsed: the features of all slices are ..."), else None.
            Read after `measure`. The run then saves and finishes as usual, and exits with code 2.
        finish_seconds: expected duration of `finish`, which counts towards the budget. The loop measures `measure`
            itself. A monitor whose first `measure` compiles may have `again_seconds`, the expected duration of another.
    """

    name: str
    used: float
    stop: str | None
    finish_seconds: float

    def restore(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Called before the first step with the metrics.jsonl lines that a resumed run keeps (none for a new run)."""

    def due(self, run: RunView, at: At) -> bool:
        """Whether to measure now. Called after every step, so it must be nearly free."""
        ...

    def measure(self, run: RunView, at: At) -> dict[str, Any]:
        """Figures for this moment's line of metrics.jsonl, as JSON values; names must differ from the loop's. "score",
        if present, rates the encoder (higher is better): the best is kept in RUN/best.
        """
        ...

    def finish(self, run: RunView, at: At) -> dict[str, Any]:
        """Write pages; the returned entries go into summary.json.

        `run.metrics` then ends with the last line. The entry "sentence", if present, is shown to the user.
        """
        ...


class Monitors:
    """Calls monitors, times them, and outlives their failures.

    Args:
        monitors: in calling order.
        lines: metrics.jsonl lines that a resumed run keeps.
        seconds: time monitors took before this process, by name.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        monitors: Sequence[Monitor],
        lines: Sequence[Mapping[str, Any]] = (),
        seconds: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.active = list(monitors)
        self.seconds = {monitor.name: 0.0 for monitor in monitors} | dict(seconds or {})
        self.clock = clock
        self._last_took: dict[str, float] = {}
        self._measured_at: dict[str, int] = {}
        for monitor in tuple(self.active):
            self._guarded(monitor, monitor.restore, lines)

    def measure(
        self, view: Callable[[], RunView], step: int, elapsed: Callable[[], float], *, last: bool = False
    ) -> dict[str, Any]:
        """Figures of monitors that are due (at the end: of all that have not measured at this step)."""
        figures: dict[str, Any] = {}
        for monitor in tuple(self.active):
            name, seconds = monitor.name, elapsed()
            monitor.used = self.seconds[name] / max(seconds, 1e-9)
            at: At = {"step": step, "seconds": seconds}
            run = view()
            if last and self._measured_at.get(name) == step:
                continue
            if not last and not self._guarded(monitor, monitor.due, run, at):
                continue
            before = self.clock()
            figures |= self._figures(monitor, monitor.measure, run, at)
            duration = self.clock() - before
            self.seconds[name] += duration
            self._last_took[name], self._measured_at[name] = duration, step
        return figures

    def finish(self, view: Callable[[], RunView], step: int, seconds: float) -> dict[str, Any]:
        """All monitors' final entries."""
        entries: dict[str, Any] = {}
        for monitor in tuple(self.active):
            at: At = {"step": step, "seconds": seconds}
            before = self.clock()
            entries |= self._figures(monitor, monitor.finish, view(), at)
            self.seconds[monitor.name] += self.clock() - before
        return entries

    @property
    def stop(self) -> str | None:
        """The first monitor's sentence asking for the end, if any."""
        return next((monitor.stop for monitor in self.active if monitor.stop), None)

    @property
    def enough(self) -> str | None:
        """The first monitor that asks for a regular end, if any."""
        return next((monitor.name for monitor in self.active if getattr(monitor, "enough", False)), None)

    def finishing_seconds(self, step: int) -> tuple[float, float]:
        """Estimated time of the last measurements and `finish`.

        Args:
            step: steps done.

        Returns:
            Seconds if the run ends after this step, and the extra seconds after another one: monitors that have just
            measured must then do so again.
        """
        words = sum(monitor.finish_seconds for monitor in self.active)
        measuring = again = 0.0
        for monitor in self.active:
            last_took = self._last_took.get(monitor.name, 0.0)
            if self._measured_at.get(monitor.name) == step:
                expected = getattr(monitor, "again_seconds", None)
                again += last_took if expected is None else expected
            else:
                measuring += last_took
        return words + measuring, again

    def _figures(self, monitor: Monitor, call: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """A monitor's values as JSON; non-finite numbers become null."""
        figures = self._guarded(monitor, call, *arguments) or {}
        return self._guarded(monitor, lambda: json.loads(to_json(finite(figures), indent=None))) or {}

    def _guarded(self, monitor: Monitor, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except Exception as error:
            if monitor in self.active:
                self.active.remove(monitor)
            text = " ".join(str(error).split())
            progress.say(
                f"{monitor.name}: failed ({type(error).__name__}: {text}); the run continues without it"
            )
            return None
