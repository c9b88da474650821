"""A run's files on disk: two generations of its state, the latest encoder and the best one.

    RUN/state/         to resume from, see checkpoints/state.py
    RUN/encoder/       the latest encoder, refreshed with every save, so that it can be used before the end
    RUN/best/encoder/  the encoder with the best score of a monitor; `--init RUN/best` starts from it

A separate thread writes copies, in the order requested. If the disk is full or gone, the run warns, goes on and retries
at the next save; earlier saves stay.
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

# Saving may block training for this share of the time; slow machines save less often.
SHARE = 0.01
FULL = (errno.ENOSPC, errno.EDQUOT)
# How long a finished run waits for disk space for its encoder, and how often it tries.
PATIENCE_SECONDS, RETRY_SECONDS = 3600.0, 10.0

Write = Callable[[Path], None]


@dataclasses.dataclass
class _Cost:
    """One save's cost: its thread's CPU time, and the time until all was on disk."""

    busy: float
    wall: float
    encoder_wall: float


class Saver:
    """Saves a run.

    Args:
        out: the run folder.
        seconds: minimum between two saves.
        position: the run's when this process begins.

    Attributes:
        spent: seconds that training waited for saves, earlier processes included.
        encoder_seconds: estimated time to write an encoder.
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
            info: the rest of the saved state.
            encoder: writes a copy of the encoder into a folder.
            copying: seconds spent making the copies.
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
        """Replace the best encoder, in the background; arguments as in :meth:`save`."""
        self.spent += copying
        self._jobs.append(self._pool.submit(self._write_best, encoder))

    def wait(self) -> None:
        """Wait until all requested writes have finished or failed."""
        for job in self._jobs:
            job.exception()
        self._collect()

    def save_at_last(self, write: Callable[[], None], given_up: Callable[[], bool]) -> None:
        """Write the run's result. If the disk is full, wait for space for an hour at most.

        Args:
            write: writes it.
            given_up: whether the user wants to stop waiting.

        Raises:
            UserError: it could not be written.
            KeyboardInterrupt: the user wants to stop waiting.
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
                    f"{place}: can't be written ({reason}); make room and run the same command again to "
                    "continue from the last save"
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
        """End the thread once it has written everything."""
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
        """On a full disk, remove the older generation if the newest is known to be good.

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
        """Learn the cost of saving from finished jobs, and report failures."""
        while self._jobs and self._jobs[0].done():
            job = self._jobs.pop(0)
            try:
                cost = job.result()
            except (OSError, MemoryError) as error:
                self._failing = True
                place = getattr(error, "filename", None) or self.out
                reason = getattr(error, "strerror", None) or "memory is short"
                progress.say(
                    f"{place}: could not be saved ({reason}); training continues, and "
                    "saving is tried again at the next interval. What was saved before is kept"
                )
                continue
            # The thread takes at most one core from training; waiting for the disk takes nothing.
            self._cost += cost.busy
            self.spent += cost.busy
            self.encoder_seconds = cost.encoder_wall
            if self._failing:
                self._failing = False
                progress.say(f"{self.out}: is saved again")
