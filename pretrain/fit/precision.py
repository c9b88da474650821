"""Float32 or bfloat16? Whichever is faster here: measured when a run starts, not assumed.

bfloat16 halves memory traffic and uses the tensor cores of GPUs from Ampere on (including a Jetson Orin's). CPUs that
only emulate it are slower. Weights, updates, statistics and losses stay float32 either way (Keras's `mixed_bfloat16`),
and bfloat16 has float32's range, so no loss scaling is needed.
"""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mri_transfer.pretrain.run.trainer import Trainer

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
PRECISIONS = tuple(POLICIES)
# Measuring compiles two more graphs, about half a minute on a small CPU.
WORTH_SECONDS = 3600.0
# Halving the precision must gain more than the measurement's noise.
LEAST_GAIN = 1.1
STEPS = 3


@contextlib.contextmanager
def policy(precision: str) -> Iterator[None]:
    """Layers created inside compute in this precision."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(POLICIES[precision])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def measured(
    trainer_of: Callable[[str], Trainer], batch: Mapping[str, Any], seconds: float = 0.0
) -> dict[str, float]:
    """Seconds per step in each precision: the median of three or more after the compiling one.

    Args:
        trainer_of: makes a disposable trainer for a precision.
        batch: a method's input.
        seconds: minimum to spend on steps, all precisions together.
    """
    medians = {}
    for precision in PRECISIONS:
        trainer = trainer_of(precision)
        trainer.step(batch, 0.0, 0.0)
        times: list[float] = []
        while len(times) < STEPS or sum(times) < seconds / len(PRECISIONS):
            began = time.monotonic()
            trainer.step(batch, 0.0, 0.0)
            times.append(time.monotonic() - began)
        medians[precision] = statistics.median(times)
        del trainer
        gc.collect()
    return medians


def fastest(seconds: Mapping[str, float]) -> str:
    """The precision to use: bfloat16 if a step is at least a tenth faster."""
    return "bfloat16" if seconds["float32"] >= LEAST_GAIN * seconds["bfloat16"] else "float32"
