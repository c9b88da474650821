"""What a night may bring, for real: kills, disks that fill up, terminals that close, clocks that jump.

The network is small, so that a process trains for seconds and not for hours; everything else is the program as it is.
MRI_TRANSFER_KILLS=50 kills more often than CI has time for.
"""

import contextlib
import json
import os
import pty
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from mri_transfer.checkpoints.encoders import read_card
from mri_transfer.checkpoints.state import load_state
from tests.forked import Forked
from tests.pretrain import small_network
from tests.pretrain.finished_runs import same

pytestmark = pytest.mark.slow

PROGRAM = Path(small_network.__file__)
SMALL = ("--batch", 4, "--size", 32, "--backbone", "mobilenet")
# Saves at every occasion, or nothing that was trained in these seconds would ever be saved.
SAVING_ALWAYS = "from mri_transfer.pretrain.run import saving; saving.SHARE = 1e9"
# A clock that was set back by 40 years, forth, and back again, while the process runs.
JUMPING = """
import time
real, calls = time.time, [0]
def jumping():
    calls[0] += 1
    return real() + (calls[0] % 3 - 1) * 40 * 365 * 86400
time.time = jumping
"""
KILLS = int(os.environ.get("MRI_TRANSFER_KILLS", "4"))
STEPS = max(800, 200 * KILLS)  # so that a run lives through them


def start(*arguments, first=""):
    """The command with the small network, and Python that is run before it."""
    return Forked(*arguments, first=f"{first}\n{small_network.USE}")


def finish(process):
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    return output


@pytest.fixture(autouse=True)
def small(monkeypatch):
    small_network.use(monkeypatch.setattr)  # for this process, which reads what the others wrote


@pytest.fixture(scope="module")
def undisturbed(small_store, tmp_path_factory):
    """A finished run, and the seconds that its process took until it trained."""
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    before = time.monotonic()
    finish(start("pretrain", small_store, "--out", out, "--steps", STEPS, *SMALL))
    seconds = time.monotonic() - before
    summary = json.loads((out / "summary.json").read_text())
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steady = STEPS / max(line["views_per_second"] for line in lines) * 8
    print(f"undisturbed: {seconds:.1f} s, of which training {steady:.1f} s, {summary['steps']} steps")
    return out, max(1.0, seconds - steady)


@pytest.fixture
def disk(small_disk):
    """A real file system of 12 MB, for a run whose state takes one."""
    return small_disk("12m")


@contextlib.contextmanager
def full(disk):
    """Another program takes all the room there is, and whatever becomes free, until the end of the block."""
    over = threading.Event()

    def fill():
        with (disk / "filler").open("wb", buffering=0) as file:
            while not over.wait(0.002):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(1 << 12))

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        (disk / "filler").unlink()


def wait_for(condition, process, seconds=240):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def saved_step(out):
    """Of the newest card, whole or not; 0 before the first."""
    cards = sorted((out / "state").glob("state-*.json"), key=lambda path: int(path.stem.split("-")[1]))
    try:
        return json.loads(cards[-1].read_text())["info"]["step"]
    except (IndexError, OSError, ValueError):
        return 0


def test_killed_at_random_moments_it_ends_with_the_same_bits(undisturbed, small_store, tmp_path):
    reference, startup = undisturbed
    chance = random.Random(2)  # of four kills the second comes during a start
    out = tmp_path / "run"
    arguments = ("pretrain", small_store, "--out", out, "--steps", STEPS, *SMALL, "--save-minutes", 1e-6)
    steps = []
    for _ in range(KILLS):
        start_time, before = time.monotonic(), saved_step(out)
        process = start(*arguments, first=SAVING_ALWAYS)
        if chance.random() < 0.4:  # while it starts, loads, compiles
            time.sleep(chance.uniform(0, startup))
        else:  # while it trains and saves
            wait_for(lambda before=before: saved_step(out) > before, process)
            startup = time.monotonic() - start_time
            time.sleep(chance.expovariate(1 / 0.2))
        if process.poll() is not None:
            break
        process.kill()
        process.communicate()
        steps.append(saved_step(out))
    print(f"{len(steps)} kills; steps saved at them: {steps}")
    finish(start(*arguments))
    assert steps == sorted(steps), "something saved was lost"
    assert len(steps) >= min(KILLS, 4), "the run was over before it was killed often"
    assert len(set(steps)) >= len(steps) / 4
    assert same(reference, out)
    numbers = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == STEPS


