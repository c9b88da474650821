"""Deferring Ctrl-C where it would only do harm."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Defer an interrupt until the end.

    Processes started meanwhile ignore it: a terminal sends Ctrl-C to them too, and their parent ends them.
    """
    with _handler_deferred(), _signal_blocked():
        yield


@contextlib.contextmanager
def _signal_blocked() -> Iterator[None]:
    """Block the signal in this thread, and so in the processes that it starts."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _handler_deferred() -> Iterator[None]:
    """Call Python's handler only at the end.

    Blocking the signal is not enough: the system then delivers it to another thread of the process, such as one of
    TensorFlow's, and Python runs the handler in the main thread all the same.
    """
    handler: Any = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    arrived: list[FrameType | None] = []
    signal.signal(signal.SIGINT, lambda _, frame: arrived.append(frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if arrived:
            handler(signal.SIGINT, arrived[-1])


def exit_within(seconds: float, code: int) -> None:
    """End this process with `code`, after `seconds` even if something at its exit waits for ever."""
    timer = threading.Timer(seconds, os._exit, (code,))
    timer.daemon = True
    timer.start()
