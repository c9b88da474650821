"""A process that saves without end, killed twenty times."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Once everything is imported a saving process is forked again and again.
FORKING = """
import os, sys
for line in sys.stdin:
    step = saved()
    child = os.fork()
    if child == 0:
        os.write(1, f"{os.getpid()}\\n".encode())
        while True:
            step += 1
            save(step)
            os.write(1, b"saved\\n")
    os.waitpid(child, 0)
    print("dead", flush=True)
"""


@pytest.fixture
def killed_twenty_times(tmp_path):
    """Kill what saves to `tmp_path`, at random moments before the first save that it does and soon after others.

    Called with Python that defines `saved()`, the last step in the folder `sys.argv[1]`, and `save(step)`; goes on from
    each yield with the next kill.
    """

    def run(code: str) -> Iterator[None]:
        chance = random.Random(0)
        with subprocess.Popen(
            [sys.executable, "-c", code + FORKING, str(tmp_path)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as saver:
            for number in range(20):
                print("go", file=saver.stdin, flush=True)
                child = int(saver.stdout.readline())
                for _ in range(number % 3):
                    assert saver.stdout.readline() == "saved\n"
                time.sleep(chance.uniform(0.0, 0.06))
                os.kill(child, signal.SIGKILL)
                while saver.stdout.readline() != "dead\n":
                    pass
                yield
            saver.stdin.close()

    return run
