"""The monitor on runs of a tiny encoder: it changes nothing, costs what it may, and is right."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from keras import ops

from mri_transfer.checkpoints.state import model_arrays
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.health.monitor import MARK, PAGE, START, HealthMonitor, panel_size
from mri_transfer.pretrain.health.panel import Panel
from mri_transfer.pretrain.methods import METHODS
from mri_transfer.pretrain.methods.heads import unit


def same(a, b):
    a, b = (model_arrays(loop.method, loop.method.optimizer) for loop in (a, b))
    return all(np.array_equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def watched(small_loop):
    """A run of four steps that was measured three times."""
    return small_loop().run(4, HealthMonitor(), every=2)


def test_training_is_the_same_to_the_bit_with_and_without(watched, small_loop):
    plain = small_loop().run(4)
    assert same(plain, watched)
    assert plain.lines[-1]["loss"] == watched.lines[-1]["loss"]


def test_figures_are_json_of_the_same_slices_every_time(watched):
    measured = [line for line in json.loads(json.dumps(watched.lines)) if MARK in line]
    assert [line["step"] for line in measured] == [1, 2, 4]
    assert len({line[MARK] for line in measured}) == 1
    line = measured[0]
    assert {
        "knn_plane",
        "knn_position",
        "rankme",
        "spread",
        "uniformity",
        "alignment",
        "embedding_rank",
    } <= set(line)
    assert "knn_sequence" not in line  # the store has T1 only
    assert line["knn_plane_chance"] == pytest.approx(1 / 3, abs=0.05)
    expected = np.mean(
        [
            (line[f"knn_{n}"] - line[f"knn_{n}_chance"]) / (1 - line[f"knn_{n}_chance"])
            for n in ("plane", "position")
        ]
    )
    assert line["score"] == pytest.approx(expected, abs=1e-4)
    assert line["health"] == "too early to tell"
    # Measuring twice without a step between gives the same numbers: nothing moved.
    monitor = HealthMonitor()
    measurements = [monitor.measure(watched.view(), {"step": 4, "seconds": 4.0}) for _ in range(2)]
    assert measurements[0] == measurements[1]
    assert measurements[0]["rankme"] == measured[-1]["rankme"]


def view_of(loop, encoder, head, size=32):
    """What a monitor sees of a run whose method has been made anew."""
    view = loop.view()
    view.method = SimpleNamespace(encoder=encoder, head=head, chance=loop.method.chance)
    view.size = size
    return view


def test_a_changed_size_of_views_is_measured_on_the_same_slices(watched, make_encoder):
    monitor = HealthMonitor()
    before = monitor.measure(watched.view(), {"step": 4, "seconds": 4.0})
    rows = monitor._panel.rows
    larger = make_encoder(48)
    larger.set_weights(watched.method.encoder.get_weights())
    after = monitor.measure(view_of(watched, larger, watched.method.head, 48), {"step": 5, "seconds": 5.0})
    np.testing.assert_array_equal(monitor._panel.rows, rows)
    assert monitor._panel.images.shape[1] == 48
    assert after["knn_plane"] == pytest.approx(before["knn_plane"], abs=0.25)


def test_features_that_are_not_finite_are_divergence(watched, make_encoder):
    broken = make_encoder()
    broken.layers[2].kernel.assign(np.full(broken.layers[2].kernel.shape, np.nan))
    monitor = HealthMonitor()
    view = view_of(watched, broken, watched.method.head)
    figures = monitor.measure(view, {"step": 5, "seconds": 5.0})
    assert figures["finite"] is False
    assert figures["health"] == "diverged"
    json.dumps(figures, allow_nan=False)
    view.metrics = [*watched.lines, {"step": 5, "seconds": 5.0, "loss": 1.0, **figures}]
    assert monitor.finish(view, {"step": 5, "seconds": 5.0})["health"]["state"] == "diverged"
    assert "Diverged" in (watched.out / PAGE).read_text()


def test_a_method_without_a_head_is_judged_by_its_features(watched):
    view = view_of(watched, watched.method.encoder, None)
    figures = HealthMonitor().measure(view, {"step": 4, "seconds": 4.0})
    assert figures["embedding_spread"] > 0


def test_a_resumed_run_is_measured_on_the_same_slices_and_its_page_shows_the_start(small_loop):
    loop = small_loop().run(4, HealthMonitor(), every=2)
    features = dict(np.load(loop.out / START))["features"]
    monitor = HealthMonitor()
    monitor.restore(loop.lines)
    assert not monitor.due(loop.view(), {"step": 5, "seconds": 4.01})  # the start is known
    loop.run(2, monitor, every=2)
    assert loop.lines[-1]["resumed_from"] == 4
    np.testing.assert_array_equal(dict(np.load(loop.out / START))["features"], features)
    loop.finish(monitor)
    page = (loop.out / PAGE).read_text()
    assert "Interrupted after step 4" in page
    assert "At the start" in page
    assert "saving" in page
    assert "0.4%" in page
    (loop.out / START).write_bytes(b"torn")  # then the page goes without
    loop.finish(monitor)
    assert "At the start" not in (loop.out / PAGE).read_text()


def test_what_compiling_took_is_not_expected_of_the_next_measurement(watched, monkeypatch):
    clock = 0.0

    def lasts(name, *seconds):
        real, left = getattr(Panel, name), list(seconds)

        def method(*arguments):
            nonlocal clock
            clock += left.pop(0)
            return real(*arguments)

        monkeypatch.setattr(Panel, name, method)

    # Of 64 slices and of 32 pairs; the first two passes of slices are those that the number of slices is told from.
    lasts("features", 4.0, 1.0, 1.0, 1.0)
    lasts("embeddings", 6.0, 1.0)
    monkeypatch.setattr("mri_transfer.pretrain.health.monitor.time", SimpleNamespace(monotonic=lambda: clock))
    view, monitor = watched.view(), HealthMonitor()
    view.metrics = []  # so that no page is drawn
    for total in (12.0, 14.0):
        monitor.measure(view, {"step": 4, "seconds": 4.0})
        assert clock == total
        assert monitor.again_seconds == 2.0


def test_just_before_the_end_page_and_sentence_are_left_to_it(watched, tmp_path, capsys):
    view = watched.view()
    view.out, view.ending = tmp_path, True
    monitor = HealthMonitor()
    assert monitor.measure(view, {"step": 4, "seconds": 4.0})["finite"]
    (tmp_path / PAGE).unlink()  # the first one is written, for the budget must hold the next
    assert monitor.measure(view, {"step": 4, "seconds": 4.0})["finite"]
    assert not (tmp_path / PAGE).exists()
    assert "neighbours" not in capsys.readouterr().err
    assert "neighbours" in monitor.finish(view, {"step": 4, "seconds": 4.0})["sentence"]
    assert (tmp_path / PAGE).exists()


def test_a_page_that_cannot_be_written_ends_neither_run_nor_measuring(watched, tmp_path, capsys):
    view = watched.view()
    view.out = tmp_path / "gone"
    monitor = HealthMonitor()
    figures = monitor.measure(view, {"step": 4, "seconds": 4.0})
    assert figures["finite"]
    assert str(tmp_path / "gone" / PAGE) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("steps", "hours", "slice_seconds", "slices"),
    [
        (12, None, 0.01, 64),
        (100_000, None, 0.01, 1024),
        (1000, None, 0.01, 256),  # 16,000 views, of which 1.8% are 287 for three times: four chunks of 64
        (None, 8, 0.01, 1024),
        (None, 1 / 60, 0.01, 64),
        (None, 2 / 15, 0.01, 64),
        (None, 2 / 15, 0.005, 192),  # 480 s, of which 1.8% less 4 s, for three measurements of 206
        (None, 2 / 15, 0.0, 1024),
    ],
)
def test_small_budgets_are_measured_on_fewer_slices(steps, hours, slice_seconds, slices):
    config = PretrainConfig(store=Path("s"), out=Path("o"), steps=steps, hours=hours, batch=8)
    assert panel_size(SimpleNamespace(config=config), 1.0, slice_seconds, 0.5) == slices


def test_until_a_time_of_day_the_share_used_tells_the_budget():
    config = PretrainConfig(store=Path("s"), out=Path("o"), until="07:00")
    view = SimpleNamespace(config=config, share=0.1)
    assert panel_size(view, 48.0, 0.01, 0.5) == 64
    assert panel_size(view, 48.0, 0.005, 0.5) == 192  # of 480 seconds
    assert panel_size(view, 48.0, 0.005, 1.0) == 128  # graphs that took a second longer leave 162


def measured_at(monitor, budget, *, total, cost, first=None, done=0.0, spent=0.0):
    """Seconds at which a run of `total` seconds with steps of one second is measured, and the share that takes.

    `cost` gives the seconds that a measurement takes from those that have gone by; the pages at the end take three.
    """
    config = PretrainConfig(store=Path("s"), out=Path("o"), **budget)
    assert done or monitor.due(SimpleNamespace(config=config, share=0.0), {"step": 1, "seconds": 0.0})
    monitor._slices, monitor.finish_seconds = monitor._slices or 64, 3.0
    times, elapsed = [], done
    while elapsed < total:
        elapsed += 1.0
        monitor.used = spent / elapsed
        view, at = SimpleNamespace(config=config, share=elapsed / total), {"step": 1, "seconds": elapsed}
        if not (done or times) or monitor.due(view, at):
            took = first if first and not times else cost(elapsed)
            # Of the first one it is known what of it was for compiling.
            monitor.again_seconds, monitor._count, monitor._measured_at = (
                cost(elapsed),
                monitor._count + 1,
                elapsed,
            )
            times.append(elapsed)
            spent += took
            elapsed += took
    last = 0.0 if times and times[-1] + cost(elapsed) >= elapsed else cost(elapsed)
    return times, (spent + last + monitor.finish_seconds) / (elapsed + last + monitor.finish_seconds)


BUDGETS = pytest.mark.parametrize("budget", ["in time", "in steps"])


@BUDGETS
@pytest.mark.parametrize(
    ("total", "cost", "first", "at_least"),
    [
        (28_800, lambda at: 10.0, 30.0, 40),
        (28_800, lambda at: 10.0 if at < 14_400 else 20.0, 30.0, 30),  # a machine that gets slow
        (1800, lambda at: 4.0, 6.0, 4),
        (1080, lambda at: 3.5, 5.0, 2),
    ],
    ids=["a night", "a slow night", "half an hour", "a quarter of an hour"],
)
def test_measurements_are_spread_over_the_time_and_keep_to_their_share_of_it(
    budget, total, cost, first, at_least
):
    settings = {"hours": total / 3600} if budget == "in time" else {"steps": total}
    times, share = measured_at(HealthMonitor(), settings, total=total, cost=cost, first=first)
    assert at_least + 1 <= len(times) <= 55
    assert 0.013 < share < 0.02
    gaps = np.diff([*times, total])
    assert gaps.max() < 2.2 * np.median(gaps)
    assert times[1] < 0.36 * total


@BUDGETS
def test_a_resumed_run_goes_on_at_the_pace_it_had(budget):
    settings = {"hours": 0.5} if budget == "in time" else {"steps": 1800}
    monitor = HealthMonitor()
    monitor.restore([{"step": step, "seconds": step, MARK: 64} for step in (1, 300, 600)])
    times, share = measured_at(monitor, settings, total=1800, cost=lambda at: 4.0, done=700.0, spent=14.0)
    assert share < 0.02
    assert 850 < times[0] < 1100  # a third of 1,200 seconds after 600, for two are left before the last
    assert len(times) == 2


def test_what_no_longer_fits_before_the_end_is_not_begun():
    config = PretrainConfig(store=Path("s"), out=Path("o"), hours=0.1)
    monitor = HealthMonitor()
    monitor._slices, monitor.again_seconds, monitor._count = 64, 3.0, 1
    monitor.used = 3.0 / 300  # of 6.5 seconds another 3 are kept for the end
    view = SimpleNamespace(config=config, share=300 / 360)
    assert not monitor.due(view, {"step": 9, "seconds": 300.0})


class Collapsing(METHODS["simclr"].made):
    """Only the cosine of pairs, with a gradient on both sides: constant embeddings are the best answer."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        a, b = ops.split(y_pred, 2, axis=0)
        return -ops.mean(ops.sum(unit(a) * unit(b), axis=1))

    def chance(self, pairs):
        return None


