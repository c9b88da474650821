"""This process's rank, and the number of processes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

from mri_transfer.errors import UserError
from mri_transfer.pretrain.config import PretrainConfig

# Environment variables that launchers set: number of processes, and rank. (JAX would look these up itself, but assumes
# one GPU per process.)
LAUNCHERS = (
    ("SLURM_NTASKS", "SLURM_PROCID"),
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("PMI_SIZE", "PMI_RANK"),
)


@dataclasses.dataclass(frozen=True)
class Membership:
    """Membership of one process in a group that trains together.

    Attributes:
        coordinator: host and port of rank 0's JAX.
        processes: size of the group.
        rank: this one's, from 0.
    """

    coordinator: str
    processes: int
    rank: int


def membership_of(config: PretrainConfig, environment: Mapping[str, str] = os.environ) -> Membership | None:
    """From the options, or from SLURM or MPI where numbers are left out; None for a single process.

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
    processes, rank = config.processes, config.process
    for size_name, rank_name in LAUNCHERS:
        if environment.get(size_name, "").isdigit() and environment.get(rank_name, "").isdigit():
            processes = int(environment[size_name]) if processes is None else processes
            rank = int(environment[rank_name]) if rank is None else rank
            break
    if processes is None or rank is None:
        missing = "--processes" if processes is None else "--process"
        raise UserError(
            f"{missing}: is required with --coordinator, unless SLURM or MPI starts the processes: how many "
            "there are (--processes 2), and which this one is (--process 0 or 1)"
        )
    if rank >= processes:
        raise UserError(f"--process {rank}: give a number from 0 to {processes - 1}")
    return Membership(config.coordinator, processes, rank) if processes > 1 else None
