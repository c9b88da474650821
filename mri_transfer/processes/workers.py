"""The same work on many items in other processes: on this machine, a Dask cluster, or any executor.

Every process computes on one thread. Sums are then taken in a fixed order, so results don't depend on the number or
place of processes; and several single-core processes get more done than one on several cores.
"""

from __future__ import annotations

import collections
import contextlib
import os
import platform
import signal
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from mri_transfer import progress
from mri_transfer.errors import UserError
from mri_transfer.machine import device, interrupts

Result = TypeVar("Result")

AHEAD = 3  # calls submitted per process: queued calls take memory
WATCH_SECONDS = 0.5
# TensorFlow, JAX and the BLAS libraries read these when they start.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
}
PASSED_ON = ("KERAS_BACKEND",)  # for processes started by someone else
XLA_ON_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


class WorkerDied(UserError):
    """A process ended without a result, and again when the call ran alone.

    Attributes:
        call: the number of the call it was running.
    """

    def __init__(self, call: int):
        super().__init__(
            "a worker process was ended by the system, mostly for lack of memory; run the same command again, with "
            "fewer --workers: what is done is kept"
        )
        self.call = call


class Workers:
    """Processes on this machine, started for the work and ended after it.

    Args:
        count: processes at a time; None for one per core.

    Attributes:
        asked: `count` as it was given.
    """

    patience: float | None = None  # interval in seconds between calls of :meth:`look`
    ended: tuple[type[BaseException], ...] = ()  # the call has ended its process

    def __init__(self, count: int | None = None):
        self.asked, self.count = count, count or device.cores()

    def start(self, calls: int) -> Executor:
        """An executor for `calls` calls."""
        # loky, which comes with joblib, because the standard library's pool reruns the user's script in each worker.
        from joblib.externals.loky import ProcessPoolExecutor

        # loky warns when it replaces a process whose memory has grown, as TensorFlow's does; users needn't know.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
        env = ONE_THREAD | {"XLA_FLAGS": _xla_flags()}
        processes = max(1, min(self.count, calls))
        # Otherwise it would start later, and let interrupts through afterwards (before Python 3.14).
        if os.name != "nt":
            from multiprocessing.resource_tracker import ensure_running

            ensure_running()
        with interrupts.held_back():
            return ProcessPoolExecutor(
                processes, env=env, initializer=_become_worker, initargs=(os.getpid(),)
            )

    def restart(self, executor: Executor, calls: int) -> Executor:
        """A new executor to replace a broken one."""
        self.stop(executor, finished=False)
        return self.start(calls)

    @property
    def lost(self) -> tuple[type[BaseException], ...]:
        """Errors raised when a process, and with it the pool, is gone: due to a call or from outside."""
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        return (TerminatedWorkerError,)

    @property
    def local(self) -> bool:
        """Whether they run on this machine, which then should not be overloaded."""
        return True

    def stop(self, executor: Executor, *, finished: bool) -> None:
        """End its processes, at once if their work is no longer wanted."""
        executor.shutdown(wait=finished, kill_workers=not finished)  # type: ignore[call-arg]

    def call(self, function: Callable[..., Any], arguments: tuple) -> tuple:
        """The function and arguments to submit so that a process does the call."""
        return function, *arguments

    def look(self) -> None:
        """Check that the workers are still there.

        Raises:
            UserError: they are not.
        """


class GivenExecutor(Workers):
    """The processes of an executor that the caller owns and will shut down.

    Args:
        executor: any `concurrent.futures` executor whose processes have this package and see the same files.
        count: calls it runs at a time.
    """

    def __init__(self, executor: Executor, count: int | None = None):
        super().__init__(count or getattr(executor, "_max_workers", None))
        self.executor = executor

    @property
    def lost(self) -> tuple[type[BaseException], ...]:
        return ()  # it can't be replaced

    @property
    def local(self) -> bool:
        return False

    def start(self, calls: int) -> Executor:
        return self.executor

    def stop(self, executor: Executor, *, finished: bool) -> None:
        pass

    def call(self, function: Callable[..., Any], arguments: tuple) -> tuple:
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        return _on_one_thread, _process(), environment, Path.cwd(), function, *arguments


@contextlib.contextmanager
def workers_for(
    count: int | None,
    *,
    executor: Executor | None = None,
    cluster: str | None = None,
    folders: Sequence[Path] = (),
) -> Iterator[Workers]:
    """Where to work: on a given executor, a Dask cluster, or processes of this machine.

    Args:
        count: processes of this machine, or calls that `executor` runs at a time; None for the default.
        executor: any `concurrent.futures` executor.
        cluster: address of a Dask scheduler.
        folders: the cluster's workers must see these.

    Raises:
        UserError: the cluster can't be used.
    """
    if executor is not None:
        yield GivenExecutor(executor, count)
    elif cluster:
        from mri_transfer.processes.cluster import connect

        with connect(cluster, folders) as workers:
            yield workers
    else:
        yield Workers(count)


