"""Signals of a night: a stop that is asked for, and a terminal that goes away."""

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
    """While it is entered, signals become what a run needs; only the main thread may ask for that.

    - Ctrl-C and SIGTERM (`kill`, a shutdown) set `asked` once training has begun: the loop ends after the step it is
      in, so that what is saved belongs to one step. Before that, and the second time, they end at once.
    - SIGHUP (the ssh session or the terminal is closed) doesn't end the run. What would be printed goes on in
      `output.log` in the run folder, since writing to a terminal that is gone is an error.

    Args:
        out: the run folder.

    Attributes:
        patient: whether there is something to save, so that the user is kept waiting for it.
        asked: whether the end was asked for.
        hung_up: whether the terminal is gone.
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
            # Under nohup it is ignored already, and output goes where the user wants it.
            if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
                handlers[signal.SIGHUP] = self._hang_up
            self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            # Once the terminal is gone, a second SIGHUP (the shell sends its own) must not end what is being saved.
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
        """Say what has happened; not done in the handlers, which may interrupt another print."""
        news = {
            "the terminal was closed; the run goes on, and what it says is written here": self.hung_up,
            "stopping: what is done is being saved (interrupt again to stop at once)": self.asked,
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
    """Let standard output and error go on in `log`, unless they go to a file already."""
    try:
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError:
        target = os.open(os.devnull, os.O_WRONLY)
    # Python's own may have other numbers while those of C++ are held back.
    for stream in sorted({1, 2, *_numbers(sys.stdout, sys.stderr)}):
        try:
            if stat.S_ISREG(os.fstat(stream).st_mode):
                continue
        except OSError:  # closed
            pass
        os.dup2(target, stream)
    os.close(target)
