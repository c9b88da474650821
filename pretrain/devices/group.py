"""A process group: rank 0 runs the loop as if it were alone, and the other ranks do each step with it.

Just before rank 0 does anything that all must do together (make the method, take these numbers, do a step), it
announces it through a collective operation that the others wait in. So decisions based on the clock, memory or a
monitor are taken once, unknown to the loop. The same operation carries the others' reports (asked to stop, slices
unreadable) back.

JAX detects a lost process: a collective operation fails, or heartbeats are missed and JAX ends the process. All must
then be restarted.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import json
import os
import platform
import signal
import sys
import traceback
from collections.abc import Generator, Iterator, Mapping
from types import TracebackType
from typing import Any

import numpy as np

from mri_transfer import progress
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.errors import UserError
from mri_transfer.machine import device
from mri_transfer.options import as_dict
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.devices.membership import Membership
from mri_transfer.pretrain.devices.sharding import SeveralDevices, ShardedTrainer
from mri_transfer.pretrain.fit.out_of_memory import REMEDY, is_out_of_memory, remember_fewer
from mri_transfer.pretrain.pairs.positives import Batch, PairSampler, read_ahead
from mri_transfer.pretrain.run.continuing import FREE_TO_CHANGE
from mri_transfer.pretrain.run.stop_signals import Interrupts
from mri_transfer.pretrain.run.trainer import Trainer

# Timeouts: for the last process to join, for a heartbeat, and for the others at the end.
GATHERING_SECONDS, HEARTBEAT_SECONDS, LEAVING_SECONDS = 300, 30, 30
# Sizes per rank, in bytes of JSON, of an exchange and of the first one; and of an error's line, in characters, each of
# which may be a control character in a file's name, which takes six bytes.
WORDS, ALL_SETTINGS, LINE = 4096, 1 << 15, 400
# Other versions of these may compute different numbers.
SAME_VERSIONS = ("mri-transfer", "keras", "jax")
AGAIN = "run the same command again on every host, it"

Words = dict[str, Any]


class ProcessGroup(SeveralDevices):
    """One process of several. Once entered, it has found the others, and they agree on what to do.

    Args:
        config, store: the run's.
        membership: this process's.
        interrupts: stop requests from the user or the system.
    """

    def __init__(
        self, config: PretrainConfig, store: SliceStore, membership: Membership, interrupts: Interrupts
    ):
        self.config, self._store, self._membership, self._interrupts = config, store, membership, interrupts
        self.rank = membership.rank
        self._together = False  # in a joint operation, so others may be waiting for this process
        self._ended = False
        self._memory_was_short = False

    def __enter__(self) -> ProcessGroup:
        _connect(self._membership)
        try:
            super().__init__()
            self._agree()
            self.share(self.config.batch)
        except UserError:  # all processes raise it
            self._leave()
            raise
        return self

    def _agree(self) -> None:
        """Check that all have the same settings, slices and versions.

        Raises:
            UserError: they don't; all ranks say the same.
        """
        settings = {f"--{name.replace('_', '-')}": value for name, value in as_dict(self.config).items()}
        for name in FREE_TO_CHANGE:
            del settings[f"--{name.replace('_', '-')}"]
        versions = device.versions()
        facts = {
            **settings,
            **{f"the version of {name}": versions.get(name) for name in SAME_VERSIONS},
            "the content of the slice store": self._store.fingerprint[:12],
        }
        first, *others = self.exchange({"host": platform.node(), "about": facts}, ALL_SETTINGS)
        for rank, other in enumerate(others, 1):
            differences = [
                f"{name} is {other['about'].get(name)} there, {value} in process 0"
                for name, value in first["about"].items()
                if other["about"].get(name) != value
            ]
            if differences:
                raise UserError(
                    f"process {rank} ({other['host']}) belongs to a different run ({'; '.join(differences)}); all "
                    "need the same settings, slices and package"
                )

    # -- joint operations

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Wraps a joint operation; after an error in it, the other ranks can't be reached."""
        self._together = True
        try:
            yield
        except (RuntimeError, OSError, MemoryError) as error:  # JAX's own are RuntimeErrors
            self._memory_was_short = is_out_of_memory(error)
            why = " ".join(str(error).split())[:LINE]
            why = "out of memory" if self._memory_was_short else f"another process may be gone ({why})"
            raise UserError(f"process {self.rank}: {why}") from error
        self._together = False

    def exchange(self, words: Words, most: int = WORDS) -> list[Words]:
        """Gather a JSON value from every rank, by rank; `most` bytes each, the same for all."""
        from jax.experimental import multihost_utils

        text = json.dumps(words, ensure_ascii=False).encode(errors="replace")
        assert len(text) <= most, text
        with self.together():
            rows = multihost_utils.process_allgather(np.frombuffer(text.ljust(most), np.uint8))
        return [json.loads(bytes(row)) for row in np.asarray(rows)]

    def say(self, do: str, **more: Any) -> None:
        """Rank 0 announces the next operation and collects the others' problems.

        Raises:
            UserError: one of them can't go on.
        """
        if self.rank:
            return  # it knows
        for rank, answer in enumerate(self.exchange({"do": do, **more})[1:], 1):
            if answer.get("failed"):
                raise UserError(f"process {rank}: {answer['failed']}; {AGAIN} continues from the last save")
            self._interrupts.asked |= answer["asked"]

    def of_rank_0(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Broadcast rank 0's arrays; names and shapes are the same everywhere."""
        from jax.experimental import multihost_utils

        flat = np.concatenate(
            [np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in arrays.values()]
        )
        with self.together():
            flat = np.asarray(multihost_utils.broadcast_one_to_all(flat))
        parts = np.split(flat, np.cumsum([array.nbytes for array in arrays.values()])[:-1])
        return {
            name: np.frombuffer(piece.tobytes(), array.dtype).reshape(array.shape)
            for (name, array), piece in zip(arrays.items(), parts, strict=True)
        }

    # -- rank 0

    def trainer(self, *arguments: Any, **options: Any) -> Trainer:
        trainer = GroupTrainer(*arguments, devices=self, **options)
        trainer.assign(trainer.arrays())  # all begin with this process's numbers
        return trainer

    # -- the others

    def follow(self, config: PretrainConfig, sampler: PairSampler) -> dict[str, Any]:
        self._interrupts.patient = True  # rank 0 saves before all end
        trainer: GroupTrainer | None = None
        batches: Generator[Batch, None, None] | None = None
        batch: Batch = {}
        steps, failed = 0, None
        while True:
            self._interrupts.tell()
            message = self.exchange({"asked": self._interrupts.asked, "failed": failed})[0]
            if message["do"] == "end":
                break
            if failed:
                continue  # rank 0 has just learnt of it, and ends
            if message["do"] == "make":
                trainer = None  # frees its memory
                gc.collect()
                trainer = GroupTrainer(config, encoder=None, devices=self, **message["arguments"])
                continue
            assert trainer is not None
            if message["do"] == "assign":
                trainer.assign(trainer.arrays())
                batches = read_ahead(sampler, int(trainer.optimizer.iterations))
            else:
                trainer.step(batch, message["rate"], message["share"])
                steps += 1
            assert batches is not None
            try:
                batch = next(batches)
            except (OSError, UserError) as error:
                failed = f"slices can't be read any more ({' '.join(str(error).split())[:LINE]})"
        self._ended = True
        if message["code"] == 130:
            raise KeyboardInterrupt
        if message["code"]:
            raise UserError(message["line"])
        progress.say(f"process {self.rank} of {self.processes}: done, {steps} steps; process 0 writes")
        return {"process": self.rank, "processes": self.processes, "steps": steps}

    # -- the end

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        code = 0 if error is None else 130 if isinstance(error, KeyboardInterrupt) else 2
        line = " ".join(str(error or "").split())
        if self.rank == 0 and not self._together:
            with contextlib.suppress(UserError):  # one is gone by now
                self.exchange({"do": "end", "code": code, "line": line[:LINE]})
                self._ended = True
        if self._ended or error is None:
            return self._leave()
        # The others, and JAX, are in the middle of an operation: an orderly exit is impossible.
        if self._memory_was_short and self.rank == 0:
            fewer = None
            with contextlib.suppress(Exception):
                fewer = remember_fewer(self.config.out, self.config.batch)
            line += f"; {AGAIN} continues with {fewer} pairs at once" if fewer else f"; {REMEDY}"
        elif code == 2:
            line += f"; {AGAIN} continues from the last save"
        if code == 2 and not isinstance(error, UserError):
            traceback.print_exception(error)
        print(
            f"mri-transfer pretrain: {progress.visible(line) or 'interrupted'}", file=sys.stderr, flush=True
        )
        sys.stdout.flush()
        os._exit(code)

    def _leave(self) -> None:
        import jax

        with contextlib.suppress(Exception):
            jax.distributed.shutdown()


class GroupTrainer(ShardedTrainer):
    """The trainer of rank 0, which announces what it does, or of another rank; arguments as for ShardedTrainer."""

    devices: ProcessGroup

    def _compose(self, start: Any, size: int, micro_batch: int | None) -> None:
        arguments = {"backbone": self.backbone, "size": size, "micro_batch": micro_batch}
        self.devices.say("make", arguments={**arguments, "precision": self.precision})
        super()._compose(start, size, micro_batch)

    def assign(self, arrays: dict[str, np.ndarray]) -> None:
        self.devices.say("assign")
        super().assign(self.devices.of_rank_0(arrays))

    def step(self, batch: Mapping[str, Any], rate: float, share: float) -> float:
        """As for :class:`Trainer`; the loss is over all rows."""
        self.devices.say("step", rate=rate, share=share)
        with self.devices.together():
            return super().step(batch, rate, share)


def _connect(membership: Membership) -> None:
    """Let JAX find the other processes.

    Raises:
        UserError: they don't join, or the coordinator's address is invalid.
    """
    import jax

    for name, value in (
        ("jax_cpu_collectives_implementation", "gloo"),
        ("jax_enable_preemption_service", False),  # it would intercept SIGTERM
    ):
        with contextlib.suppress(AttributeError, ValueError):  # not in every version
            jax.config.update(name, value)
    options: dict[str, Any] = {
        "initialization_timeout": GATHERING_SECONDS,
        "heartbeat_timeout_seconds": HEARTBEAT_SECONDS,
        "shutdown_timeout_seconds": LEAVING_SECONDS,
        "cluster_detection_method": "deactivate",  # the rank is known; a process uses all devices it sees
    }
    if membership.coordinator.startswith(("127.", "localhost")):
        options["coordinator_bind_address"] = membership.coordinator  # otherwise it listens on all interfaces
    parameters = inspect.signature(jax.distributed.initialize).parameters
    rank, processes = membership.rank, membership.processes
    progress.say(f"process {rank} of {processes} waits for the others at {membership.coordinator}")
    try:
        jax.distributed.initialize(
            coordinator_address=membership.coordinator,
            num_processes=processes,
            process_id=rank,
            **{name: value for name, value in options.items() if name in parameters},
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"--coordinator {membership.coordinator}: the {processes} processes did not find each other "
            f"({' '.join(str(error).split())[:LINE]}); start all within {GATHERING_SECONDS // 60} minutes, with an "
            "address of process 0's host whose port is free and let through"
        ) from None
    for number in (signal.SIGINT, signal.SIGTERM):  # in case JAX replaced one after all
        signal.signal(number, signal.getsignal(number))