COLLAPSING = dataclasses.replace(METHODS["simclr"], made_by=f"{__name__}:Collapsing")


@pytest.mark.slow
def test_a_collapsed_run_goes_on_if_told_to(small_loop):
    patient = HealthMonitor(keep_going=True)
    loop = small_loop(COLLAPSING, steps=160, learning_rate=1e-2).run(160, patient, every=40)
    assert loop.step == 160
    assert patient.stop is None
    assert patient.verdict.state == "collapsed"
    assert "Collapsed" in (loop.out / PAGE).read_text()


@pytest.mark.slow
def test_a_run_that_collapses_ends_early_with_code_2_and_all_its_files(
    small_store, cli, tmp_path, monkeypatch
):
    monkeypatch.setitem(METHODS, "simclr", COLLAPSING)
    monkeypatch.setattr("mri_transfer.pretrain.health.monitor.SHARE", 0.5)
    small = ("--batch", 8, "--size", 32, "--backbone", "mobilenet", "--learning-rate", 0.01)
    done = cli("pretrain", small_store, "--out", tmp_path / "run", "--steps", 2000, *small)
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "collapsed" in last
    assert "--learning-rate" in last
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["health"]["state"] == "collapsed"
    assert 100 <= summary["steps"] < 2000
    assert (tmp_path / "run" / "encoder" / "encoder.json").is_file()
    assert "Collapsed" in (tmp_path / "run" / PAGE).read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_run_that_learns_is_healthy_and_one_with_a_vanishing_rate_is_not_learning(small_loop):
    # Without views that hide anything, five textured heads are told apart soon.
    healthy = HealthMonitor()
    loop = small_loop(steps=200, batch=16, learning_rate=3e-3).run(200, healthy, every=50)
    summary = loop.finish(healthy)
    assert summary["health"]["state"] == "healthy", summary["sentence"]
    assert summary["health"]["end"]["loss_mean"] < summary["health"]["start"]["loss_mean"]
    idle = HealthMonitor()
    loop = small_loop(steps=200, batch=16, learning_rate=1e-9).run(200, idle, every=50)
    assert loop.finish(idle)["health"]["state"] == "not learning"
