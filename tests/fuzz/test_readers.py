"""A few seconds of fuzzing in every run of the slow tests; hours are for the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("readers.py")


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the fuzzer uses Linux's limits and timers")
def test_damaged_files_of_every_format_for_half_a_minute(tmp_path):
    command = [sys.executable, SCRIPT, "--minutes", "0.5", "--out", tmp_path]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert ", 0 kept in" in done.stdout, done.stdout[-4000:]
    assert int(done.stdout.split(" inputs")[0].split()[-1]) >= 400
