"""What a run trains with: one device, all devices of this machine, or those of several processes."""

from __future__ import annotations

import contextlib
import inspect
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from mri_transfer import progress
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.errors import UserError
from mri_transfer.machine import device
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.devices import greeting, native
from mri_transfer.pretrain.devices.channel import (
    HEARTBEAT_SECONDS,
    SILENCE_SECONDS,
    Connection,
    Message,
    Watch,
    packed,
)
from mri_transfer.pretrain.devices.place import Place
from mri_transfer.pretrain.fit.out_of_memory import MARKER, REMEDY, is_out_of_memory, remember_fewer
from mri_transfer.pretrain.pairs.positives import PairSampler
from mri_transfer.pretrain.run.interrupts import Interrupts
from mri_transfer.pretrain.run.trainer import Trainer

if TYPE_CHECKING:
    import numpy as np

    from mri_transfer.pretrain.devices.sharding import Devices
    from mri_transfer.pretrain.run.saving import Saver

AGAIN = "run the same command again on every host, it"
AGAIN_INTERRUPTED = f"interrupted; {AGAIN} continues"
# A process that is told of the end while it waits for another one, in C++, has this long to take notice.
NOTICE_SECONDS = 10.0
# What JAX waits for the others to leave too.
LEAVING_SECONDS = 30


class Team:
    """A process alone, with one device or several.

    Args:
        devices: of JAX that share each batch; None for one.

    Attributes:
        leads: whether this process runs the loop and writes; the others :meth:`follow`.
        processes: how many there are.
        splits: as of the trainers that it makes.
        saver: of the run, once there is one.
    """

    leads, processes, splits = True, 1, True

    def __init__(self, devices: Devices | None = None):
        self.devices = devices
        self.saver: Saver | None = None

    def trainer(self, *arguments: Any, **options: Any) -> Trainer:
        """A trainer for whatever there is; arguments as of :class:`Trainer`."""
        if self.devices is None:
            return Trainer(*arguments, **options)
        from mri_transfer.pretrain.devices.team_trainer import ParallelTrainer

        return ParallelTrainer(*arguments, devices=self.devices, **options)

    def dismiss(self, stopped: str | None = None) -> None:
        """The training is over; what is left to do is done alone.

        Args:
            stopped: why it ended early, if it did.
        """

    def follow(self, config: PretrainConfig, sampler: PairSampler) -> dict[str, Any]:
        """Do as the process that leads; returns a summary."""
        raise NotImplementedError


@contextlib.contextmanager
def together(
    config: PretrainConfig, store: SliceStore, place: Place | None, interrupts: Interrupts
) -> Iterator[Team]:
    """Whatever this run trains with.

    Args:
        config, store: of the run.
        place: of this process among several.
        interrupts: what the user or the system asks for.

    Raises:
        UserError: processes don't find one another or don't agree, devices can't share the batch, or the backend
            can't do it.
    """
    backend = device.prepare()
    if place is not None and backend != "jax":
        raise UserError(
            "--processes: Keras trains in several processes on JAX only, and this one uses TensorFlow; "
            "set KERAS_BACKEND=jax (pip install 'mri-transfer[jax]')"
        )
    if place is not None:
        with Several(config, store, place, interrupts) as team:
            yield team
        return
    if backend == "jax":
        import jax

        if jax.device_count() > 1:
            from mri_transfer.pretrain.devices.sharding import Devices

            devices = Devices()
            devices.check(config.batch)
            progress.say(f"{devices.count} devices share each batch")
            yield Team(devices)
            return
    else:
        from mri_transfer.pretrain.devices import mirrored

        if len(names := mirrored.gpus()) > 1:
            sharing = mirrored.MirroredTeam(config, names)
            progress.say(f"{len(names)} devices share each batch")
            yield sharing
            return
    yield Team()


