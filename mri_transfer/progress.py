"""Progress that is shown to people and kept from log files."""

from __future__ import annotations

import contextlib
import sys
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


def shows_bars() -> bool:
    """Bars are drawn only on a terminal."""
    return not _quiet and sys.stderr.isatty()


def visible(text: str) -> str:
    """Text for a terminal: what could move its cursor or change its title, in the name of a file, and bytes that are
    no text become escapes that show."""
    return "".join(char if char.isprintable() or char in "\n\t" else _escape(char) for char in text)


def _escape(char: str) -> str:
    byte = ord(char) - 0xDC00  # how Python holds a byte of a name that is no UTF-8
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else char.encode("unicode_escape").decode()


def bar(iterable: Any = None, *, desc: str, unit: str, total: float | None = None, **options: Any) -> tqdm:
    """A tqdm bar with rate and time left, hidden where the output is no terminal."""
    return tqdm(
        iterable,
        desc=visible(desc),
        unit=unit,
        total=total,
        disable=not shows_bars(),
        dynamic_ncols=True,
        **options,
    )


def say(message: str = "") -> None:
    """Tell the user something: to standard error, so that standard output stays for results.

    A terminal that is gone or a log on a full disk must not end what is being told about.
    """
    if not _quiet:
        with contextlib.suppress(OSError):
            tqdm.write(visible(message), file=sys.stderr)
            sys.stderr.flush()


def show(text: str) -> None:
    """Print a result to standard output, unless `--quiet` or `--json -` claims the silence or the stream."""
    if not (_quiet or _stdout_taken):
        sys.stdout.write(visible(text))
        sys.stdout.flush()
