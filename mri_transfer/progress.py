"""Progress: bars on a terminal or in a notebook; an occasional line where the output is a log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from mri_transfer.words import duration, size_in_words

# In a log: nothing for short tasks, then a line for each tenth done, and at least one every few minutes.
LINE_SECONDS, PATIENCE_SECONDS = 30.0, 300.0

_quiet = False
_stdout_taken = False


def set_quiet(quiet: bool, stdout_taken: bool = False) -> None:
    """Silence bars and messages (`--quiet`); errors are still printed.

    With `stdout_taken` (`--json -`), standard output is reserved for the summary.
    """
    global _quiet, _stdout_taken
    _quiet, _stdout_taken = quiet, stdout_taken


@contextlib.contextmanager
def in_a_call(quiet: bool) -> Iterator[None]:
    """During a call from Python: results are returned, never printed, and `quiet` silences the rest."""
    before = _quiet, _stdout_taken
    set_quiet(quiet or _quiet, stdout_taken=True)
    try:
        yield
    finally:
        set_quiet(*before)


def visible(text: str) -> str:
    """Text safe for a terminal: control characters, as in a file name, and bytes that are not text become visible
    escapes."""
    return "".join(char if char.isprintable() or char in "\n\t" else _escape(char) for char in text)


def _escape(char: str) -> str:
    byte = ord(char) - 0xDC00  # how Python represents a non-UTF-8 byte in a name
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else char.encode("unicode_escape").decode()


def bar(iterable: Any = None, *, desc: str, unit: str, total: float | None = None, **options: Any) -> tqdm:
    """A tqdm bar with rate and time left: text on a terminal, widgets in a notebook, lines in a log."""
    kind: Any = _Lines
    if sys.stderr.isatty():
        kind = tqdm
    elif _in_notebook():
        from tqdm.auto import tqdm as widgets

        kind = widgets
    options = {"dynamic_ncols": True, **options}
    return kind(
        iterable,
        desc=visible(desc),
        unit=unit,
        total=total,
        disable=_quiet,
        **options,
    )


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


class _Lines(tqdm):
    """A bar that occasionally writes a whole line, for logs of nohup, SLURM and the like."""

    def __init__(self, *arguments: Any, **options: Any):
        self._shown_at, self._shown_tenths = time.monotonic(), 0
        super().__init__(*arguments, **{**options, "mininterval": 1.0, "leave": False})

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Called by tqdm instead of drawing; reports progress if due."""
        waited = time.monotonic() - self._shown_at
        tenths = int(10 * self.n / self.total) if self.total else 0
        if waited < LINE_SECONDS or (tenths <= self._shown_tenths and waited < PATIENCE_SECONDS):
            return
        self._shown_at, self._shown_tenths = time.monotonic(), tenths
        say(self.line())

    def line(self) -> str:
        """Such as "features: 20%, 400 of 2,000, 12 min left"."""
        show: Any = {"s": duration, "B": size_in_words}.get(self.unit, "{:,.0f}".format)
        words = [f"{show(self.n)}{f' of {show(self.total)}' if self.total else ''}"]
        if self.total:
            words.insert(0, f"{self.n / self.total:.0%}")
        if self.postfix:
            words.append(self.postfix)
        state = self.format_dict
        rate = state["rate"] or (self.n - self.initial) / max(state["elapsed"], 1e-6)
        if self.total and rate > 0:
            words.append(f"{duration(max(0.0, self.total - self.n) / rate)} left")
        return f"{self.desc.rstrip(': ')}: {', '.join(words)}"

    def clear(self, nolock: bool = False) -> None:
        """Nothing drawn needs clearing."""


def say(message: str = "") -> None:
    """Print a message to standard error, keeping standard output for results.

    A closed terminal or a log on a full disk must not end the work reported on.
    """
    if not _quiet:
        with contextlib.suppress(OSError):
            tqdm.write(visible(message), file=sys.stderr)
            sys.stderr.flush()


def show(text: str) -> None:
    """Print a result to standard output, unless `--quiet` silences it or `--json -` takes the stream."""
    if not (_quiet or _stdout_taken):
        sys.stdout.write(f"{visible(text)}\n")
        sys.stdout.flush()
