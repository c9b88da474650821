"""Worker processes: what they return, how they fail, and that none outlives whoever started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mri_transfer.errors import UserError
from mri_transfer.finetune.workers import ONE_THREAD, in_workers, processes_for_training

SLEEPER = """
import sys, time
from mri_transfer.finetune.workers import in_workers
for _ in in_workers(time.sleep, [(60,)] * 2, 2):
    pass
"""


def test_results_carry_their_numbers():
    found = dict(in_workers(divmod, [(n, 3) for n in range(9)], 2))
    assert found == {n: divmod(n, 3) for n in range(9)}
    assert dict(in_workers(os.getppid, [()], 1)) == {0: os.getpid()}
    assert dict(in_workers(os.getpid, [], 2)) == {}


def test_each_has_one_thread():
    assert [found for _, found in in_workers(os.getenv, [(name,) for name in ONE_THREAD], 1)] == list(
        ONE_THREAD.values()
    )


def test_an_error_is_that_of_the_function():
    with pytest.raises(np.linalg.LinAlgError):
        list(in_workers(np.linalg.inv, [(np.zeros((2, 2)),)], 1))


def test_a_process_that_is_ended_is_one_line():
    with pytest.raises(UserError, match="--workers"):
        list(in_workers(os._exit, [(9,)], 1))


def state(pid: int) -> tuple[str, int] | None:
    """State and parent of a process, as in proc(5); None where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], int(fields[1])


def children(pid: int) -> list[int]:
    every = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [each for each in every if (found := state(each)) and found[1] == pid]


def running(pid: int) -> bool:
    return (found := state(pid)) is not None and found[0] != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for children")
def test_no_worker_outlives_a_killed_parent():
    parent = subprocess.Popen(
        [sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while len(workers := children(parent.pid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        workers = children(parent.pid)
        assert len(workers) >= 2
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    deadline = time.monotonic() + 10
    while (left := [pid for pid in workers if running(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


def test_trainings_at_a_time_follow_from_memory(monkeypatch):
    from mri_transfer.finetune import workers

    monkeypatch.setattr(workers.device, "has_gpu", lambda: False)
    monkeypatch.setattr(workers.device, "cores", lambda: 8)
    for room, expected in ((None, 8), (1e9, 1), (6e9, 2), (1e12, 8)):
        monkeypatch.setattr(workers.memory, "available_bytes", lambda room=room: room)
        assert processes_for_training() == expected
    monkeypatch.setattr(workers.device, "has_gpu", lambda: True)
    assert processes_for_training() == 1
