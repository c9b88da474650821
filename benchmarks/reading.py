"""How much of this project a run passes through: files, functions, depth, and changes between files.

    python benchmarks/reading.py [--steps 3] [--within run_steps]

Runs `pretrain` on three generated volumes and counts the functions of this checkout that it enters, in all threads.
Code that only runs at import isn't counted. A change of file is a call from one file's function to another's; depth
counts only functions of this checkout. Beside the whole run, it shows what is entered from within one function, by
default the one with a run's steps: what must be read to change a step. Needs Python 3.12, whose `sys.monitoring` leaves
other code alone.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import inspect
import io
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import CodeType

ROOT = Path(__file__).resolve().parents[1]


class Count:
    """What a run enters: in total, and from within one function."""

    def __init__(self, within: str | None = None):
        self.within = within
        self.functions: set[CodeType] = set()
        self.changes: Counter[tuple[str, str]] = Counter()
        self.depth = 0

    def add(self, stack: list[tuple[str, CodeType]]) -> None:
        """A function was entered; `stack` has the file and the code of it and of its callers in this checkout."""
        if self.within and not any(code.co_name == self.within for _, code in stack):
            return
        self.functions.add(stack[0][1])
        self.depth = max(self.depth, len(stack))
        if len(stack) > 1 and stack[1][0] != stack[0][0]:
            self.changes[stack[1][0], stack[0][0]] += 1

    def line(self) -> str:
        files = {file_of(code) for code in self.functions}
        return (
            f"{len(files)} files, {len(self.functions)} functions, depth {self.depth}, "
            f"{sum(self.changes.values())} changes of file between {len(self.changes)} pairs of files"
        )


@functools.cache
def ours(name: str) -> str | None:
    """A file's path in this checkout unless it is a test or benchmark, else None."""
    if not Path(name).is_absolute():  # "<frozen importlib>", "<string>"
        return None
    path = os.path.realpath(name)
    if not path.startswith(f"{ROOT}{os.sep}"):
        return None
    file = os.path.relpath(path, ROOT)
    return None if file.startswith(("benchmarks", "tests", ".")) else file


def file_of(code: CodeType) -> str | None:
    """The file of a function of this checkout; None for other code, modules and class bodies."""
    return ours(code.co_filename) if code.co_flags & inspect.CO_OPTIMIZED else None


def watch(counts: list[Count]) -> None:
    """Count everything entered from here on, in all threads; other code is looked at once."""
    tool, events = sys.monitoring.PROFILER_ID, sys.monitoring.events

    def entered(code: CodeType, _: int) -> object:
        if file_of(code) is None:
            return sys.monitoring.DISABLE
        stack, frame = [], sys._getframe(1)
        while frame is not None:
            if file := file_of(frame.f_code):
                stack.append((file, frame.f_code))
            frame = frame.f_back  # type: ignore[assignment]
        for count in counts:
            count.add(stack)
        return None

    sys.monitoring.use_tool_id(tool, "reading")
    sys.monitoring.register_callback(tool, events.PY_START, entered)
    sys.monitoring.set_events(tool, events.PY_START)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--within", default="run_steps", metavar="FUNCTION")
    parser.add_argument("--list", action="store_true", help="name every function that is entered within it")
    a = parser.parse_args()
    from mri_transfer import api
    from mri_transfer.datasets.synthetic.generate import write_volumes

    counts = [Count(), Count(a.within)]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        write_volumes(Path(folder) / "volumes", 3, 0)
        api.slices(Path(folder) / "volumes", out=Path(folder) / "store", size=64)
        watch(counts)
        api.pretrain(Path(folder) / "store", out=Path(folder) / "run", steps=a.steps, batch=4)
        sys.monitoring.free_tool_id(sys.monitoring.PROFILER_ID)
    print(f"whole run: {counts[0].line()}")
    print(f"within {a.within}: {counts[1].line()}")
    if a.list:
        for line in sorted(
            f"  {file_of(code)}:{code.co_firstlineno} {code.co_name}" for code in counts[1].functions
        ):
            print(line)


if __name__ == "__main__":
    main()
