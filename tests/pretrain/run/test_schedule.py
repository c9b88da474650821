import datetime
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mri_transfer.errors import UserError
from mri_transfer.machine.hardware import EARLIEST_SANE_CLOCK
from mri_transfer.pretrain.run.schedule import Budget, next_moment, warmup_cosine


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def test_warmup_rises_linearly_then_falls_along_a_cosine():
    assert warmup_cosine(0.0, 0.1) == 0
    assert warmup_cosine(0.05, 0.1) == pytest.approx(0.5)
    assert warmup_cosine(0.1, 0.1) == pytest.approx(1)
    assert warmup_cosine(0.55, 0.1) == pytest.approx(0.5)
    assert warmup_cosine(1.0, 0.1) == pytest.approx(0, abs=1e-12)
    assert warmup_cosine(0.0, 0.0) == 1


@given(st.floats(0, 1), st.floats(0, 0.9))
def test_the_rate_stays_within_its_peak(progress, warmup):
    assert 0 <= warmup_cosine(progress, warmup) <= 1 + 1e-12


@given(
    seconds=st.floats(60, 1e5),
    step=st.floats(0.05, 3),
    slowdown=st.floats(0.4, 2.5),
    stops=st.lists(st.floats(0.1, 0.9), max_size=3),
    finishing=st.floats(0, 3),
    compiling=st.floats(0, 20),
)
def test_a_time_budget_is_kept_whatever_the_speed_and_the_interruptions(
    seconds, step, slowdown, stops, finishing, compiling
):
    step = min(max(step, seconds / 400), seconds / 60)
    clock = Clock()
    budget = Budget(steps=None, seconds=seconds, clock=clock)
    n, stops, shares, length = 0, sorted(stops), [], step + compiling
    while not budget.is_over(n):
        shares.append(budget.progress(n))
        clock.now += length
        if length != step + compiling:
            budget.note_step(length)
        budget.finishing = finishing
        length = step if budget.elapsed() < seconds / 2 else step * slowdown
        n += 1
        if stops and budget.elapsed() > stops[0] * seconds:  # killed, and continued an hour later
            before, stops = {"share": budget.progress(n), "step_seconds": budget.step_seconds}, stops[1:]
            elapsed = budget.elapsed()
            clock.now += 3600
            budget = Budget(steps=None, seconds=seconds, spent=elapsed, clock=clock, **before)
            budget.finishing = finishing
    delay = budget.elapsed() + finishing - seconds
    assert delay <= 0.02 * seconds
    assert (
        -delay <= max(0.02 * seconds, length - 0.015 * seconds) + 1e-6
    )  # a step of over 3.5% may not fit any more
    assert shares == sorted(shares)
    # So the rate has come down: the last step begins with what a schedule counted in steps would give it.
    assert 1 - 2.5 * length / seconds - 0.03 < shares[-1] <= 1


def test_the_share_grows_evenly_while_nothing_changes():
    clock = Clock()
    budget = Budget(steps=None, seconds=100, clock=clock)
    for second in range(100):
        assert budget.progress(0) == pytest.approx(second / 100)
        clock.now += 1


@given(st.floats(0.05, 0.95), st.floats(10, 1000))
def test_a_shorter_end_bends_the_schedule_and_does_not_break_it(share, left):
    """A run with --until that was off for a while: the rest of the schedule is laid over the rest of the time."""
    clock = Clock()
    budget = Budget(steps=None, seconds=5000 + left, spent=5000, share=share, clock=clock)
    assert budget.progress(0) == share
    clock.now += left / 2
    assert budget.progress(0) == pytest.approx((1 + share) / 2)
    clock.now += left / 2 + 1e-6
    assert budget.progress(0) == pytest.approx(1)
    assert budget.is_over(0)


def test_an_end_that_has_passed_is_the_end():
    budget = Budget(steps=None, seconds=5000, spent=5000, share=0.7, clock=Clock())
    assert budget.is_over(9)
    assert budget.progress(9) == 0.7


