"""Saving in the background: order, what it may cost, and disks that are full."""

import contextlib
import errno
import threading
import time

import numpy as np
import pytest

from mri_transfer import progress
from mri_transfer.checkpoints.state import keep_newest, load_state, save_state
from mri_transfer.errors import UserError
from mri_transfer.pretrain.run import saving
from mri_transfer.pretrain.run.position import Position
from mri_transfer.pretrain.run.saving import Saver


def arrays(step, size=100_000):
    return {"model/0000/kernel": np.full(size, step, "float32")}


def info(step):
    return {"step": step, "seconds": float(step)}


def encoder_of(step, log=None):
    def write(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "encoder.txt").write_text(str(step))
        if log is not None:
            log.append((folder.parent.name, step))

    return write


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(progress, "say", lines.append)
    return lines


@pytest.fixture
def saver(tmp_path):
    with Saver(tmp_path, 1.0, Position()) as saver:
        yield saver


@pytest.fixture
def disk(small_disk):
    """A real file system of one megabyte: two states of 400 kB fit, a third does not."""
    return small_disk("1000k")


def test_state_encoder_and_best_are_written_in_the_order_they_were_asked_for(saver, tmp_path):
    log = []
    for step in range(1, 6):
        saver.save(arrays(step), info(step), encoder_of(step, log), copying=0.0)
        saver.save_best(encoder_of(step * 10, log), copying=0.0)
    saver.wait()
    run = tmp_path.name
    assert log == [pair for step in range(1, 6) for pair in ((run, step), ("best", step * 10))]
    assert load_state(tmp_path / "state")[1] == info(5)
    assert (tmp_path / "best" / "encoder" / "encoder.txt").read_text() == "50"


def test_training_goes_on_while_the_disk_is_busy_and_no_second_save_is_begun(saver):
    gate = threading.Event()
    saver.save(arrays(1), info(1), lambda folder: gate.wait(10) and None, copying=0.0)
    assert not saver.due(1e9)
    gate.set()
    saver.wait()
    assert saver.due(1e9)
    assert not saver.due(1.5)  # a second has not passed since it was saved
    assert saver.due(2.0)


def test_a_slow_machine_saves_less_often(tmp_path):
    """Whatever a save costs, it comes to at most 1% of the time."""
    saver = Saver(tmp_path, 1.0, Position())

    def slow(folder):
        deadline = time.thread_time() + 0.03
        while time.thread_time() < deadline:
            pass

    elapsed, spent_at = 0.0, []
    saver.save(arrays(0), info(0), slow, copying=0.1)
    saver.wait()
    while elapsed < 200:
        elapsed += 1.0
        if saver.due(elapsed):
            saver.save(arrays(1), {"step": 1, "seconds": elapsed}, slow, copying=0.1)
            saver.wait()
            spent_at.append(elapsed)
    assert len(spent_at) >= 5
    assert np.diff(spent_at).min() >= 13
    assert saver.spent == pytest.approx(0.13 * (len(spent_at) + 1), rel=0.3)
    assert saver.spent / elapsed < 0.012


def test_a_full_disk_warns_keeps_what_there_is_and_recovers(disk, said, monkeypatch):
    saver = Saver(disk, 1.0, Position())
    saver.save_now(arrays(1), info(1), None)
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    for step in (2, 3):
        saver.save(arrays(step), info(step), encoder_of(step), copying=0.0)
        saver.wait()
        assert load_state(disk / "state")[1] == info(1)
    assert len(said) == 2
    assert all("training continues" in line and "No space left" in line for line in said)
    filler.unlink()
    saver.save(arrays(4), info(4), encoder_of(4), copying=0.0)
    saver.wait()
    assert load_state(disk / "state")[1] == info(4)
    assert (disk / "encoder" / "encoder.txt").read_text() == "4"
    assert said[2:] == [f"{disk}: is saved again"]


def test_the_older_generation_makes_room_when_the_newest_is_good(disk, said):
    saver = Saver(disk, 1.0, Position())
    for step in range(1, 8):  # the third would not fit beside two
        saver.save_now(arrays(step), info(step), None)
        assert load_state(disk / "state")[1] == info(step)
    assert said == []


def test_the_older_generation_stays_when_the_newest_is_damaged(tmp_path):
    save_state(tmp_path, arrays(1), info(1))
    assert not keep_newest(tmp_path)  # the only one there is
    save_state(tmp_path, arrays(2), info(2))
    newest = tmp_path / "state-1.npz"
    newest.write_bytes(newest.read_bytes()[:-10])
    assert not keep_newest(tmp_path)
    assert load_state(tmp_path)[1] == info(1)


def test_a_disk_that_gives_back_other_bytes_is_not_believed(tmp_path, monkeypatch):
    """The state before it stays the newest, and the run hears of it as of any failed save."""
    from mri_transfer.storage import arrays as stored

    save_state(tmp_path, arrays(1), info(1))
    monkeypatch.setattr(stored, "sha256", lambda path: "0" * 64)
    with pytest.raises(OSError, match="read back") as error:
        save_state(tmp_path, arrays(2), info(2))
    assert error.value.errno == errno.EIO
    assert load_state(tmp_path)[1] == info(1)


def test_a_finished_run_waits_for_room(saver, said, monkeypatch, tmp_path):
    monkeypatch.setattr(saving, "RETRY_SECONDS", 0.01)
    tries = []

    def write():
        tries.append(1)
        if len(tries) < 4:
            raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "encoder"))

    saver.save_at_last(write, lambda: False)
    assert len(tries) == 4
    assert len(said) == 1
    assert "make room" in said[0]


def test_it_does_not_wait_for_ever_nor_against_the_user(saver, said, monkeypatch):
    def write():
        raise OSError(errno.EROFS, "Read-only file system", "/run/encoder")

    monkeypatch.setattr(saving, "PATIENCE_SECONDS", 0.2)
    with pytest.raises(
        UserError, match=r"/run/encoder: can't be written \(Read-only file system\); make room"
    ):
        saver.save_at_last(write, lambda: False)
    monkeypatch.setattr(saving, "PATIENCE_SECONDS", 60.0)
    with pytest.raises(KeyboardInterrupt):
        saver.save_at_last(write, lambda: True)


def test_other_errors_are_not_swallowed(saver):
    def broken(folder):
        raise ZeroDivisionError

    saver.save(arrays(1), info(1), broken, copying=0.0)
    with pytest.raises(ZeroDivisionError):
        saver.wait()
