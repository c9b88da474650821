"""Keras-style callbacks of a run, for use from Python, which receive the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mri_transfer.options import as_dict
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.run.monitors import At, RunView


class Callback:
    """Follows a pretraining run. Override what you need.

    A failing callback is switched off with a warning and never ends a night's run. With several processes, it is called
    in process 0.

    Attributes
    ----------
    stop_training : bool
        Set it to end the run after this step; the run then finishes as usual.
    """

    stop_training = False

    def on_train_begin(self, logs: dict[str, Any]) -> None:
        """Called before the first step, also when a run is continued.

        Parameters
        ----------
        logs : dict
            "config": the settings.
        """

    def on_step_end(self, step: int, logs: dict[str, Any]) -> None:
        """Called after every step, so it should be quick.

        Parameters
        ----------
        step : int
            Number of steps done.
        logs : dict
            "loss", "seconds" (of the budget used) and "share" (of the budget used, 0 to 1), all for this step; at the
            step after a metrics line was written, also that line's other entries: its "step", learning rate, views per
            second, "score" and other health figures.
        """

    def on_train_end(self, logs: dict[str, Any]) -> None:
        """Called at the end, also if the run ends early.

        Parameters
        ----------
        logs : dict
            The last line of metrics, and "stopped": why the run ended early, or None.
        """


class CallbackMonitor:
    """Wraps a callback as a monitor, which the loop times and outlives; see :class:`~.monitors.Monitor`."""

    stop: str | None = None
    finish_seconds = 0.0
    used = 0.0

    def __init__(self, callback: Callback, config: PretrainConfig, number: int):
        self.callback, self.config, self.lines = callback, config, 0
        self.name = f"callback {number} ({type(callback).__name__})"

    @property
    def enough(self) -> bool:
        """Whether the run may end."""
        return bool(self.callback.stop_training)

    def restore(self, lines: Sequence[Mapping[str, Any]]) -> None:
        self.lines = len(lines)
        self.callback.on_train_begin({"config": as_dict(self.config)})

    def due(self, run: RunView, at: At) -> bool:
        fresh = run.metrics[-1] if len(run.metrics) > self.lines else {}
        self.lines = len(run.metrics)
        values = {"loss": run.loss, "seconds": at["seconds"], "share": run.share}
        self.callback.on_step_end(at["step"], {**fresh, **values})
        return False

    def measure(self, run: RunView, at: At) -> dict[str, Any]:
        return {}

    def finish(self, run: RunView, at: At) -> dict[str, Any]:
        last = run.metrics[-1] if run.metrics else {}
        self.callback.on_train_end({**last, "stopped": run.stopped})
        return {}
