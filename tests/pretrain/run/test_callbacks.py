"""Callbacks are told what the metrics say, may end a run, and can't break it."""

from pathlib import Path
from types import SimpleNamespace

from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.run.callbacks import Callback, CallbackMonitor
from mri_transfer.pretrain.run.monitors import Monitors

CONFIG = PretrainConfig(store=Path("s"), out=Path("o"), steps=3)


class Notes(Callback):
    def __init__(self, last=None, fails_at=None):
        self.told, self.last, self.fails_at = [], last, fails_at

    def on_train_begin(self, logs):
        self.told.append(("begin", logs["config"]["steps"]))

    def on_step_end(self, step, logs):
        if step == self.fails_at:
            raise RuntimeError("no network")
        self.told.append((step, logs))
        self.stop_training = step == self.last

    def on_train_end(self, logs):
        self.told.append(("end", logs))


def view(metrics, loss, stopped=None):
    return lambda: SimpleNamespace(metrics=metrics, loss=loss, share=0.5, stopped=stopped)


def run(callback, metrics):
    """What the loop does with a monitor; a line of metrics is written after the second step."""
    monitors = Monitors([CallbackMonitor(callback, CONFIG, 1)], [])
    for step in (1, 2, 3):
        assert monitors.measure(view(metrics, 1 / step), step, lambda: 9.0) == {}
        if step == 2:
            metrics.append({"step": 2, "loss": 0.5, "score": 0.3})
        if monitors.enough:
            break
    monitors.finish(view(metrics, 0.0), step, 10.0)
    return monitors


def test_it_is_told_each_step_and_each_line_of_metrics_once():
    notes = Notes()
    run(notes, [])
    assert [name for name, _ in notes.told] == ["begin", 1, 2, 3, "end"]
    assert notes.told[0][1] == 3
    assert notes.told[2][1] == {"loss": 0.5, "seconds": 9.0, "share": 0.5}
    assert notes.told[3][1] == {"step": 2, "score": 0.3, "loss": 1 / 3, "seconds": 9.0, "share": 0.5}
    assert notes.told[4][1] == {"step": 2, "score": 0.3, "loss": 0.5, "stopped": None}


def test_it_may_end_the_run_and_that_is_no_fault():
    monitors = run(Notes(last=2), [])
    assert monitors.enough == "callback 1 (Notes)"
    assert monitors.stop is None


def test_one_that_fails_is_switched_off_and_the_run_goes_on(capfd):
    monitors = run(Notes(fails_at=2), [])
    assert monitors.active == []
    assert monitors.enough is None
    assert (
        "callback 1 (Notes): failed (RuntimeError: no network); the run continues" in capfd.readouterr().err
    )
