"""What the C++ side of JAX says and does on its own account.

It prints to the terminal whenever a connection is made or lost. And where process 0 is gone it calls abort(), within
milliseconds, with a page of addresses; that a process of ours can't say first what has happened is no help to anyone.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def held_back(before_abort: Callable[[], None]) -> Iterator[None]:
    """While it is entered, nothing but Python's own output is shown, and abort() waits.

    Args:
        before_abort: called in a thread that is about to abort the process; may end it in a better way. What C++ has
            printed is shown if it returns.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    ours = {1: os.dup(1), 2: os.dup(2)}
    memory = os.memfd_create("messages") if hasattr(os, "memfd_create") else None
    held = os.fdopen(memory, "w+b") if memory is not None else tempfile.TemporaryFile()  # noqa: SIM115
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _elsewhere(sys.stdout, ours), _elsewhere(sys.stderr, ours)
    for number in ours:
        os.dup2(held.fileno(), number)

    def aborting(_: int) -> None:
        before_abort()
        held.seek(0)
        os.write(ours[2], held.read())

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(aborting)
    with contextlib.suppress(OSError, AttributeError):  # a system without it shows what JAX does
        ctypes.CDLL(None).signal(int(signal.SIGABRT), handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGABRT, signal.SIG_DFL)
        sys.stdout.flush()
        sys.stderr.flush()
        for (number, kept), stream, before in zip(
            ours.items(), (sys.stdout, sys.stderr), streams, strict=True
        ):
            # Where Python's output goes by now: the terminal may have been closed meanwhile.
            os.dup2(kept if stream is before else stream.fileno(), number)
            os.close(kept)
        sys.stdout, sys.stderr = streams
        held.close()


def _elsewhere(stream, ours: dict[int, int]):
    """A text stream like `stream` that goes where that went; the same one if it is no terminal, pipe or file."""
    try:
        number = ours[stream.fileno()]
    except (OSError, ValueError, KeyError, AttributeError):
        return stream
    raw = os.fdopen(os.dup(number), "wb", buffering=0)
    return io.TextIOWrapper(raw, encoding=stream.encoding, errors=stream.errors, line_buffering=True)
