"""TensorBoard logs of a run, in RUN/tensorboard: all numbers of metrics.jsonl as scalars.

metrics.jsonl is authoritative, and the logs follow it, without steps undone by a power cut or divergence. Each new
process therefore writes all kept lines to a new file and removes the older ones.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mri_transfer.pretrain.run.monitors import At, RunView

FOLDER = "tensorboard"
# Seconds between two writes; writing the lines of a minute takes milliseconds.
EVERY = 30.0
GROUPS = {
    "train": ("loss", "learning_rate", "share"),
    "speed": ("views_per_second", "data_wait"),
    "hardware": ("temperature", "cpu_", "gpu_", "memory", "power", "throttle"),
    "health": (
        *("knn_", "score", "spread", "uniformity", "rankme", "embedding_", "alignment"),
        *("loss_mean", "loss_sd", "loss_chance"),
    ),
}
_BEGINNING = "brain.Event:2"  # the format's version, in a file's first record


class TensorBoardLog:
    """A monitor that only records reports of the loop and other monitors."""

    name = "TensorBoard"

    def __init__(self) -> None:
        self.used, self.finish_seconds = 0.0, 0.1
        self.stop: str | None = None
        self._writer: Any = None
        self._written: list[Mapping[str, Any]] = []
        self._next = 0.0
        self._epoch = 0.0

    def restore(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """The first `measure` writes all lines again."""

    def due(self, run: RunView, at: At) -> bool:
        """Every half minute."""
        return at["seconds"] >= self._next

    def measure(self, run: RunView, at: At) -> dict[str, Any]:
        """Write new lines; adds no figures."""
        self._next = at["seconds"] + EVERY
        self._follow(run.out / FOLDER, run.metrics, at["seconds"])
        return {}

    def finish(self, run: RunView, at: At) -> dict[str, Any]:
        """Write the rest and close."""
        self._follow(run.out / FOLDER, run.metrics, at["seconds"])
        self._close()
        return {"tensorboard": str(run.out / FOLDER)}

    def _follow(self, folder: Path, lines: Sequence[Mapping[str, Any]], seconds: float) -> None:
        import tensorflow as tf

        try:
            count = len(self._written)
            if self._writer is None or list(lines[:count]) != self._written:
                self._begin(folder, seconds)
                count = 0
            for line in lines[count:]:
                self._write(line)
            self._written = list(lines)
            self._writer.flush()
        except (OSError, tf.errors.OpError):  # a full disk: next time all lines are written again
            self._close()

    def _close(self) -> None:
        import tensorflow as tf

        writer, self._writer, self._written = self._writer, None, []
        if writer is not None:
            with contextlib.suppress(OSError, tf.errors.OpError):
                writer.close()

    def _begin(self, folder: Path, seconds: float) -> None:
        """Start a new file, replacing all others."""
        import tensorflow as tf

        self._close()
        folder.mkdir(exist_ok=True)
        old = list(folder.glob("events.out.tfevents.*"))
        # So that the time axis is the budget's, excluding interruptions.
        self._epoch = time.time() - seconds
        # TensorBoard reads files in name order.
        name = f"events.out.tfevents.{time.time_ns() // 1000}.{socket.gethostname()}.{os.getpid()}"
        self._writer = tf.io.TFRecordWriter(os.fsencode(folder / name))
        self._event(0.0, file_version=_BEGINNING)
        for path in old:
            path.unlink(missing_ok=True)

    def _write(self, line: Mapping[str, Any]) -> None:
        from tensorflow.core.framework.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(line)]
        self._event(line["seconds"], step=line["step"], summary=Summary(value=values))

    def _event(self, seconds: float, **content: Any) -> None:
        from tensorflow.core.util.event_pb2 import Event

        self._writer.write(Event(wall_time=self._epoch + seconds, **content).SerializeToString())


def scalars(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Numbers of a metrics.jsonl line under grouped names, such as "health/rankme"; dictionaries are flattened."""
    for key, value in line.items():
        if key in ("step", "seconds"):
            continue
        if isinstance(value, Mapping):
            yield from scalars({f"{key}/{name}": item for name, item in value.items()})
        elif isinstance(value, (int, float)):
            yield f"{_group(key)}/{key}", float(value)


def _group(key: str) -> str:
    """The group with the longest prefix of this key."""
    fitting = [
        (len(start), group) for group, starts in GROUPS.items() for start in starts if key.startswith(start)
    ]
    return max(fitting)[1] if fitting else "run"
