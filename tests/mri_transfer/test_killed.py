"""Each command, killed twenty times; `fetch` has its own in tests/datasets/fetch/test_interrupted.py."""

import os
import subprocess
import sys

import pytest

from tests.mri_transfer.killed import COMMANDS

ROOT = __file__.rpartition("/tests/")[0]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are forked")
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_twenty_times_it_ends_with_the_same_bytes(name, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.mri_transfer.killed", name, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": ROOT, "TF_CPP_MIN_LOG_LEVEL": "3"},
        timeout=850,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("20 kills")
