"""Float32 or bfloat16? Whichever is faster here: measured when a run starts, not assumed.

bfloat16 halves memory traffic and uses the matrix units of GPUs from Ampere on (a Jetson Orin's among them). On
processors that only emulate it, it is slower. Weights, their updates, statistics and losses stay float32 in either
case (`mixed_bfloat16` of Keras), and bfloat16 has float32's range, so no loss has to be scaled.
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
# Measuring compiles two graphs more, half a minute or so on a small processor.
WORTH_SECONDS = 3600.0
# Half the digits are given up only for a gain that is more than the noise of the measurement.
LEAST_GAIN = 1.1
STEPS = 3


@contextlib.contextmanager
def policy(precision: str) -> Iterator[None]:
    """Layers made inside compute in this precision."""
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
    """Seconds that a step takes in each precision, the median of three or more after the one that compiles.

    Args:
        trainer_of: makes a trainer that may be spoilt, for a precision.
        batch: as a method takes it.
        seconds: to spend on steps at least, for all precisions together.
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
    """The precision to use: bfloat16 where a step is faster by a tenth at least."""
    return "bfloat16" if seconds["float32"] >= LEAST_GAIN * seconds["bfloat16"] else "float32"
