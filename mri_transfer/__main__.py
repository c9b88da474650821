"""The command ``mri-transfer``, and ``python -m mri_transfer``."""

from __future__ import annotations

import _thread
import signal
import sys
import threading

INTERRUPTED = 130
# What an interrupt left running, such as a library's threads, may delay the exit by this much: all is saved by then.
EXIT_SECONDS = 5.0


def main() -> int:
    """Run one command; see :func:`mri_transfer.cli.main`. An interrupt during its import also prints one line."""
    sys.unraisablehook = _raise_later
    try:
        from mri_transfer.cli import main as run
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED
    _print_any_letter()
    code = run()
    if code == INTERRUPTED:
        from mri_transfer.machine.interrupts import exit_within

        exit_within(EXIT_SECONDS, code)
    return code


def _raise_later(unraisable: sys.UnraisableHookArgs) -> None:
    """Repeat an interrupt that came while Python ran a finaliser or a callback, where it drops every exception."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        threading.Timer(0.05, _interrupt).start()
    else:
        sys.__unraisablehook__(unraisable)


def _interrupt() -> None:
    """Send the main thread another interrupt."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:  # Windows, where nothing wakes a sleep
        _thread.interrupt_main()


def _print_any_letter() -> None:
    """Use UTF-8 for files and pipes, on Windows too; a terminal that lacks a character shows an escape."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")


if __name__ == "__main__":
    sys.exit(main())
