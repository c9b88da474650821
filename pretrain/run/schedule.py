"""A run's progress, its end, and the learning rate that follows from them."""

from __future__ import annotations

import datetime
import math
import time
from collections import deque
from collections.abc import Callable

from mri_transfer.errors import UserError
from mri_transfer.machine.hardware import EARLIEST_SANE_CLOCK

# A time budget may be exceeded by this share; a step that would end later than that is not begun.
TOLERANCE = 0.02
# Number of steps used to predict the next one's duration: few, to notice a slowing machine at once.
REMEMBERED_STEPS = 5


def warmup_cosine(progress: float, warmup: float) -> float:
    """Share of the peak learning rate at `progress` (0 at the start, 1 at the end).

    Rises linearly over the first `warmup` share of the budget, then falls along half a cosine to zero
    (Loshchilov & Hutter, SGDR, 2017, eq. 5, without restarts).
    """
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))


def next_moment(moment: datetime.time, now: float) -> float:
    """When the local clock next shows `moment`, as a Unix time.

    Args:
        moment: time of day, such as 07:00.
        now: Unix time.

    Raises:
        UserError: the clock was never set, so a time of day is meaningless.
    """
    if now < EARLIEST_SANE_CLOCK:
        year = datetime.datetime.fromtimestamp(now).year
        raise UserError(
            f"--until {moment:%H:%M}: this machine's clock shows the year {year}; set it (`date`, "
            "`timedatectl`), or give --hours, which needs no clock"
        )
    today = datetime.datetime.fromtimestamp(now).date()
    days = (datetime.datetime.combine(today + datetime.timedelta(days), moment) for days in (0, 1, 2))
    # The operating system handles summer time: a local time without a zone is what its clock will show.
    return next(unix for day in days if (unix := day.timestamp()) > now)


def since_boot() -> float:
    """Monotonic seconds that include sleep, if the system has such a clock."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Budget:
    """A budget in steps or seconds that the schedule spans.

    In seconds, each moment adds its fraction of the time left, so the share used reaches 1 at the end even if the
    speed, the finishing time or the end itself changes (a run due at 07:00 has less time left after an interruption).
    The last step is begun if it brings the end nearer to the budget and exceeds it by at most :data:`TOLERANCE`.

    Args:
        steps: total number of optimizer steps, or None.
        seconds: total time in seconds, or None; exactly one of the two is given.
        spent: seconds used before this process started.
        share: of the budget used by then, 0..1; None for spent / seconds.
        step_seconds: duration of a step by then.
        started: when this process began, by `clock`; None for now.
        clock: monotonic seconds; a wall clock may jump.
    """

    def __init__(
        self,
        *,
        steps: int | None,
        seconds: float | None,
        spent: float = 0.0,
        share: float | None = None,
        step_seconds: float = 0.0,
        started: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        if (steps is None) == (seconds is None):
            raise ValueError("give either steps or seconds")
        self.steps, self.seconds, self.spent, self.clock = steps, seconds, spent, clock
        self.started = clock() if started is None else started
        self._share = (spent / seconds if seconds else 0.0) if share is None else share
        self._share_at = spent
        # Seconds for the last measurements, saving and pages, set by the loop: if the run ends now, and the extra after
        # another step.
        self.finishing, self.finishing_later = 0.0, 0.0
        self._steps: deque[float] = deque([step_seconds] if step_seconds else [], maxlen=REMEMBERED_STEPS)

    def elapsed(self) -> float:
        """Seconds of training so far, excluding interruptions."""
        return self.spent + self.clock() - self.started

    def progress(self, step: int) -> float:
        """Share of the budget used before step number `step` (counted from 0) begins; never falls."""
        if self.seconds is None:
            assert self.steps is not None
            return min(1.0, step / self.steps)
        now, end = self.elapsed(), self.seconds - self.finishing - self.finishing_later
        if now > self._share_at:
            left = end - self._share_at
            worth = (now - self._share_at) / left if left > now - self._share_at else 1.0
            self._share += (1 - self._share) * worth
            self._share_at = now
        return min(1.0, self._share)

    def is_over(self, step: int) -> bool:
        """Whether step number `step` should no longer begin."""
        if self.seconds is None:
            assert self.steps is not None
            return step >= self.steps
        now = self.elapsed() + self.finishing
        later = now + self.step_seconds + self.finishing_later
        # The next step may take longer than the last ones.
        return later > self.seconds * (1 + 0.75 * TOLERANCE) or (now + later) / 2 >= self.seconds

    @property
    def step_seconds(self) -> float:
        """Current duration of a step; 0 until one was noted."""
        return sum(self._steps) / len(self._steps) if self._steps else 0.0

    def note_step(self, seconds: float) -> None:
        """Note a step's duration; the caller leaves out steps that compile."""
        self._steps.append(seconds)

    def remaining(self, step: int) -> float:
        """Expected seconds until the end."""
        if self.seconds is not None:
            return max(0.0, self.seconds - self.elapsed())
        assert self.steps is not None
        return (self.steps - step) * self.step_seconds + self.finishing