class Several(Team):
    """One of several processes. Entered, it has found the others; an error of any of them is told to all.

    Args:
        config, store, place, interrupts: as of :func:`together`.
    """

    def __init__(self, config: PretrainConfig, store: SliceStore, place: Place, interrupts: Interrupts):
        super().__init__()
        self.config, self.place, self._interrupts = config, place, interrupts
        self._about = greeting.about(config, store)
        self.leads, self.processes = place.leads, place.processes
        self._hosts: dict[int, str] = {}
        self._orders: queue.Queue[tuple[Message, bytes]] = queue.Queue()
        self._watch: Watch
        self._asked = False
        self._trainer: Any = None
        self._ending = threading.Lock()
        self._taken = threading.Event()  # the end that this process was told of
        self._dismissed = False
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Several:
        place, batch = self.place, self.config.batch
        if batch % place.processes:
            raise UserError(
                f"--batch {batch}: can't be shared out evenly among {place.processes} processes; give a multiple"
            )
        connections: dict[int, Connection]
        if self.leads:
            connections, self._hosts, address = greeting.gather(place, self._about)
        else:
            connection, host, address = greeting.join(place, self._about)
            connections, self._hosts = {0: connection}, {0: host}
        for each in connections.values():
            each.wait_for(SILENCE_SECONDS)
        self._watch = Watch(connections, self._heard, self._lost, self._pulse)
        try:
            # An abort is explained by the thread that watches, which then ends the process.
            self._open.enter_context(native.held_back(lambda: time.sleep(3.0)))
            self._start_jax(address)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        progress.say(
            f"process {place.process} of {place.processes}: all are there, {self.devices.count} devices share "  # type: ignore[union-attr]
            "each batch"
        )
        return self

    def _start_jax(self, address: str) -> None:
        import jax

        from mri_transfer.pretrain.devices.sharding import Devices

        for name, value in (
            ("jax_cpu_collectives_implementation", "gloo"),
            ("jax_enable_preemption_service", False),  # it would take SIGTERM for itself
        ):
            with contextlib.suppress(AttributeError, ValueError):  # not in every version
                jax.config.update(name, value)
        known = inspect.signature(jax.distributed.initialize).parameters
        options = {
            "cluster_detection_method": "deactivate",  # the place is known; and a process uses all that it sees
            "coordinator_bind_address": address,
            "shutdown_timeout_seconds": LEAVING_SECONDS,
        }
        host, _, port = address.rpartition(":")
        if not host.startswith(greeting.LOOPBACK):
            options["coordinator_bind_address"] = f"0.0.0.0:{port}"
        jax.distributed.initialize(
            coordinator_address=address,
            num_processes=self.place.processes,
            process_id=self.place.process,
            **{name: value for name, value in options.items() if name in known},
        )
        for number in (signal.SIGINT, signal.SIGTERM):  # in case JAX took one after all
            signal.signal(number, signal.getsignal(number))
        self.devices = Devices()
        self.devices.check(self.config.batch)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.dismiss()
            elif not self._dismissed:
                self._tell_of(error)
        finally:
            self._watch.close()
            self._open.close()

    def _tell_of(self, error: BaseException) -> None:
        """All end with this one. After an interrupt of the training in order; else at once, wherever they are."""
        interrupted = isinstance(error, KeyboardInterrupt)
        if self._taken.is_set():  # process 0 wants it so, and waits for this one
            self._leave_jax()
        elif interrupted and self.leads and self._trainer is not None and not self._trainer.in_step:
            self._watch.release()
            self._watch.send({"do": "end", "in_order": True, "code": 130, "line": ""})
            self._leave_jax()
        else:
            expected = isinstance(error, (KeyboardInterrupt, UserError, OSError))
            if not expected:
                traceback.print_exception(error)
            line = " ".join(str(error).split()) if expected else f"{type(error).__name__}: {error}"
            self._watch.release()
            if not self.leads:
                self._watch.send({"say": "interrupted" if interrupted else "failed", "line": line})
            self._end(AGAIN_INTERRUPTED if interrupted else line, 130 if interrupted else 2)

    def _leave_jax(self) -> None:
        import jax

        with contextlib.suppress(Exception):
            jax.distributed.shutdown()

    def dismiss(self, stopped: str | None = None) -> None:
        if self._dismissed:
            return
        self._dismissed = True
        if self.leads:
            line = f"ended early, {stopped}" if stopped else ""
            self._watch.release()
            self._watch.send({"do": "end", "in_order": True, "code": 2 if stopped else 0, "line": line})
        self._leave_jax()
        self._watch.close()

    # -- the process that leads

    def trainer(self, *arguments: Any, **options: Any) -> Trainer:
        from mri_transfer.pretrain.devices.team_trainer import ParallelTrainer

        assert self.devices is not None
        self._trainer = ParallelTrainer(
            *arguments, devices=self.devices, tell=self._tell, failed=self._failed, **options
        )
        return self._trainer

    def _tell(self, message: Message, arrays: dict[str, np.ndarray] | None) -> None:
        self._watch.send(message, b"" if arrays is None else packed(arrays))

    def _failed(self, error: Exception) -> None:
        """A step has failed here. If another process is gone, the thread that watches says so and ends this one."""
        if is_out_of_memory(error):
            self._out_of_memory(f"process 0 ({self._hosts[0]})")
        time.sleep(SILENCE_SECONDS + HEARTBEAT_SECONDS)

    def _out_of_memory(self, who: str) -> NoReturn:
        """All end, since the others are in the middle of the step; the next start takes fewer pairs at once."""
        fewer = None
        if self.saver is not None:
            self.saver.wait()
            with contextlib.suppress(Exception):
                fewer = remember_fewer(self.config.out, self.config.batch)
        then = f"{AGAIN} goes on with {fewer} pairs at once" if fewer else REMEDY
        self._end(f"{who}: out of memory; {then}")

    def _continues(self) -> str:
        """What comes of the same command, in words."""
        from mri_transfer.checkpoints.state import load_state

        if not self.leads:
            return f"{AGAIN} continues from the last save"
        found = None
        with contextlib.suppress(Exception):
            found = load_state(self.config.out / "state")
        return f"{AGAIN} continues at step {found[1]['step']}" if found else f"{AGAIN} begins again"

    # -- in the threads that listen

    def _heard(self, process: int, message: Message, payload: bytes) -> None:
        if self.leads:
            who = f"process {process} ({self._hosts[process]})"
            if message.get("say") == "asked" and self._interrupts.patient:
                self._interrupts.asked = True
            elif message.get("say") in ("asked", "interrupted"):
                self._end(f"{who} was interrupted; {self._continues()}")
            elif message.get("say") == "failed":
                if message.get("memory"):
                    self._out_of_memory(who)
                self._end(f"{who}: {message.get('line')}; {self._continues()}")
            return
        if message.get("do") != "end":
            self._orders.put((message, payload))
            return
        self._watch.release()
        if not message.get("in_order"):
            self._end(str(message["line"]), int(message["code"]))
        self._orders.put((message, payload))
        if not self._taken.wait(NOTICE_SECONDS):
            self._end(str(message["line"]), int(message["code"]) or 2)

    def _lost(self, process: int) -> None:
        self._end(f"process {process} ({self._hosts[process]}) is gone; {self._continues()}")

    def _pulse(self) -> Message | None:
        if self.leads or self._asked or not self._interrupts.asked:
            return None
        self._asked = True
        return {"say": "asked"}

    def _end(self, line: str, code: int = 2) -> NoReturn:
        """Say it, tell the others, and end this process: its main thread may wait in C++ for one that is gone."""
        with self._ending:
            if self.leads:
                self._watch.send({"do": "end", "code": code, "line": line})
                with contextlib.suppress(OSError):
                    (self.config.out / MARKER).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                print(f"mri-transfer pretrain: {line}", file=sys.stderr, flush=True)
            os._exit(code)

    # -- the others

    def follow(self, config: PretrainConfig, sampler: PairSampler) -> dict[str, Any]:
        from mri_transfer.pretrain.devices.team_trainer import follow

        assert self.devices is not None
        self._interrupts.patient = True  # process 0 saves before all end
        try:
            steps = follow(config, sampler, self.devices, self._taken_orders())
        except (UserError, KeyboardInterrupt):
            raise
        except Exception as error:
            if is_out_of_memory(error):
                self._watch.send({"say": "failed", "memory": True})
            elif isinstance(error, OSError):
                self._watch.send({"say": "failed", "line": " ".join(str(error).split())})
            # Process 0 says what all of it comes to; or another process is gone, and that is why this one failed.
            time.sleep(SILENCE_SECONDS + NOTICE_SECONDS + HEARTBEAT_SECONDS)
            raise
        progress.say(
            f"process {self.place.process} of {self.processes}: done, {steps} steps; process 0 writes"
        )
        return {"process": self.place.process, "processes": self.processes, "steps": steps}

    def _taken_orders(self) -> Iterator[tuple[Message, bytes]]:
        """Orders as they come in, until the last one.

        Raises:
            UserError, KeyboardInterrupt: all end for this reason.
        """
        while True:
            self._interrupts.tell()
            try:
                order, payload = self._orders.get(timeout=0.5)
            except queue.Empty:
                continue
            if order.get("do") != "end":
                yield order, payload
                continue
            self._taken.set()
            if order["code"] == 130:
                raise KeyboardInterrupt
            if order["code"]:
                raise UserError(order["line"])
            return
