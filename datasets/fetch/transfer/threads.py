"""A few worker threads that can be abandoned at once."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

_LEAVE = 1.0  # seconds that threads get to finish by themselves
# Seconds between checks for a signal: one arriving just before a wait on the queue would not end the wait.
_LOOK = 0.5


class Stopped(Exception):
    """Somebody set the stop event."""


class Done(Generic[Job, Result]):
    """A job with its result, or the exception that it ended with."""

    def __init__(self, job: Job, result: Result | None, error: BaseException | None):
        self.job, self._result, self.error = job, result, error

    def result(self) -> Result:
        """The result; an error that the job ended with is raised here."""
        if self.error is not None:
            raise self.error
        return self._result  # type: ignore[return-value]


def run_all(
    jobs: Sequence[Job], work: Callable[[Job], Result], parallel: int, stop: threading.Event
) -> Generator[Done[Job, Result], None, None]:
    """Run all jobs, `parallel` at a time, and yield each as it finishes.

    If the consumer leaves early, `stop` is set and no further job starts. The threads are daemons: a pool's threads
    would keep Ctrl-C waiting for a silent server.
    """
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    results: queue.SimpleQueue[Done[Job, Result]] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)

    def labour() -> None:
        while not stop.is_set():
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                results.put(Done(job, work(job), None))
            except BaseException as error:
                results.put(Done(job, None, error))

    threads = [threading.Thread(target=labour, daemon=True) for _ in range(min(parallel, len(jobs)))]
    for thread in threads:
        thread.start()
    try:
        left = len(jobs)
        while left:
            try:
                result = results.get(timeout=_LOOK)
            except queue.Empty:
                continue
            left -= 1
            yield result
    finally:
        stop.set()
        latest = time.monotonic() + _LEAVE
        for thread in threads:
            thread.join(max(0.0, latest - time.monotonic()))
