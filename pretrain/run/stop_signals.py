"""Handles signals: requests to stop, and a closed terminal."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from mri_transfer import progress

LOG = "output.log"


class Interrupts:
    """A context manager that handles signals for a run; main thread only.

    - Ctrl-C and SIGTERM (`kill`, a shutdown) set `asked` once training has begun: the loop ends after the current step,
      so that the save belongs to one step. Before that, and the second time, they end at once.
    - SIGHUP (a closed ssh session or terminal) doesn't end the run. Output continues in `output.log` in the run folder,
      since writing to a closed terminal is an error.

    Args:
        out: the run folder.

    Attributes:
        patient: whether there is something to save before ending.
        asked: whether a stop was requested.
        hung_up: whether the terminal is closed.
    """

    def __init__(self, out: Path):
        self.out = Path(out)
        self.patient = False
        self.asked = False
        self.hung_up = False
        self._announced: set[str] = set()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            handlers: dict[int, Any] = {signal.SIGINT: self._ask, signal.SIGTERM: self._ask}
            # nohup already ignores it, and output goes where the user wants it.
            if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
                handlers[signal.SIGHUP] = self._hang_up
            self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            # After the terminal closes, a second SIGHUP (from the shell) must not interrupt saving.
            if not (self.hung_up and number == getattr(signal, "SIGHUP", None)):
                signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked or not self.patient:
            raise KeyboardInterrupt
        self.asked = True

    def _hang_up(self, number: int, frame: FrameType | None) -> None:
        if not self.hung_up:
            self.hung_up = True
            redirect_output(self.out / LOG)

    def tell(self) -> None:
        """Report what happened; handlers can't, as they may interrupt another print."""
        news = {
            "the terminal was closed; the run continues, and what it says is written here": self.hung_up,
            "stopping: saving what is done (interrupt again to stop at once)": self.asked,
        }
        for message, happened in news.items():
            if happened and message not in self._announced:
                self._announced.add(message)
                progress.say(message)


def _numbers(*streams: Any) -> list[int]:
    numbers = []
    for stream in streams:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            numbers.append(stream.fileno())
    return numbers


def redirect_output(log: Path) -> None:
    """Redirect standard output and error to `log`, unless they already go to a file."""
    try:
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError:
        target = os.open(os.devnull, os.O_WRONLY)
    # Python's streams may have other descriptors while C++ output is suppressed.
    for stream in sorted({1, 2, *_numbers(sys.stdout, sys.stderr)}):
        try:
            if stat.S_ISREG(os.fstat(stream).st_mode):
                continue
        except OSError:  # closed
            pass
        os.dup2(target, stream)
    os.close(target)
