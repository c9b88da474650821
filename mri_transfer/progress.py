"""Progress that is shown to people and kept from log files."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

_quiet = False
_stdout_taken = False


def set_quiet(quiet: bool, stdout_taken: bool = False) -> None:
    """Silence bars and messages (`--quiet`); errors are still printed.

    With `stdout_taken` (`--json -`) standard output is left to the summary.
    """
    global _quiet, _stdout_taken
    _quiet, _stdout_taken = quiet, stdout_taken


@contextlib.contextmanager
def in_a_call(quiet: bool) -> Iterator[None]:
    """While a function is called from Python: results are returned and never printed, and `quiet` silences the rest."""
    before = _quiet, _stdout_taken
    set_quiet(quiet or _quiet, stdout_taken=True)
    try:
        yield
    finally:
        set_quiet(*before)


def shows_bars() -> bool:
    """Bars are drawn only on a terminal."""
    return not _quiet and sys.stderr.isatty()


def bar(iterable: Any = None, *, desc: str, unit: str, total: float | None = None, **options: Any) -> tqdm:
    """A tqdm bar with rate and time left, hidden where the output is no terminal."""
    return tqdm(
        iterable, desc=desc, unit=unit, total=total, disable=not shows_bars(), dynamic_ncols=True, **options
    )


def say(message: str = "") -> None:
    """Tell the user something: to standard error, so that standard output stays for results.

    A terminal that is gone or a log on a full disk must not end what is being told about.
    """
    if not _quiet:
        with contextlib.suppress(OSError):
            tqdm.write(message, file=sys.stderr)
            sys.stderr.flush()


def show(text: str) -> None:
    """Print a result to standard output, unless `--quiet` or `--json -` claims the silence or the stream."""
    if not (_quiet or _stdout_taken):
        sys.stdout.write(text)
        sys.stdout.flush()