def run_calls(
    workers: Workers, function: Callable[..., Result], calls: Sequence[tuple], *, ordered: bool = False
) -> Generator[tuple[int, Result], None, None]:
    """Call a function with each of many sets of arguments.

    When a process of this machine is killed, for lack of memory or by someone, the calls it may have been running are
    repeated one at a time. A call whose process is killed twice is given up.

    Args:
        workers: where.
        function: importable by name.
        calls: the arguments, picklable.
        ordered: whether to yield results in the order of the calls rather than of completion.

    Yields:
        The number of a call and its result. Only a few results are buffered.

    Raises:
        WorkerDied: a call was given up.
        UserError: a cluster is gone.
        Exception: what the function raised.
    """
    if not calls:
        return
    rest = collections.deque(range(len(calls)))
    waiting: dict[Future[Result], int] = {}
    suspected: dict[int, int] = {}  # calls to run alone, and how often each has ended a process that way
    finished = False
    executor = workers.start(len(calls))
    # Ctrl-C interrupts the main thread anywhere. Another thread starts the processes, so that it always finishes: an
    # untracked process would wait for work for ever, and this one for it.
    starter = ThreadPoolExecutor(1, thread_name_prefix="starting")
    try:
        while rest or waiting:
            try:
                while rest and _has_room(workers, rest[0], waiting, suspected):
                    number = rest[0]
                    handed = workers.call(function, calls[number])
                    waiting[starter.submit(_submit, executor, handed).result()] = number
                    rest.popleft()
                future = _next(workers, waiting, ordered)
                result = future.result()
            except workers.ended:
                raise WorkerDied(waiting[future]) from None
            except workers.lost:
                numbers = _redo(workers, waiting, suspected)
                rest.extendleft(reversed(numbers))
                executor = workers.restart(executor, len(calls))
                continue
            number = waiting.pop(future)
            suspected.pop(number, None)
            del future  # or it would keep its result alive while waiting for the next
            yield number, result
            del result
        finished = True
    except BrokenExecutor as error:
        if workers.local:  # something can't be pickled: a bug, not a user error
            raise
        raise UserError(f"the given executor is broken ({error}); create another and call again") from error
    finally:
        # Once work is given up, a second Ctrl-C must not leave half of it running.
        with contextlib.nullcontext() if finished else interrupts.held_back():
            starter.shutdown()
            workers.stop(executor, finished=finished)


def _submit(executor: Executor, handed: tuple) -> Future[Any]:
    with interrupts.held_back():
        return executor.submit(*handed)


def _has_room(workers: Workers, number: int, waiting: dict[Future[Result], int], suspected: dict) -> bool:
    """Whether another call may be submitted now."""
    at_work = [call for future, call in waiting.items() if not future.done()]
    if number in suspected or not suspected.keys().isdisjoint(at_work):
        return not at_work
    return len(waiting) < workers.count * AHEAD


def _next(workers: Workers, waiting: dict[Future[Result], int], ordered: bool) -> Future[Result]:
    """A finished call; if order matters, the first one submitted."""
    first = [min(waiting, key=waiting.__getitem__)] if ordered else list(waiting)
    while not (done := wait(first, timeout=workers.patience, return_when=FIRST_COMPLETED).done):
        workers.look()
    return min(done, key=waiting.__getitem__)


def _redo(workers: Workers, waiting: dict[Future[Result], int], suspected: dict[int, int]) -> list[int]:
    """The calls to repeat, in order; those finished before the process ended stay in `waiting`.

    Raises:
        WorkerDied: one of them has ended two processes that ran nothing else.
    """
    numbers = []
    for future, number in list(waiting.items()):
        if not (future.done() and not future.cancelled() and future.exception() is None):
            numbers.append(number)
            del waiting[future]
    if len(numbers) == 1 and numbers[0] in suspected:
        suspected[numbers[0]] += 1
        if suspected[numbers[0]] >= 2:
            raise WorkerDied(numbers[0])
    # Calls start in the order in which they were submitted.
    for number in numbers[: workers.count]:
        suspected.setdefault(number, 0)
    progress.say("a worker process was ended from outside; its work is repeated")
    return numbers


def _xla_flags() -> str:
    flags = os.environ.get("XLA_FLAGS", "")
    return flags if XLA_ON_ONE_THREAD in flags else f"{flags} {XLA_ON_ONE_THREAD}".strip()


def _become_worker(parent: int) -> None:
    """Silence output, and exit as soon as `parent` is gone."""
    # Ctrl-C reaches every process of a terminal; the parent ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    progress.set_quiet(True)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """A killed parent can't end its children; they notice that they have a new parent."""
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(1)


_ALONE = threading.Lock()


def _process() -> tuple[str, int]:
    return platform.node(), os.getpid()


def _on_one_thread(
    caller: tuple[str, int],
    environment: dict[str, str],
    folder: Path,
    function: Callable[..., Result],
    *arguments: Any,
) -> Result:
    """Run a call in a process not started for it: in the folder and on the single thread it expects.

    Calls given to several threads of one process run one after the other.
    """
    with _ALONE:
        if caller == _process():  # an executor of threads
            with threadpool_limits(1):
                return function(*arguments)
        before = Path.cwd()
        os.environ.update(
            environment | ONE_THREAD | {"XLA_FLAGS": _xla_flags()}
        )  # for libraries not yet loaded
        progress.set_quiet(True)
        os.chdir(folder)
        try:
            with threadpool_limits(1):
                return function(*arguments)
        finally:
            with contextlib.suppress(OSError):
                os.chdir(before)
