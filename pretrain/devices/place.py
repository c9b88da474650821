"""Which of how many processes this one is."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

from mri_transfer.errors import UserError
from mri_transfer.pretrain.config import PretrainConfig

# What launchers tell each process that they start: how many there are, and which one it is.
LAUNCHERS = (
    ("SLURM_NTASKS", "SLURM_PROCID"),
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("PMI_SIZE", "PMI_RANK"),
)


@dataclasses.dataclass(frozen=True)
class Place:
    """One of several processes that train together.

    Attributes:
        host, port: where process 0 is to be found.
        processes: how many there are.
        process: which one this is, from 0; that one leads.
    """

    host: str
    port: int
    processes: int
    process: int

    @property
    def leads(self) -> bool:
        """Whether this process decides and writes."""
        return self.process == 0

    @property
    def address(self) -> str:
        """Where the others find process 0, as it was given."""
        return f"{self.host}:{self.port}"


def place_of(config: PretrainConfig, environment: Mapping[str, str] = os.environ) -> Place | None:
    """The place that options give, and SLURM or MPI where the numbers are left out; None for a process alone.

    Raises:
        UserError: something is missing or makes no sense.
    """
    if config.coordinator is None:
        for name in ("processes", "process"):
            if getattr(config, name) is not None:
                raise UserError(
                    f"--{name}: give --coordinator HOST:PORT too, the address at which the others find process 0"
                )
        return None
    processes, process = config.processes, config.process
    for size, rank in LAUNCHERS:
        if environment.get(size, "").isdigit() and environment.get(rank, "").isdigit():
            processes = int(environment[size]) if processes is None else processes
            process = int(environment[rank]) if process is None else process
            break
    if processes is None or process is None:
        missing = "--processes" if processes is None else "--process"
        raise UserError(
            f"{missing}: is needed beside --coordinator, unless SLURM or MPI starts the processes: how many "
            "there are (--processes 2), and which this one is (--process 0 or 1)"
        )
    if process >= processes:
        raise UserError(f"--process {process}: they are counted from 0 to {processes - 1} of {processes}")
    host, _, port = config.coordinator.rpartition(":")
    return Place(host, int(port), processes, process) if processes > 1 else None
