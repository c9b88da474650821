"""Worker processes: what they return, how they fail, and that none outlives whoever started it."""

import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mri_transfer.errors import UserError
from mri_transfer.processes.workers import ONE_THREAD, GivenExecutor, WorkerDied, Workers, run_calls

SLEEPER = """
import sys, time
from mri_transfer.processes.workers import Workers, run_calls
for _ in run_calls(Workers(2), time.sleep, [(60,)] * 2):
    pass
"""


def test_results_carry_their_numbers():
    results = dict(run_calls(Workers(2), divmod, [(n, 3) for n in range(9)]))
    assert results == {n: divmod(n, 3) for n in range(9)}
    assert dict(run_calls(Workers(1), os.getppid, [()])) == {0: os.getpid()}
    assert dict(run_calls(Workers(2), os.getpid, [])) == {}


# Of what is called in another process, that process has to find the module.
FUNCTIONS = """
import os, time

def slow_first(folder, number):
    (folder / str(number)).touch()
    time.sleep(0.3 if number == 0 else 0)
    return number

def ends(folder, number, times):
    'Ends its process the first so many times that it is called with the number.'
    for time_ in range(times):
        mark = folder / f"{number}-{time_}"
        if not mark.exists():
            mark.touch()
            os._exit(9)
    return number
"""


@pytest.fixture(scope="module")
def functions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("modules")
    (folder / "functions_for_workers.py").write_text(FUNCTIONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("functions_for_workers")


def test_in_order_whoever_is_slow_and_few_at_a_time(tmp_path, functions):
    slow_first = functions.slow_first
    calls = [(tmp_path, number) for number in range(30)]
    results = run_calls(Workers(2), slow_first, calls, ordered=True)
    assert next(results) == (0, 0)
    time.sleep(0.3)
    assert len(list(tmp_path.iterdir())) <= 8  # what nobody has taken yet is not piled up
    assert list(results) == [(number, number) for number in range(1, 30)]


def test_each_has_one_thread():
    assert [value for _, value in run_calls(Workers(1), os.getenv, [(name,) for name in ONE_THREAD])] == list(
        ONE_THREAD.values()
    )


def test_an_error_is_that_of_the_function():
    with pytest.raises(np.linalg.LinAlgError):
        list(run_calls(Workers(1), np.linalg.inv, [(np.zeros((2, 2)),)]))


def test_what_a_killed_process_was_at_is_done_again(tmp_path, functions):
    calls = [(tmp_path, number, int(number in (2, 5))) for number in range(8)]
    assert sorted(run_calls(Workers(2), functions.ends, calls)) == [(number, number) for number in range(8)]


def test_what_ends_its_process_again_and_again_is_given_up(tmp_path, functions):
    calls = [(tmp_path, number, 99 if number == 3 else 0) for number in range(6)]
    results = []
    with pytest.raises(WorkerDied, match="--workers") as died:
        results.extend(run_calls(Workers(2), functions.ends, calls, ordered=True))
    assert died.value.call == 3
    assert [number for number, _ in results] == [0, 1, 2]
    assert len(list(tmp_path.iterdir())) == 3  # once beside others, twice alone


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_any_executor_will_do(kind, tmp_path, monkeypatch):
    options = {"mp_context": multiprocessing.get_context("spawn")} if kind is ProcessPoolExecutor else {}
    with kind(2, **options) as executor:
        monkeypatch.chdir(tmp_path)  # after its processes may have started
        (tmp_path / "here").touch()
        workers = GivenExecutor(executor)
        assert workers.count == 2
        assert sorted(run_calls(workers, os.path.exists, [("here",), ("there",)])) == [(0, True), (1, False)]
        if kind is ProcessPoolExecutor:
            assert dict(run_calls(workers, os.getenv, [("TF_NUM_INTRAOP_THREADS",)])) == {0: "1"}
        assert executor.submit(os.getpid).result()  # it is not ours to end


def test_a_given_executor_that_breaks_is_one_line(tmp_path, functions):
    with (
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor,
        pytest.raises(UserError, match="executor is broken"),
    ):
        list(run_calls(GivenExecutor(executor), functions.ends, [(tmp_path, 0, 99)]))


def test_an_interrupt_while_a_process_starts_leaves_none(monkeypatch):
    """The moment between the start of a process and its being known to the pool: it used to wait for ever."""
    from joblib.externals.loky.backend.process import LokyProcess

    start = LokyProcess.start

    def interrupted(self):
        start(self)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)

    monkeypatch.setattr(LokyProcess, "start", interrupted)
    before = set(multiprocessing.active_children())
    with pytest.raises(KeyboardInterrupt):
        list(run_calls(Workers(2), time.sleep, [(0.1,)] * 4))
    deadline = time.monotonic() + 20
    while (left := set(multiprocessing.active_children()) - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


def state(pid: int) -> tuple[str, int] | None:
    """State and parent of a process, as in proc(5); None where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], int(fields[1])


def children(pid: int) -> list[int]:
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [candidate for candidate in pids if (status := state(candidate)) and status[1] == pid]


def running(pid: int) -> bool:
    return (status := state(pid)) is not None and status[0] != "Z"


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
