"""What is told while long work goes on: lines in a log, widgets in a notebook, nothing with --quiet."""

import sys
import types

import pytest

from mri_transfer import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that this module sets, for the bars of a log."""
    moment = types.SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: moment.seconds)
    monkeypatch.setattr(progress._Lines, "_time", lambda self: moment.seconds, raising=False)
    return moment


def work(clock, steps, seconds, total=None):
    """A bar over so many steps, each of so many seconds."""
    with progress.bar(total=total or steps, desc="slices", unit="slice") as bar:
        bar._time = lambda: clock.seconds
        bar.start_t = bar.last_print_t = clock.seconds
        for _ in range(steps):
            clock.seconds += seconds
            bar.update(1)


def test_a_log_gets_a_line_at_each_tenth(capsys, clock):
    work(clock, 1000, 2.0)
    output = capsys.readouterr().err
    lines = output.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"slices: {share}%" for share in range(10, 101, 10)]
    assert lines[1] == "slices: 20%, 200 of 1,000, 27 min left"
    assert "\r" not in output


def test_and_one_every_five_minutes_at_the_latest(capsys, clock):
    work(clock, 60, 60.0, total=10_000)
    assert len(capsys.readouterr().err.splitlines()) == 12


def test_what_is_soon_over_leaves_no_line(capsys, clock):
    work(clock, 1000, 0.02)
    assert capsys.readouterr().err == ""


def test_quiet_silences_the_lines(capsys, clock):
    progress.set_quiet(True)
    work(clock, 100, 100.0)
    assert capsys.readouterr().err == ""


def test_bytes_seconds_and_unknown_totals():
    with progress.bar(total=8e9, desc="download", unit="B", unit_scale=True) as bar:
        bar.n = 2e9
        assert bar.line().startswith("download: 25%, 2 GB of 8 GB")
    with progress.bar(total=28800, desc="pretrain", unit="s") as bar:
        bar.n = 7200
        bar.set_postfix_str("step 12, loss 3.1", refresh=False)
        assert bar.line().startswith("pretrain: 25%, 2.0 h of 8.0 h, step 12, loss 3.1, ")
    with progress.bar(desc="headers", unit="file") as bar:
        bar.n = 4000
        assert bar.line() == "headers: 4,000"


def test_a_notebook_gets_widgets(monkeypatch):
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    from tqdm.auto import tqdm

    with progress.bar(total=3, desc="slices", unit="slice") as bar:
        assert isinstance(bar, tqdm)
        assert not isinstance(bar, progress._Lines)
