"""When monitors are asked, how they are timed, and that they can't end a run by failing."""

import pytest

from mri_transfer import progress
from mri_transfer.pretrain.run.monitors import Monitors


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Fake:
    """Takes `takes` seconds every `every` steps."""

    name, used, stop, finish_seconds = "fake", 0.0, None, 3.0

    def __init__(self, clock, takes=1.0, every=10):
        self.clock, self.takes, self.every = clock, takes, every
        self.restored, self.measured, self.used_before = None, [], []

    def restore(self, lines):
        self.restored = list(lines)

    def due(self, run, at):
        self.used_before.append(self.used)
        return at["step"] % self.every == 0

    def measure(self, run, at):
        self.clock.now += self.takes
        self.measured.append(at["step"])
        return {"score": float(at["step"])}

    def finish(self, run, at):
        return {"sentence": f"healthy after {at['step']} steps"}


def run(monitors, clock, steps):
    figures = []
    for step in range(1, steps + 1):
        clock.now += 1
        figures.append(monitors.measure(lambda: None, step, clock))
    return figures


def test_a_monitor_is_asked_after_every_step_and_told_its_share_of_the_time():
    clock = Clock()
    fake = Fake(clock)
    monitors = Monitors([fake], [{"step": 1}], clock=clock)
    figures = run(monitors, clock, 20)
    assert fake.restored == [{"step": 1}]
    assert [f for f in figures if f] == [{"score": 10.0}, {"score": 20.0}]
    assert fake.measured == [10, 20]
    assert fake.used_before[9] == 0
    assert fake.used_before[10] == pytest.approx(1 / 12)  # one second of twelve
    assert monitors.seconds == {"fake": 2.0}
    # The last word; and after another step it measures once more.
    assert monitors.finishing_seconds(20) == (3.0, 1.0)
    assert monitors.finishing_seconds(21) == (4.0, 0.0)
    fake.again_seconds = 0.25  # it need not compile any more, but may if something changes first
    assert monitors.finishing_seconds(20) == (3.0, 0.25)
    assert monitors.finishing_seconds(21) == (4.0, 0.0)


def test_the_last_measurement_is_made_once():
    clock = Clock()
    fake = Fake(clock)
    monitors = Monitors([fake], clock=clock)
    run(monitors, clock, 15)
    assert monitors.measure(lambda: None, 15, clock, last=True) == {"score": 15.0}
    assert monitors.measure(lambda: None, 15, clock, last=True) == {}
    assert monitors.finish(lambda: None, 15, clock()) == {"sentence": "healthy after 15 steps"}


def test_time_taken_before_an_interruption_counts():
    clock = Clock()
    clock.now = 99.0
    fake = Fake(clock)
    run(Monitors([fake], seconds={"fake": 25.0, "gone": 3.0}, clock=clock), clock, 1)
    assert fake.used_before == [0.25]


@pytest.mark.parametrize("where", ["restore", "due", "measure", "finish"])
def test_a_failing_monitor_is_switched_off_and_the_others_go_on(where, monkeypatch):
    lines = []
    monkeypatch.setattr(progress, "say", lines.append)
    clock = Clock()

    class Failing(Fake):
        name = "failing"

    def fail(*_):
        raise ValueError("features\nhave no spread")

    failing, other = Failing(clock), Fake(clock)
    setattr(failing, where, fail)
    monitors = Monitors([failing, other], clock=clock)
    run(monitors, clock, 20)
    assert monitors.finish(lambda: None, 20, clock()) == {"sentence": "healthy after 20 steps"}
    assert other.measured == [10, 20]
    assert lines == ["failing: failed (ValueError: features have no spread); the run continues without it"]


def test_figures_that_json_cannot_hold_switch_the_monitor_off(monkeypatch):
    lines = []
    monkeypatch.setattr(progress, "say", lines.append)
    clock = Clock()
    fake = Fake(clock)
    fake.measure = lambda run, at: {"map": object()}
    assert not any(run(Monitors([fake], clock=clock), clock, 20))
    assert len(lines) == 1


def test_a_sentence_stops_the_run():
    fake = Fake(Clock())
    monitors = Monitors([fake], clock=fake.clock)
    assert monitors.stop is None
    fake.stop = "collapsed"
    assert monitors.stop == "collapsed"
