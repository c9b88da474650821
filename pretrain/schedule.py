"""How far a run is, when it must end, and the learning rate that follows from it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


def warmup_cosine(progress: float, warmup: float) -> float:
    """Share of the peak learning rate at `progress` (0 at the start, 1 at the end).

    Rises linearly over the first `warmup` share of the budget, then falls along half a cosine to zero
    (Loshchilov & Hutter, SGDR, 2017, eq. 5, without restarts).
    """
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))


class Budget:
    """A budget in steps or in seconds, over which the schedule is laid.

    In seconds, the time spent before an interruption counts and the interruption itself does not. Room is kept for
    finishing (the last save), and the last step is not begun if it would end more than half its length too late.

    Args:
        steps: total number of optimizer steps, or None.
        seconds: total time in seconds, or None; exactly one of the two is given.
        spent: seconds used before this process started.
        clock: monotonic seconds; a wall clock may jump.
    """

    def __init__(
        self,
        *,
        steps: int | None,
        seconds: float | None,
        spent: float = 0.0,
        started: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        if (steps is None) == (seconds is None):
            raise ValueError("give either steps or seconds")
        self.steps, self.seconds, self.spent, self.clock = steps, seconds, spent, clock
        self.started = clock() if started is None else started
        self.finishing = 0.0
        self.step_seconds = 0.0

    def elapsed(self) -> float:
        """Seconds of training so far, interruptions left out."""
        return self.spent + self.clock() - self.started

    def progress(self, step: int) -> float:
        """Share of the budget used before step number `step` (counted from 0) begins."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        assert self.seconds is not None
        return min(1.0, self.elapsed() / max(1e-9, self.seconds - self.finishing))

    def is_over(self, step: int) -> bool:
        """Whether step number `step` should no longer begin."""
        if self.steps is not None:
            return step >= self.steps
        assert self.seconds is not None
        return self.elapsed() + self.step_seconds / 2 > self.seconds - self.finishing

    def note_step(self, seconds: float) -> None:
        """Learn how long a step takes (the first one, which compiles, is left out by the caller)."""
        self.step_seconds = seconds if not self.step_seconds else 0.9 * self.step_seconds + 0.1 * seconds

    def remaining(self, step: int) -> float:
        """Expected seconds until the end."""
        if self.seconds is not None:
            return max(0.0, self.seconds - self.elapsed())
        assert self.steps is not None
        return (self.steps - step) * self.step_seconds
