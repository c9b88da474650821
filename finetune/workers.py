"""Trials in worker processes: as many at a time as there is room for, and none that outlives the comparison.

Each process computes on one thread. Sums are then taken in one order, so a trial's numbers do not depend on how many
trials run beside it; and several trials on one core each get more done than one on several, which wait for each other.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TypeVar

from mri_transfer import device, memory, progress
from mri_transfer.errors import UserError

Result = TypeVar("Result")
# Of a fine-tuning process at 160 px and 32 images a step: TensorFlow, weights, activations. An estimate.
TRIAL_BYTES = 2.5e9
WATCH_SECONDS = 0.5
# Read when TensorFlow, JAX and the BLAS libraries start.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
}
XLA_ON_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


def processes_for_training() -> int:
    """How many trainings run at a time by default: one a core, as far as memory goes; one where there is a GPU."""
    if device.has_gpu():
        return 1
    room = memory.available_bytes()
    return device.cores() if room is None else max(1, min(device.cores(), int(room / TRIAL_BYTES)))


def in_workers(
    function: Callable[..., Result], calls: Sequence[tuple], workers: int
) -> Iterator[tuple[int, Result]]:
    """Call a function with each of many arguments in worker processes.

    Args:
        function: importable by name.
        calls: the arguments, picklable.
        workers: processes at a time; with one the calls still have a process of their own, as this one's TensorFlow has
            all its threads already.

    Yields:
        The number of a call and its result, as they come.

    Raises:
        UserError: a process was ended from outside.
        Exception: what the function raised.
    """
    if not calls:
        return
    # loky, which joblib brings, as the standard library's pool runs a user's script again in each worker.
    from joblib.externals.loky import ProcessPoolExecutor
    from joblib.externals.loky.process_executor import BrokenProcessPool

    env = ONE_THREAD | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {XLA_ON_ONE_THREAD}".strip()}
    pool = ProcessPoolExecutor(
        min(workers, len(calls)), env=env, initializer=_become_worker, initargs=(os.getpid(),)
    )
    waiting: dict[Future[Result], int] = {}
    rest = iter(enumerate(calls))
    finished = False
    try:
        while True:
            # Few are handed over at a time: what waits in a queue takes memory.
            for number, call in itertools.islice(rest, 2 * workers - len(waiting)):
                waiting[pool.submit(function, *call)] = number
            if not waiting:
                break
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                number = waiting.pop(future)
                yield number, future.result()
        finished = True
    except BrokenProcessPool:
        raise UserError(
            "a worker process was ended by the system, mostly for lack of memory; run the same command again with "
            "fewer --workers: finished trials are kept"
        ) from None
    finally:
        pool.shutdown(wait=finished, kill_workers=not finished)


def _become_worker(parent: int) -> None:
    """Silence, and an end as soon as `parent` is gone."""
    # Ctrl-C reaches every process of a terminal; this one is ended by the parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    progress.set_quiet(True)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """A parent that was killed can't end its children; they see that they are another's now."""
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(1)
