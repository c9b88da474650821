"""Jobs in threads: all done once, errors with their job, and no waiting for a thread that hangs."""

from __future__ import annotations

import threading
import time

import pytest

from mri_transfer.datasets.fetch.transfer import threads
from mri_transfer.datasets.fetch.transfer.threads import run_all


@pytest.mark.parametrize("parallel", [1, 3, 50])
def test_every_job_is_done_once(parallel):
    def work(job):
        if job % 5 == 0:
            raise ValueError(job)
        return job * 2

    done = {result.job: result for result in run_all(range(20), work, parallel, threading.Event())}
    assert set(done) == set(range(20))
    for job, result in done.items():
        if job % 5 == 0:
            with pytest.raises(ValueError, match=str(job)):
                result.result()
        else:
            assert result.result() == job * 2


def test_no_more_at_once_than_allowed():
    running, most, guard = [0], [0], threading.Lock()

    def work(job):
        with guard:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.01)
        with guard:
            running[0] -= 1

    list(run_all(range(12), work, 3, threading.Event()))
    assert most[0] == 3


def test_leaving_early_begins_no_further_job_and_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(threads, "_LEAVE", 0.1)
    starts, stop = [], threading.Event()

    def work(job):
        starts.append(job)
        if job == 1:
            time.sleep(30)

    results = run_all(range(100), work, 2, stop)
    next(results)
    start_time = time.monotonic()
    results.close()
    assert time.monotonic() - start_time < 5
    assert stop.is_set()
    count = len(starts)
    time.sleep(0.05)
    assert len(starts) <= count + 1
