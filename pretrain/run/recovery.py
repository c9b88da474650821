"""Handles a night's accidents: non-finite numbers, lack of memory, vanished slices."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np

from mri_transfer import progress
from mri_transfer.errors import UserError
from mri_transfer.pretrain.fit.out_of_memory import REMEDY, smaller

if TYPE_CHECKING:
    from mri_transfer.pretrain.run.loop import Loop


def lost_slices(loop: Loop, error: Exception) -> UserError:
    """The error to raise when a batch can no longer be read; the training is saved."""
    loop.save_now()
    reason = getattr(error, "strerror", None) or str(error)
    place = getattr(error, "filename", None) or loop.store.folder
    return UserError(
        f"{place}: slices can't be read any more ({reason}); {loop.position.step} steps are saved. Bring the store "
        "back and run the same command again to continue"
    )


def go_back(loop: Loop, problem: str, at: int) -> None:
    """On the first divergence, the run goes back to its last state with half the rate; on the second, it ends there.

    Args:
        loop: its steps since then are undone.
        problem: a clause naming the non-finite numbers.
        at: step at which they were seen, counted from 1.
    """
    position = loop.position
    position.diverged.append(at)
    arrays, step = _last_saved(loop)
    loop.trainer.assign(arrays)
    if len(position.diverged) > 1:
        steps = " and ".join(f"step {number}" for number in position.diverged)
        loop.stopped = (
            f"diverged: numbers were not finite at {steps}, the second time with half the learning rate. "
            "Start again with another --out and a lower --learning-rate"
        )
    else:
        position.rate_scale /= 2
        progress.say(f"{problem} at step {at}: going back to step {step} with half the learning rate")
    loop.loss = None
    _begin_again(loop, step)


def encode_fewer(loop: Loop) -> None:
    """After a step ran out of memory: continue with half as many pairs at once.

    Raises:
        UserError: there are too few already.
    """
    trainer, at_once = loop.trainer, loop.trainer.micro_batch or loop.config.batch
    fewer = smaller(trainer.micro_batch, loop.config.batch)
    step = loop.position.step
    try:
        arrays = trainer.arrays()
    except Exception:  # JAX donates arrays to a step, which failed
        arrays, step = _last_saved(loop)
    if fewer is None:
        with contextlib.suppress(Exception):  # this may run out of memory too
            loop.save_now()
        raise UserError(f"{loop.config.out}: out of memory with {at_once} pairs at once; {REMEDY}")
    progress.say(f"out of memory with {at_once} pairs at once: continuing with {fewer}")
    trainer.build(micro_batch=fewer, arrays=arrays)
    _begin_again(loop, step)


def _last_saved(loop: Loop) -> tuple[dict[str, np.ndarray], int]:
    """The newest state on disk, and its step."""
    from mri_transfer.checkpoints.state import load_state

    loop.saver.wait()
    saved = load_state(loop.saver.state)
    assert saved is not None  # every run begins with a save
    return saved[0], saved[1]["step"]


def _begin_again(loop: Loop, step: int) -> None:
    """Undo lines after `step`, to be redone; a resumed run must still know why."""
    loop.position.step = step
    loop.batches.close()
    with contextlib.suppress(OSError):  # if the disk is full, undone lines stay until the next start
        loop.metrics.drop_after(step)
    loop.begin()
    loop.save()