def test_a_disk_that_is_full_at_the_end_is_waited_for_and_the_same_command_finishes(
    undisturbed, small_store, disk
):
    out = disk / "run"
    arguments = ("pretrain", small_store, "--out", out, "--steps", STEPS, *SMALL)
    process = start(
        *arguments, first="from mri_transfer.pretrain.run import saving; saving.PATIENCE_SECONDS = 2"
    )
    wait_for(lambda: (out / "metrics.jsonl").is_file(), process)
    with full(disk):
        output = process.communicate(timeout=300)[0]
    assert process.returncode == 2, output
    last = output.strip().splitlines()[-1]
    assert "No space left" in last
    assert "run the same command again" in last
    finish(start(*arguments))
    assert same(undisturbed[0], out)


def test_no_room_in_any_temporary_folder(undisturbed, small_store, tmp_path):
    """In a name space of its own, where /tmp, /var/tmp and TMPDIR are full and the current folder takes no files."""
    if os.geteuid() or subprocess.run(["unshare", "-m", "true"]).returncode:
        pytest.skip("needs the right to mount")
    out = tmp_path / "run"
    lines = [
        "set -e",
        "mount -t tmpfs none /mnt; mkdir /mnt/tmp; mount --bind /tmp /mnt/tmp",
        "for d in /tmp /var/tmp; do mount -t tmpfs -o size=128k none $d; done",
        # What lies in its subfolders (perhaps this very checkout) is still there.
        'for d in /mnt/tmp/*/; do mkdir "/tmp/$(basename "$d")"; mount --bind "$d" "/tmp/$(basename "$d")"; done',
        "for d in /tmp /var/tmp; do head -c 200000 /dev/zero >$d/full 2>/dev/null || true; done",
        "cd /proc; export TMPDIR=/tmp",
        f"! {sys.executable} -c 'import tempfile; tempfile.TemporaryFile()' 2>/dev/null",
        f"exec {sys.executable} {PROGRAM} pretrain {small_store} --out {out} --steps {STEPS} "
        + " ".join(map(str, SMALL)),
    ]
    done = subprocess.run(["unshare", "-m", "sh", "-c", "\n".join(lines)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert same(undisturbed[0], out)


def test_a_terminal_that_is_closed_does_not_end_the_run(undisturbed, small_store, tmp_path):
    out = tmp_path / "run"
    ours, theirs = pty.openpty()
    first = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
    process = subprocess.Popen(
        [
            sys.executable,
            PROGRAM,
            *map(str, ("pretrain", small_store, "--out", out, "--steps", STEPS, *SMALL)),
        ],
        **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
        start_new_session=True,
        env={**os.environ, "MRI_TRANSFER_TEST": first},
    )
    os.close(theirs)
    output = b""

    def trains():
        nonlocal output
        with contextlib.suppress(OSError):
            output += os.read(ours, 1 << 16)
        return (out / "metrics.jsonl").is_file()

    os.set_blocking(ours, False)
    wait_for(trains, process)
    os.close(ours)  # what a dying ssh connection does: the kernel sends SIGHUP, and writing becomes an error
    assert process.wait(timeout=300) == 0, (out / "output.log").read_text()
    log = (out / "output.log").read_text()
    assert "the terminal was closed; the run continues" in log
    assert f"{STEPS} steps in" in log
    assert same(undisturbed[0], out)


def test_a_second_signal_ends_it_at_once(small_store, tmp_path):
    trainer = "from mri_transfer.pretrain.run.trainer import Trainer"
    slow = f"import time; {trainer}; Trainer.step = lambda *a: time.sleep(600)"
    process = start(
        *("pretrain", small_store, "--out", tmp_path / "run", "--steps", STEPS, *SMALL), first=slow
    )
    wait_for(lambda: load_state(tmp_path / "run" / "state") is not None, process)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None  # it waits for the step
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output


@contextlib.contextmanager
def half_speed(process, after):
    """From `after` seconds on the process gets every other 20 ms only, as on a board that is too hot."""
    over = threading.Event()

    def stop_and_go():
        if not over.wait(after):
            while process.poll() is None and not over.wait(0.02):
                process.send_signal(signal.SIGSTOP)
                time.sleep(0.02)
                process.send_signal(signal.SIGCONT)

    thread = threading.Thread(target=stop_and_go)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.timed
def test_a_budget_in_time_holds_while_the_machine_slows_down_and_its_clock_jumps(small_store, tmp_path):
    out = tmp_path / "run"
    process = start("pretrain", small_store, "--out", out, "--minutes", 1, *SMALL, first=JUMPING)
    wait_for((out / "config.json").is_file, process)
    with half_speed(process, after=28):
        finish(process)
    summary = json.loads((out / "summary.json").read_text())
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    fast, slow = (
        np.median([line["views_per_second"] for line in lines if low < line["seconds"] < high])
        for low, high in ((15, 28), (40, 59))
    )
    print(f"{summary['training_seconds']} s; {fast:.0f} views/s, then {slow:.0f}")
    assert slow < 0.75 * fast
    assert abs(summary["training_seconds"] - 60) <= 0.02 * 60
    assert lines[-1]["learning_rate"] < 0.01 * 1e-3  # the schedule has come to its end
    assert summary["saving_share"] < 0.01


@pytest.mark.timed
def test_until_a_time_of_day_with_a_kill_in_between(small_store, tmp_path):
    """The time that the run was off counts, so it is ready when it was told to be."""
    out = tmp_path / "run"
    end = time.time() + 45
    moment = time.strftime("%H:%M:%S", time.localtime(end))
    end = int(end)
    arguments = ("pretrain", small_store, "--out", out, "--until", moment, *SMALL, "--save-minutes", 1e-6)
    process = start(*arguments, first=SAVING_ALWAYS)
    wait_for(lambda: saved_step(out) > 10, process)
    process.kill()
    process.communicate()
    time.sleep(5)
    finish(start(*arguments))
    delay = (out / "summary.json").stat().st_mtime - end
    print(f"ready {delay:+.2f} s from {moment}")
    assert abs(delay) < 1.2  # what a minute may be missed by
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["learning_rate"] < 0.01 * 1e-3


def test_everything_in_one_night(undisturbed, small_store, disk):
    """Kills, a full disk, a clock that jumps and a machine at half speed: the same bits in the end."""
    reference, _ = undisturbed
    out, chance = disk / "run", random.Random(1)
    arguments = ("pretrain", small_store, "--out", out, "--steps", STEPS, *SMALL, "--save-minutes", 1e-6)
    output = ""
    slower = "from mri_transfer.pretrain.run.trainer import Trainer as T; import time as t; step = T.step\n"
    slower += "def slow(*a):\n    t.sleep(0.005)\n    return step(*a)\nT.step = slow\n"
    for night in range(3):
        process = start(*arguments, first=SAVING_ALWAYS + JUMPING + slower)
        step = saved_step(out)
        with half_speed(process, after=3):
            wait_for(lambda step=step: saved_step(out) > step + 20, process)
            if night == 1:
                with full(disk):
                    before = saved_step(out)
                    time.sleep(2)
                    assert load_state(out / "state")[1]["step"] >= before
                wait_for(lambda before=before: saved_step(out) > before + 20, process)
            time.sleep(chance.uniform(0, 0.5))
            process.kill()
        output += process.communicate()[0]
    output += finish(start(*arguments, first=JUMPING))
    assert len(re.findall("continuing", output)) == 3
    assert "could not be saved (No space left on device); training continues" in output
    assert "is saved again" in output
    assert same(reference, out)
    assert read_card(out)["provenance"]["steps"] == STEPS
