"""What of a run is on disk at any moment: two generations of its state, the latest encoder and the best one.

    RUN/state/         to resume from, see checkpoints/state.py
    RUN/encoder/       the latest encoder, refreshed with every save, so that it can be used before the end
    RUN/best/encoder/  the encoder with the best score of a monitor; `--init RUN/best` starts from it

Writing happens in a thread of its own, from copies, in the order in which it was asked for. A disk that is full or gone
costs a warning and another try at the next save: the run goes on, and whatever was saved before stays.
"""

from __future__ import annotations

import dataclasses
import errno
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer import progress
from mri_transfer.errors import UserError
from mri_transfer.pretrain.run.position import Position
from mri_transfer.storage.locks import require_here

# Saving may keep the training from its work for this share of the time; on a slow machine it is done less often.
SHARE = 0.01
FULL = (errno.ENOSPC, errno.EDQUOT)
# How long a finished run waits for a disk that has no room for its encoder, and how often it tries.
PATIENCE_SECONDS, RETRY_SECONDS = 3600.0, 10.0

Write = Callable[[Path], None]


@dataclasses.dataclass
class _Cost:
    """What one save took: processor time of its thread, and the time until all was on disk."""

    busy: float
    wall: float
    encoder_wall: float


class Saver:
    """Saves a run.

    Args:
        out: the run folder.
        seconds: between two saves, at least.
        position: where the run is when this process begins with it.

    Attributes:
        spent: seconds that saving has kept the training from its work, those of earlier processes included.
        encoder_seconds: how long it takes to write an encoder, as far as is known.
    """

    def __init__(self, out: Path, seconds: float, position: Position):
        self.out, self.state = Path(out), Path(out) / "state"
        self.seconds, self.spent = seconds, position.saving_seconds
        self.encoder_seconds = 0.0
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="saving")
        self._jobs: list[Future[_Cost]] = []
        self._saved_at = position.seconds
        self._cost = 0.0
        self._failing = False

    def due(self, elapsed: float) -> bool:
        """Whether it is time to save; false while the last save is still being written."""
        self._collect()
        return not self._jobs and elapsed >= self._saved_at + max(self.seconds, self._cost / SHARE)

    def save(
        self, arrays: dict[str, np.ndarray], info: dict[str, Any], encoder: Write, copying: float
    ) -> None:
        """Save in the background.

        Args:
            arrays: copies of the state.
            info: what else the run remembers.
            encoder: writes a copy of the encoder into a folder.
            copying: seconds that making the copies took.
        """
        self._cost = copying
        self.spent += copying
        self._saved_at = info["seconds"]
        self._jobs.append(self._pool.submit(self._write_all, arrays, info, encoder))

    def save_now(self, arrays: dict[str, np.ndarray], info: dict[str, Any], encoder: Write | None) -> None:
        """Save, and return when it is on disk.

        Raises:
            OSError: it could not be written.
        """
        self.wait()
        before = time.monotonic()
        cost = self._pool.submit(self._write_all, arrays, info, encoder).result()
        self._cost = cost.busy
        self.encoder_seconds = cost.encoder_wall or cost.wall
        self.spent += time.monotonic() - before
        self._saved_at = info["seconds"]

    def save_best(self, encoder: Write, copying: float) -> None:
        """Replace the best encoder, in the background; arguments as of :meth:`save`."""
        self.spent += copying
        self._jobs.append(self._pool.submit(self._write_best, encoder))

    def wait(self) -> None:
        """Until all that was asked for is written or has failed."""
        for job in self._jobs:
            job.exception()
        self._collect()

    def save_at_last(self, write: Callable[[], None], given_up: Callable[[], bool]) -> None:
        """Write what the run was for. While the disk has no room, wait for some, for an hour at most.

        Args:
            write: writes it.
            given_up: whether the user wants to wait no longer.

        Raises:
            UserError: it could not be written.
            KeyboardInterrupt: the user wants to wait no longer.
        """
        self.wait()
        deadline, reported = time.monotonic() + PATIENCE_SECONDS, False
        while True:
            try:
                return self._with_room(write)
            except OSError as error:
                reason = error.strerror or str(error)
                place = error.filename or self.out
            if time.monotonic() >= deadline:
                raise UserError(
                    f"{place}: can't be written ({reason}); make room and run the same command again, it goes "
                    "on from the last save"
                )
            if not reported:
                reported = True
                progress.say(
                    f"{place}: can't be written ({reason}); the run is over and waits to be saved, for "
                    f"{PATIENCE_SECONDS / 60:.0f} minutes: make room"
                )
            retry_at = time.monotonic() + min(RETRY_SECONDS, PATIENCE_SECONDS / 10)
            while time.monotonic() < retry_at:
                if given_up():
                    raise KeyboardInterrupt
                time.sleep(0.1)

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, *_: Any) -> None:
        """End the thread, once it has written what it was given."""
        self._pool.shutdown(wait=True)

    def _write_all(self, arrays: dict[str, np.ndarray], info: dict[str, Any], encoder: Write | None) -> _Cost:
        from mri_transfer.checkpoints.state import save_state

        busy, began = time.thread_time(), time.monotonic()
        self._with_room(lambda: save_state(self.state, arrays, info))
        between = time.monotonic()
        if encoder is not None:
            self._with_room(lambda: encoder(self.out / "encoder"))
        ended = time.monotonic()
        return _Cost(time.thread_time() - busy, ended - began, ended - between if encoder else 0.0)

    def _write_best(self, encoder: Write) -> _Cost:
        busy, began = time.thread_time(), time.monotonic()
        self._with_room(lambda: encoder(self.out / "best" / "encoder"))
        wall = time.monotonic() - began
        return _Cost(time.thread_time() - busy, wall, wall)

    def _with_room(self, write: Callable[[], None]) -> None:
        """On a full disk the older generation makes way, if the newest one is known to be good.

        Raises:
            UserError: the run folder is gone.
        """
        require_here(self.out)
        from mri_transfer.checkpoints.state import keep_newest

        try:
            write()
        except OSError as error:
            if error.errno not in FULL or not keep_newest(self.state):
                raise
            write()

    def _collect(self) -> None:
        """Learn from finished jobs what saving costs, and say what went wrong."""
        while self._jobs and self._jobs[0].done():
            job = self._jobs.pop(0)
            try:
                cost = job.result()
            except (OSError, MemoryError) as error:
                self._failing = True
                place = getattr(error, "filename", None) or self.out
                reason = getattr(error, "strerror", None) or "memory is short"
                progress.say(
                    f"{place}: could not be saved ({reason}); training goes on, and "
                    "saving is tried again at the next interval. What was saved before is kept"
                )
                continue
            # A thread beside the training takes a core from it at most; waiting for the disk takes nothing.
            self._cost += cost.busy
            self.spent += cost.busy
            self.encoder_seconds = cost.encoder_wall
            if self._failing:
                self._failing = False
                progress.say(f"{self.out}: is saved again")
