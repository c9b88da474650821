"""What watches a run without touching it: the protocol of a monitor, and what the loop does with a list of them.

A monitor measures something now and then (is the encoder healthy? how fast does it learn?), adds its figures to the
run's metrics and may ask for an early end. It sees the live encoder and must leave every variable and every random
generator as it found them: a run with monitors equals one without, bit for bit. Monitors know no method; methods,
schedules and saving know no monitor.
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

# A figure by this name says how good the encoder is, higher is better; the run keeps the best one.
SCORE = "score"


class At(TypedDict):
    """Where the run is: steps done, and seconds of its budget used (interruptions left out)."""

    step: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class RunView:
    """What a monitor may look at. Made anew for each call: a run may rebuild its method midway.

    Attributes:
        config: the run's settings.
        out: the run folder; a monitor may write files of its own there (atomically).
        store: the slices, with their table of subject, sequence, plane and position.
        trainer: what is trained.
        batch: what the last step was given: "a", "b" uint8 (pairs, size, size), "subject" int32 (pairs,);
            None before the first step.
        loss: of the last step; finite (None before the first one).
        share: of the budget used, 0..1.
        metrics: the lines of metrics.jsonl so far, oldest first.
        stopped: the sentence for which the run ends early (it diverged, or a monitor asked for it), else None.
        saving: share of the time for which training had to wait for saves.
        diverged_at: steps at which the loss was not finite, so that the run went back.
        ending: whether `finish` is expected to follow at once.
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
        """Side of the views in pixels at the moment."""
        return self.trainer.size


class Monitor(Protocol):
    """One thing that is watched.

    The loop calls, in this order: `restore` once; after every step `due`, and if it says so `measure`; at the end of
    the run `measure` once more (unless it has just been called) and `finish`. An exception that is no
    `KeyboardInterrupt` switches the monitor off with a warning; it never ends the run.

    Attributes:
        name: for messages.
        used: share of the run's time that this monitor has taken so far; the loop sets it before each `due`, so that
            a monitor can keep itself under a limit.
        stop: a sentence that asks the run to end now and says why ("collapsed: the features of all slices are ..."),
            else None. Read after `measure`. The run then saves and finishes as at its regular end, and exits with
            code 2.
        finish_seconds: how long `finish` is expected to take, for the budget holds it too. The time that `measure`
            takes is known to the loop.
    """

    name: str
    used: float
    stop: str | None
    finish_seconds: float

    def restore(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Told before the first step the lines of metrics.jsonl that a resumed run keeps (empty for a new run)."""

    def due(self, run: RunView, at: At) -> bool:
        """Whether to measure now. Called after every step, so it must cost next to nothing."""
        ...

    def measure(self, run: RunView, at: At) -> dict[str, Any]:
        """Figures for this moment's line of metrics.jsonl, as JSON values; names must not be those of the loop.

        "score", if it is among them, says how good the encoder is (higher is better): the best is kept in RUN/best.
        """
        ...

    def finish(self, run: RunView, at: At) -> dict[str, Any]:
        """The last word: write pages; the returned entries go into summary.json.

        `run.metrics` then ends with the last line. The entry "sentence", if there, is said to the user.
        """
        ...


class Monitors:
    """Calls monitors, times them, and outlives their failures.

    Args:
        monitors: in the order in which they are asked.
        lines: of metrics.jsonl that a resumed run keeps.
        seconds: what monitors have taken before this process, by name.
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
        """Figures of the monitors that are due (at the end: of all that have not measured this very step)."""
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
        """What all monitors have to say at the end."""
        entries: dict[str, Any] = {}
        for monitor in tuple(self.active):
            at: At = {"step": step, "seconds": seconds}
            before = self.clock()
            entries |= self._figures(monitor, monitor.finish, view(), at)
            self.seconds[monitor.name] += self.clock() - before
        return entries

    @property
    def stop(self) -> str | None:
        """The first sentence with which a monitor asks for the end, if one does."""
        return next((monitor.stop for monitor in self.active if monitor.stop), None)

    @property
    def enough(self) -> str | None:
        """The first monitor that lets the run end in good order, if one does."""
        return next((monitor.name for monitor in self.active if getattr(monitor, "enough", False)), None)

    def finishing_seconds(self, step: int) -> tuple[float, float]:
        """What the last measurements and the last words will take, as far as is known.

        Args:
            step: steps done.

        Returns:
            Seconds if the run ends after this step, and what comes on top of that after another one: those that have
            just measured must do so again then.
        """
        words = sum(monitor.finish_seconds for monitor in self.active)
        just_now = [m.name for m in self.active if self._measured_at.get(m.name) == step]
        again = sum(self._last_took.get(name, 0.0) for name in just_now)
        measuring = sum(self._last_took.get(monitor.name, 0.0) for monitor in self.active) - again
        return words + measuring, again

    def _figures(self, monitor: Monitor, call: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """What a monitor gives, as JSON holds it; numbers that are not finite become null."""
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
                f"{monitor.name}: failed ({type(error).__name__}: {text}); the run goes on without it"
            )
            return None
