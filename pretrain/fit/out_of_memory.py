"""Out of memory: detected, remembered, and answered by encoding fewer pairs at once.

On a GPU, a step that runs out of memory raises an exception. On a CPU, or a board whose GPU shares the CPU's memory,
the kernel kills the process without warning. The next process learns of it from a marker in the run folder with the
kernel's count of such kills, which a power cut or `kill -9` does not raise.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mri_transfer.errors import UserError
from mri_transfer.machine import memory
from mri_transfer.storage.files import object_or_none, write_json, wrong_fields
from mri_transfer.words import size_in_words

MARKER = "running.json"
# Pairs; batch-normalisation statistics over fewer than eight views are mostly noise.
SMALLEST = 4
REMEDY = "give a smaller --batch or --size, or a smaller --backbone"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a Python, TensorFlow or JAX exception means out of memory."""
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("RESOURCE_EXHAUSTED" in text or "Out of memory" in text)


def smaller(micro_batch: int | None, batch: int) -> int | None:
    """Half as many pairs at once, or None if that would be too few.

    Args:
        micro_batch: pairs at once so far; None for the whole batch.
        batch: pairs in a step.
    """
    half = min(micro_batch or batch, batch) // 2
    return half if half >= SMALLEST else None


def largest_that_fits(
    bytes_with: Callable[[int | None], float], batch: int, limit: float | None
) -> int | None:
    """The most pairs at once (all, half of them, a quarter, ...) with which a step stays within `limit` bytes.

    Args:
        bytes_with: memory of a training, given its pairs at once.
        batch: pairs in a step.
        limit: in bytes; None if unknown.

    Returns:
        Pairs at once; None for the whole batch.

    Raises:
        UserError: not even the minimum fits.
    """
    micro_batch: int | None = None
    while limit is not None and (needed := bytes_with(micro_batch)) > limit:
        fewer = smaller(micro_batch, batch)
        if fewer is None:
            raise UserError(
                f"--batch {batch}: training needs about {size_in_words(needed)} and {size_in_words(limit)} may be "
                f"used; {REMEDY}, close other programs, or raise --memory"
            )
        micro_batch = fewer
    return micro_batch


def remember_fewer(out: Path, batch: int) -> int | None:
    """Halve the pairs that a run's next process encodes at once; returns the new number.

    Args:
        out: the run folder; nobody else may be saving there.
        batch: pairs in a step.
    """
    from mri_transfer.checkpoints.state import load_state, save_state

    state = load_state(Path(out) / "state")
    if state is None:
        return None
    arrays, info = state
    fewer = smaller(info.get("micro_batch"), batch)
    if fewer is not None:
        save_state(Path(out) / "state", arrays, {**info, "micro_batch": fewer})
    return fewer


class Marker:
    """A file that stays in the run folder while a process works on it, to find out how the process ended.

    Args:
        out: the run folder.
        root: root of the file system.

    Attributes:
        killed: once entered, whether the kernel seems to have killed the previous process for lack of memory: its
            marker is left, the machine has not been rebooted since, and the kernel has killed something.
    """

    def __init__(self, out: Path, root: Path = Path("/")):
        self.path, self.root = Path(out) / MARKER, root
        self.killed = False

    def __enter__(self) -> Marker:
        record = {"boot_id": memory.boot_id(self.root), "oom_kills": memory.oom_kills(self.root)}
        before = object_or_none(self.path)
        if before and not wrong_fields(before, {"oom_kills": int}) and isinstance(record["oom_kills"], int):
            self.killed = (
                before.get("boot_id") == record["boot_id"] and before["oom_kills"] < record["oom_kills"]
            )
        with contextlib.suppress(OSError):  # resuming on a full disk matters more
            write_json(self.path, {"pid": os.getpid(), **record})
        return self

    def __exit__(self, *_: Any) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