def test_steps_of_ten_seconds_in_two_minutes_do_not_pass_the_end():
    clock = Clock()
    budget = Budget(steps=None, seconds=120, clock=clock)
    clock.now += 15  # starting and compiling
    n = 0
    while not budget.is_over(n):
        clock.now += 10
        budget.note_step(10)
        n += 1
    assert n == 10
    assert 110 <= budget.elapsed() <= 122.4


def test_room_for_the_last_save_is_kept():
    clock = Clock()
    budget = Budget(steps=None, seconds=100, clock=clock)
    budget.finishing = 10
    clock.now += 89.9
    assert not budget.is_over(5)
    assert budget.progress(5) == pytest.approx(89.9 / 90)
    clock.now += 0.2
    assert budget.is_over(5)


@pytest.mark.parametrize(("step", "over"), [(54.0, False), (56.0, True)])
def test_a_step_that_would_end_more_than_the_tolerance_late_is_not_begun(step, over):
    """At 960 of 1,000 seconds, ending now misses the budget by more than the step would; it may pass it by 1.5%."""
    clock = Clock()
    budget = Budget(steps=None, seconds=1000, clock=clock)
    budget.note_step(step)
    clock.now += 960
    assert budget.is_over(9) is over


@pytest.fixture
def berlin(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def unix(text):
    return datetime.datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("now", "until", "seconds"),
    [
        ("2026-11-24T23:00+01:00", "07:00", 8 * 3600),
        ("2026-11-24T06:59:30+01:00", "07:00", 30),
        ("2026-11-24T07:00+01:00", "07:00", 24 * 3600),
        ("2027-03-27T23:00+01:00", "07:00", 7 * 3600),  # summer time begins in that night
        ("2026-10-24T23:00+02:00", "07:00", 9 * 3600),  # and ends in this one
    ],
)
def test_until_is_the_next_such_moment_on_the_local_clock(berlin, now, until, seconds):
    moment = datetime.time.fromisoformat(until)
    assert next_moment(moment, unix(now)) - unix(now) == seconds


def test_a_clock_that_was_set_is_believed():
    assert next_moment(datetime.time(7), EARLIEST_SANE_CLOCK) > EARLIEST_SANE_CLOCK


def test_a_clock_that_was_never_set_is_refused():
    with pytest.raises(UserError, match=r"--until 07:00: .*the year 1970.*--hours"):
        next_moment(datetime.time(7), 3 * 3600)


def test_a_measurement_that_was_just_made_is_not_waited_for():
    """Ending now takes 2 seconds; after another step of 5 it would take 5 seconds more: whichever is nearer."""
    clock = Clock()
    budget = Budget(steps=None, seconds=240, clock=clock)
    budget.note_step(5.0)
    budget.finishing, budget.finishing_later = 2.0, 5.0
    clock.now += 230
    assert not budget.is_over(9)  # at 232, or at 242
    clock.now += 4
    assert budget.is_over(9)  # at 236, or at 246, which is too late


def test_steps_know_no_clock():
    clock = Clock()
    budget = Budget(steps=10, seconds=None, clock=clock)
    clock.now += 1e9
    assert budget.progress(5) == 0.5
    assert not budget.is_over(9)
    assert budget.is_over(10)
    assert math.isfinite(budget.remaining(5))


def test_what_remains_is_the_steps_not_yet_made_and_finishing():
    clock = Clock()
    budget = Budget(steps=10, seconds=None, clock=clock)
    assert budget.remaining(4) == 0  # no step was timed yet
    for seconds in (100.0, 1.0, 2.0, 3.0, 4.0, 5.0):  # the last five count
        budget.note_step(seconds)
    assert budget.step_seconds == 3
    budget.finishing = 2.5
    assert budget.remaining(4) == 6 * 3 + 2.5
    assert budget.remaining(10) == 2.5

    timed = Budget(steps=None, seconds=60, spent=20, clock=clock)
    clock.now += 15
    assert timed.remaining(4) == 25
    clock.now += 40
    assert timed.remaining(4) == 0


def test_a_budget_is_either_steps_or_seconds():
    with pytest.raises(ValueError, match="either"):
        Budget(steps=1, seconds=1.0)
