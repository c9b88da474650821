"""The command line in a process of its own that begins at once: forked from a server that has imported everything.

Until TensorFlow is imported a start takes seconds of a processor, most of what a test takes that starts a command again
and again to kill it. Such tests fork it from :mod:`multiprocessing`'s server of forks, in which nothing but imports has
happened. From `main` on it is the program as it is; other tests see that it starts from nothing, too.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload([
    "tests.forked", "mri_transfer.machine.device", "keras", "tensorflow", "mri_transfer.cli",
    "mri_transfer.pretrain.pretrain", "mri_transfer.finetune.compare", "mri_transfer.finetune.finetune",
    "sklearn.linear_model", "sklearn.ensemble", "skimage.transform", "scipy.stats", "matplotlib.figure",
])  # fmt: skip


def run(words: list[str], output: str, folder: str, environment: dict[str, str], first: str) -> None:
    """What the process does."""
    descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(descriptor, stream.fileno())
        stream.reconfigure(line_buffering=True)
    os.close(descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    exec(first, {})
    from mri_transfer.cli import main

    sys.exit(main(words))


class Forked:
    """A started command, to be used as a :class:`subprocess.Popen` whose two streams are one."""

    def __init__(self, *words: object, first: str = ""):
        """`first` is Python that runs before the command."""
        with tempfile.NamedTemporaryFile(delete=False) as file:
            self.output = Path(file.name)
        self.args = [str(word) for word in words]
        arguments = (self.args, file.name, str(Path.cwd()), dict(os.environ), first)
        self._process = SERVER.Process(target=run, args=arguments)
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """What it said until its end."""
        self.wait(timeout)
        output = self.output.read_text(encoding="utf-8") if self.output.exists() else ""
        self.output.unlink(missing_ok=True)
        return output, None
