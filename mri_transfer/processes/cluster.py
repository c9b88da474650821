"""Work on a Dask cluster: the extra `[cluster]`."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Executor
from pathlib import Path
from typing import Any

from mri_transfer import __version__, progress
from mri_transfer.errors import UserError
from mri_transfer.machine import device
from mri_transfer.processes.workers import GivenExecutor, Workers

CONNECT_SECONDS = 10.0
LOOK_SECONDS = 5.0
# A batch system takes a while to replace a node.
WITHOUT_WORKERS_SECONDS = 300.0


class Cluster(GivenExecutor):
    """The processes of an existing Dask cluster.

    Args:
        client: of `dask.distributed`.
        address: for messages.
    """

    patience = LOOK_SECONDS

    def __init__(self, client: Any, address: str):
        from distributed import KilledWorker

        super().__init__(client.get_executor(pure=False), count=len(_workers_of(client)))
        self.client, self.address = client, address
        self.ended = (KilledWorker,)  # after several tries, each ending its worker
        self._seen_at = time.monotonic()

    def start(self, calls: int) -> Executor:
        self._seen_at = time.monotonic()
        return super().start(calls)

    def look(self) -> None:
        if self.client.status in ("closed", "closing", "connecting"):
            raise self.gone()
        # Dask reassigns a lost worker's task to another one.
        if _workers_of(self.client):
            self._seen_at = time.monotonic()
        elif time.monotonic() - self._seen_at > WITHOUT_WORKERS_SECONDS:
            raise UserError(
                f"--cluster {self.address}: has had no worker for {WITHOUT_WORKERS_SECONDS / 60:.0f} minutes; start "
                "some and run the same command again to continue"
            )

    def gone(self) -> UserError:
        """The error for a scheduler that no longer answers."""
        return UserError(
            f"--cluster {self.address}: the scheduler is gone; start it and run the same command again to continue"
        )


@contextlib.contextmanager
def connect(address: str, folders: Sequence[Path]) -> Iterator[Workers]:
    """Connect to a scheduler, and check that its workers can do the work.

    Args:
        address: such as "tcp://host:8786".
        folders: every worker must see these, at the same paths.

    Raises:
        UserError: Dask is not installed, no scheduler answers there, no worker is connected, or a worker has different
            versions or files.
    """
    try:
        from distributed import Client
    except ImportError:
        raise UserError(
            f"--cluster {address}: needs Dask; pip install 'mri-transfer[cluster]', or leave the option out"
        ) from None
    client: Any = None
    reason = "not a word of its protocol"

    def greet() -> None:
        nonlocal client, reason
        try:
            client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
        except Exception as error:  # a server of another kind may cause any error
            reason = " ".join(str(error).split()) or type(error).__name__

    # Dask's timeout covers only the connection; it would wait for an answer for ever.
    greeting = threading.Thread(target=greet, daemon=True)
    greeting.start()
    greeting.join(2 * CONNECT_SECONDS)
    if client is None:
        raise UserError(
            f"--cluster {address}: no Dask scheduler answers there ({reason[:200]}); start `dask scheduler`, and give "
            "the address that it prints"
        )
    with client:
        _check(client, address, folders)
        place = Cluster(client, address)
        progress.say(f"{place.count} worker processes on {address}")
        try:
            yield place
        except CancelledError:
            raise place.gone() from None


def _workers_of(client: Any) -> dict[str, Any]:
    try:
        return client.scheduler_info(n_workers=-1)["workers"]
    except TypeError:  # before 2025.1 it returns all of them anyway
        return client.scheduler_info()["workers"]


def _check(client: Any, address: str, folders: Sequence[Path]) -> None:
    def ask(function: Any, *arguments: Any) -> dict[str, Any]:
        """Every worker's answer, by its address; an error is an answer too."""
        return client.run(function, *arguments, on_error="return")

    def different(worker: str, problem: str, remedy: str) -> UserError:
        return UserError(f"--cluster {address}: worker {worker} {problem}; {remedy}")

    if not _workers_of(client):
        raise UserError(f"--cluster {address}: no worker is connected to it; start some with `dask worker`")
    try:
        client.get_versions(check=True)
    except ValueError as error:
        raise UserError(
            f"--cluster {address}: other versions of Dask or Python there; install the same ones "
            f"({' '.join(str(error).split())[:300]})"
        ) from None
    versions = device.versions()
    counts = [name for name in versions if name != "python" and (name != "jax" or _on_jax())]
    for worker, installed in ask(device.versions).items():
        if isinstance(installed, BaseException):
            raise different(
                worker, f"can't load mri-transfer ({installed})", f"install {__version__} there, as here"
            )
        for name in counts:  # mri-transfer among them
            if versions[name] != installed.get(name):
                raise different(
                    worker,
                    f"has {name} {installed.get(name, 'missing')} and this machine {versions[name]}",
                    "figures could differ, so all must have the same",
                )
    for folder in map(os.path.abspath, folders):
        for worker, exists in ask(os.path.exists, folder).items():
            if exists is not True:
                raise different(worker, f"does not see {folder}", "all need the same files at the same paths")
    _check_shared(client, address, folders, ask, different)


def _on_jax() -> bool:
    return os.environ.get("KERAS_BACKEND") == "jax"


def _check_shared(client: Any, address: str, folders: Sequence[Path], ask: Any, different: Any) -> None:
    """A folder of the same name on the worker's local disk is not the same folder."""
    writable = [
        Path(folder).absolute() for folder in folders if os.access(folder, os.W_OK) and Path(folder).is_dir()
    ]
    for folder in writable[:1]:
        mark = folder / f"cluster.{uuid.uuid4().hex[:8]}.part"
        mark.touch()
        try:
            answers = ask(os.path.exists, str(mark))
        finally:
            mark.unlink(missing_ok=True)
        for worker, exists in answers.items():
            if exists is not True:
                raise different(worker, f"has another {folder}", "it must be on a disk that all share")
