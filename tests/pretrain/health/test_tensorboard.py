"""The logs, read back with TensorFlow's own reader."""

from types import SimpleNamespace

import pytest

from mri_transfer.pretrain.health.tensorboard import FOLDER, TensorBoardLog, scalars


def read(folder):
    """Points by tag, as (step, value), in the order of the files; and the times of all steps."""
    import tensorflow as tf

    points, times = {}, {}
    for file in sorted(folder.glob("events.out.tfevents.*")):
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                points.setdefault(value.tag, []).append(
                    (event.step, pytest.approx(value.simple_value, rel=1e-6))
                )
                times[event.step] = event.wall_time
    return points, times


def lines(steps, loss=3.0):
    return [{"step": step, "seconds": 2.0 * step, "loss": loss + step} for step in steps]


def follow(log, out, metrics):
    at = {"step": metrics[-1]["step"], "seconds": metrics[-1]["seconds"]}
    log.measure(SimpleNamespace(out=out, metrics=metrics), at)


def test_every_line_is_there_once_and_at_once(tmp_path):
    log, metrics = TensorBoardLog(), lines(range(1, 4))
    follow(log, tmp_path, metrics)
    assert read(tmp_path / FOLDER)[0] == {"train/loss": [(1, 4.0), (2, 5.0), (3, 6.0)]}
    metrics += lines([4])
    metrics[-1] |= {"knn_plane": 0.5, "health": "healthy", "temperatures_c": {"cpu": 50.5}, "throttled": True}
    follow(log, tmp_path, metrics)
    points, times = read(tmp_path / FOLDER)
    assert points == {
        "train/loss": [(1, 4.0), (2, 5.0), (3, 6.0), (4, 7.0)],
        "health/knn_plane": [(4, 0.5)],
        "hardware/temperatures_c/cpu": [(4, 50.5)],
        "hardware/throttled": [(4, 1.0)],
    }
    assert times[4] - times[1] == pytest.approx(6.0)


def test_undone_steps_are_not_there_twice(tmp_path):
    """Neither after a kill, which another process continues, nor after the loop itself went back."""
    first, metrics = TensorBoardLog(), lines(range(1, 6))
    follow(first, tmp_path, metrics)
    second, records = TensorBoardLog(), metrics[:3]  # steps 4 and 5 were not saved
    second.restore(records)
    records += lines([4, 5], loss=7.0)
    follow(second, tmp_path, records)
    assert read(tmp_path / FOLDER)[0]["train/loss"] == [(1, 4.0), (2, 5.0), (3, 6.0), (4, 11.0), (5, 12.0)]
    records = [*records[:2], *lines([3, 4, 5, 6], loss=1.0)]
    follow(second, tmp_path, records)
    assert read(tmp_path / FOLDER)[0]["train/loss"] == [(1, 4), (2, 5), (3, 4), (4, 5), (5, 6), (6, 7)]
    assert len(list((tmp_path / FOLDER).iterdir())) == 1


def test_a_line_that_is_amended_is_written_again(tmp_path):
    log, metrics = TensorBoardLog(), lines([1, 2])
    follow(log, tmp_path, metrics)
    follow(log, tmp_path, [metrics[0], metrics[1] | {"rankme": 9.0}])
    points = read(tmp_path / FOLDER)[0]
    assert points == {"train/loss": [(1, 4.0), (2, 5.0)], "health/rankme": [(2, 9.0)]}


def test_finish_writes_what_is_left(tmp_path):
    log = TensorBoardLog()
    summary = log.finish(SimpleNamespace(out=tmp_path, metrics=lines([1])), {"step": 1, "seconds": 2.0})
    assert read(tmp_path / FOLDER)[0] == {"train/loss": [(1, 4.0)]}
    assert summary["tensorboard"] == str(tmp_path / FOLDER)


def test_names_are_grouped():
    line = {
        "step": 1,
        "seconds": 1,
        "loss": 1,
        "loss_mean": 2,
        "views_per_second": 3,
        "cpu_mhz": 4,
        "other": 5,
        "x": None,
    }
    assert dict(scalars(line)) == {
        "train/loss": 1, "health/loss_mean": 2, "speed/views_per_second": 3, "hardware/cpu_mhz": 4, "run/other": 5,
    }  # fmt: skip


def test_it_is_due_twice_a_minute(tmp_path):
    log = TensorBoardLog()
    assert log.due(None, {"step": 1, "seconds": 0.5})
    follow(log, tmp_path, [{"step": 1, "seconds": 100.0, "loss": 1.0}])
    assert [log.due(None, {"step": 2, "seconds": second}) for second in (101.0, 129.0, 130.0)] == [
        False,
        False,
        True,
    ]


def test_a_disk_that_is_full_for_a_while_loses_nothing(tmp_path):
    log, metrics = TensorBoardLog(), lines([1])
    (tmp_path / FOLDER).write_text("in the way")  # nothing can be written into it
    follow(log, tmp_path, metrics)
    (tmp_path / FOLDER).unlink()
    metrics += lines([2])
    follow(log, tmp_path, metrics)
    assert read(tmp_path / FOLDER)[0] == {"train/loss": [(1, 4.0), (2, 5.0)]}
