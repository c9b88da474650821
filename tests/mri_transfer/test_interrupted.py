"""Ctrl-C, once or twice, at any moment of any command: one line, and no traceback of any of its processes."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals to a group of processes")


def interrupted(arguments, after, gap):
    """What a command says on standard error when its terminal sends two interrupts."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mri_transfer", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    time.sleep(after)
    for _ in range(2):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(gap)
    _, output = process.communicate(timeout=120)
    return process.returncode, [
        line for line in output.splitlines() if line.strip() and line[:1] not in "EIW"
    ]


def check(arguments, after, gap):
    code, lines = interrupted(arguments, after, gap)
    if code != 0:  # it wasn't done before
        assert code in (130, -signal.SIGINT)
        assert lines in (["interrupted; run the same command again to continue"], ["interrupted"], []), (
            "\n".join(lines)
        )


@pytest.mark.parametrize("after", [1.5, 4.0])
def test_two_interrupts_are_one_line(after, small_volumes, tmp_path):
    check(
        ["slices", small_volumes, "--out", tmp_path / "x", "--size", 32, "--workers", 2, "--quiet"],
        after,
        0.1,
    )


@pytest.mark.slow
@pytest.mark.parametrize("command", ["slices", "audit", "pretrain", "compare", "finetune"])
def test_at_any_moment_of_any_command(command, small_volumes, small_store, tumor_set, tmp_path):
    rng = np.random.default_rng()  # another moment each time
    arguments = {
        "slices": [small_volumes, "--size", 64, "--workers", 2],
        "audit": [tumor_set],
        "pretrain": [small_store, "--steps", 500, "--batch", 4],
        "compare": [
            tumor_set,
            "--arm",
            "random",
            "--arm",
            "imagenet",
            "--mode",
            "both",
            "--folds",
            2,
            "--workers",
            2,
        ],
        "finetune": [tumor_set, "--init", "random", "--folds", 2],
    }[command]
    check(
        [command, *arguments, "--out", tmp_path / "x", "--quiet"],
        rng.uniform(0.3, 9),
        rng.choice([0.02, 0.3]),
    )


@pytest.fixture(scope="module")
def tumor_set(tmp_path_factory):
    from mri_transfer.datasets.synthetic.generate import write_tumors

    folder = tmp_path_factory.mktemp("tumors")
    write_tumors(folder, per_class=12, seed=0)
    return folder
