import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mri_transfer.pretrain.schedule import Budget, warmup_cosine


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
    seconds=st.floats(5, 1e5),
    step=st.floats(0.05, 3),
    slowdown=st.floats(0.5, 2),
    stops=st.lists(st.floats(0.1, 0.9), max_size=3),
)
def test_a_time_budget_is_kept_whatever_the_speed_and_the_interruptions(seconds, step, slowdown, stops):
    step = min(max(step, seconds / 400), seconds / 40)
    clock = Clock()
    budget = Budget(steps=None, seconds=seconds, clock=clock)
    n, trained, stops = 0, 0.0, sorted(stops)
    while not budget.is_over(n):
        length = step if trained < seconds / 2 else step * slowdown
        clock.now += length
        trained += length
        budget.note_step(length)
        n += 1
        assert budget.elapsed() == pytest.approx(trained)
        if stops and trained > stops[0] * seconds:  # killed, and continued an hour later
            stops.pop(0)
            clock.now += 3600
            budget = Budget(steps=None, seconds=seconds, spent=trained, clock=clock)
            budget.note_step(length)
    assert abs(trained - seconds) <= max(step, step * slowdown) + 1e-6


def test_room_for_the_last_save_is_kept():
    clock = Clock()
    budget = Budget(steps=None, seconds=100, clock=clock)
    budget.finishing = 10
    clock.now += 89.9
    assert not budget.is_over(5)
    assert budget.progress(5) == pytest.approx(89.9 / 90)
    clock.now += 0.2
    assert budget.is_over(5)


def test_steps_know_no_clock():
    clock = Clock()
    budget = Budget(steps=10, seconds=None, clock=clock)
    clock.now += 1e9
    assert budget.progress(5) == 0.5
    assert not budget.is_over(9)
    assert budget.is_over(10)
    assert math.isfinite(budget.remaining(5))


def test_a_budget_is_either_steps_or_seconds():
    with pytest.raises(ValueError, match="either"):
        Budget(steps=1, seconds=1.0)
