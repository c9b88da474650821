"""The same work on many items in several processes, with results in the order of the items."""

from __future__ import annotations

import collections
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

_AHEAD = 3  # items a worker may be ahead of whoever takes the results, which wait in memory


class WorkerDied(Exception):
    """A process ended without a result. `items` are those it may have been working on."""

    def __init__(self, items: list[Any]):
        super().__init__(f"a worker process died with {len(items)} items in work")
        self.items = items


def in_order(
    work: Callable[[Item], Outcome], items: Sequence[Item], workers: int
) -> Generator[tuple[Item, Outcome], None, None]:
    """Every item with what became of it, in the given order, with few results waiting in memory.

    Args:
        work: picklable; called in a new process, or with one worker in this one.
        items: picklable.
        workers: processes; sums are done on one thread in each, so their order never depends on the number.

    Raises:
        WorkerDied: a process was killed, by the system for lack of memory or by someone.
    """
    workers = min(workers, len(items))
    if workers <= 1:
        with threadpool_limits(1):
            for item in items:
                yield item, work(item)
        return
    # "spawn" copies no state of this process, which may hold TensorFlow and its threads.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start)
    waiting: collections.deque[tuple[Item, Future[Outcome]]] = collections.deque()
    rest: Iterable[Item] = iter(items)
    try:
        while True:
            for item in rest:
                waiting.append((item, pool.submit(work, item)))
                if len(waiting) >= workers * _AHEAD:
                    break
            if not waiting:
                break
            item, future = waiting[0]
            outcome = future.result()
            waiting.popleft()
            del future  # or it would hold its result while the next is waited for
            yield item, outcome
            del outcome
    except BrokenProcessPool:
        raise WorkerDied([item for item, future in waiting if not _succeeded(future)]) from None
    finally:
        processes = list((getattr(pool, "_processes", None) or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        if waiting:  # stopped in the middle: don't wait for what nobody wants
            for process in processes:
                with contextlib.suppress(OSError):
                    process.terminate()


def _succeeded(future: Future[Any]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _start() -> None:
    """Set up a worker: one thread for sums, no traceback at Ctrl-C, no life after its parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threadpool_limits(1)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
