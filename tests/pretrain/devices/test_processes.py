"""Two processes on this machine, and two devices of one: the same losses as one device, whatever happens on the way.

The network is small, so that a process trains for seconds; everything else is the program as it is, on JAX.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mri_transfer.checkpoints.state import load_state
from tests.pretrain import small_network
from tests.pretrain.finished_runs import same

pytestmark = pytest.mark.slow
pytest.importorskip("jax")

PROGRAM = Path(small_network.__file__)
STEPS = 80
SMALL = ("--batch", 4, "--size", 32, "--backbone", "mobilenet")
# A line of metrics for every step, and no time for health.
BEFORE = """
from mri_transfer.pretrain import pretrain as command
from mri_transfer.pretrain.run import reports
reports.REPORT_SECONDS = 0.0
command._monitors = lambda config: []
"""
# As above, but saves at every occasion, and steps take their time, so that a few seconds hold many saves.
SLOWLY = (
    BEFORE
    + """
import time
from mri_transfer.pretrain.run import saving
from mri_transfer.pretrain.run.trainer import Trainer
saving.SHARE, step = 1e9, Trainer.step
def slow(*given):
    time.sleep(0.05)
    return step(*given)
Trainer.step = slow
"""
)
# Sums of float32 in another order differ in the last of their 24 bits, and from there on two trainings drift apart, as
# two of the same seed on two machines do. By so much of its mean may a loss have moved after so many steps; were a loss
# or a normalisation taken over half of the batch, it would be another one from the first step on.
TOLERANCE = 2e-4


def start(store, out, *options, first=BEFORE, devices=1, dump=None):
    flags = f"--xla_force_host_platform_device_count={devices}"
    if dump is not None:
        flags += f" --xla_dump_to={dump} --xla_dump_hlo_as_text"
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "MRI_TRANSFER_TEST": first,
        "PYTHONUNBUFFERED": "1",
        "XLA_FLAGS": flags,
    }
    words = [sys.executable, PROGRAM, "pretrain", store, "--out", out, *SMALL, *options]
    return subprocess.Popen(
        [str(word) for word in words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment,
    )


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def start_two(store, out, *options, stores=None, extras=((), ()), port=None, **more):
    coordination = ("--coordinator", f"127.0.0.1:{port or free_port()}", "--processes", 2)
    return [
        start((stores or (store, store))[i], out, *options, *coordination, "--process", i, *extras[i], **more)
        for i in (0, 1)
    ]


def finish(*processes, code=0):
    """Wait for all; returns what each said on standard error, and on standard output."""
    streams = [process.communicate(timeout=600) for process in processes]
    for process, (out, err) in zip(processes, streams, strict=True):
        assert process.returncode == code, (process.args, out, err)
    return [err for _, err in streams], [out for out, _ in streams]


def losses(out, steps):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, steps + 1))
    return np.array([line["loss"] for line in lines])


@pytest.fixture(autouse=True)
def small(monkeypatch):
    small_network.use(monkeypatch.setattr)  # for this process, which reads what the others wrote


@pytest.fixture(scope="module")
def undisturbed(small_store, tmp_path_factory):
    """A run of two processes, at whose port strangers knock."""
    out, port = tmp_path_factory.mktemp("runs") / "undisturbed", free_port()
    two = start_two(small_store, out, "--steps", STEPS, port=port)
    strangers = 0
    while any(process.poll() is None for process in two) and strangers < 20:
        time.sleep(0.5)
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), timeout=5) as stranger,
        ):
            stranger.sendall(
                b'{"do": "end", "code": 2, "bytes": 0}\n' if strangers % 2 else bytes(range(256))
            )
            strangers += 1
    assert strangers
    logs, _ = finish(*two)
    assert "process 0 of 2 waits for the others" in logs[0]
    assert "2 devices share each batch" in logs[0]
    assert f"process 1 of 2: done, {STEPS} steps" in logs[1]
    assert f"{STEPS} steps in" in logs[0]
    assert f"{STEPS} steps in" not in logs[1]
    assert not [path for path in out.iterdir() if path.suffix == ".part"]
    return out


def same_curve(out, reference, steps=STEPS):
    ours, theirs = losses(out, steps), losses(reference, steps)
    differences = np.abs(ours - theirs) / theirs.mean()
    print(f"losses differ by {differences[0]:.1e} of their mean at first, {differences.max():.1e} at most")
    assert theirs[-10:].mean() < 0.9 * theirs[:3].mean(), "nothing was learned, so equality says little"
    assert differences[0] < 1e-5
    assert differences.max() < TOLERANCE


def test_two_processes_give_the_losses_of_one(undisturbed, small_store, tmp_path):
    """Contrast sees the slices of both: half of a view's negatives are in the other process."""
    finish(start(small_store, tmp_path / "one", "--steps", STEPS))
    same_curve(undisturbed, tmp_path / "one")


def test_two_devices_of_a_process_and_two_processes_correlate_over_the_whole_batch(small_store, tmp_path):
    """Barlow Twins standardises over the batch; two pairs a process would give other numbers altogether."""
    method = ("--method", "barlow_twins", "--steps", 40, "--batch", 16, "--micro-batch", 8)
    finish(start(small_store, tmp_path / "one", *method))
    dump = tmp_path / "dump"
    (log,), _ = finish(start(small_store, tmp_path / "devices", *method, devices=2, dump=dump))
    assert "2 devices share each batch" in log
    # The largest program for two devices is the step: each encodes half of the 16 views of a micro-batch.
    programs = [path.read_text() for path in dump.glob("*after_optimizations.txt")]
    step = max((text for text in programs if "num_partitions=2" in text), key=len)
    assert set(re.findall(r"= f32\[(\d+),16,16,6\]\S* convolution\(", step)) == {"8"}
    same_curve(tmp_path / "devices", tmp_path / "one", 40)
    finish(*start_two(small_store, tmp_path / "processes", *method))
    same_curve(tmp_path / "processes", tmp_path / "one", 40)


def test_whatever_ends_one_ends_all_and_the_same_commands_go_on(undisturbed, small_store, tmp_path):
    """Asked to stop, then one killed, then the other; in the end the same encoder, to the last bit."""
    out = tmp_path / "run"

    def disturbed(number, sign):
        """Send a signal to one of two once something new is saved; what both said at the end, and saved steps."""
        before = saved_step(out)
        two = start_two(small_store, out, "--steps", STEPS, "--save-minutes", 1e-6, first=SLOWLY)
        deadline = time.monotonic() + 400
        while saved_step(out) < before + 3:
            assert all(process.poll() is None for process in two), finish(*two)
            assert time.monotonic() < deadline
            time.sleep(0.05)
        two[number].send_signal(sign)
        start_time = time.monotonic()
        logs = [process.communicate(timeout=400)[1].strip().splitlines() for process in two]
        print(f"signal {sign} to process {number}: all over after {time.monotonic() - start_time:.1f} s")
        return logs, [process.returncode for process in two]

    logs, codes = disturbed(1, signal.SIGTERM)
    assert codes == [130, 130], logs
    assert "interrupted" in logs[0][-1]
    assert load_state(out / "state")[1]["step"] >= 3

    # Which of Python and of JAX's own threads sees it first decides on the words and the code.
    for rank in (1, 0):
        logs, codes = disturbed(rank, signal.SIGKILL)
        assert codes[rank] == -signal.SIGKILL
        assert codes[1 - rank] not in (0, -signal.SIGKILL), logs

    assert 3 <= saved_step(out) < STEPS, "the run was over before it was disturbed"
    logs, _ = finish(*start_two(small_store, out, "--steps", STEPS))
    assert "continuing" in logs[0]
    assert same(out, undisturbed)


def test_slices_that_process_1_can_not_read_end_both_with_a_line(small_store, tmp_path):
    failing = """
import sys
from mri_transfer.pretrain.pairs.positives import PairSampler
draw = PairSampler.__call__
def draw_or_fail(self, step):
    if step == 6 and sys.argv[-1] == "1":
        raise OSError(5, "Input/output error")
    return draw(self, step)
PairSampler.__call__ = draw_or_fail
"""
    logs, _ = finish(*start_two(small_store, tmp_path / "run", "--steps", 20, first=BEFORE + failing), code=2)
    for log in logs:
        last = log.strip().splitlines()[-1]
        assert "process 1: slices can't be read any more ([Errno 5] Input/output error)" in last
        assert "run the same command again on every host" in last


def saved_step(out):
    states = sorted((out / "state").glob("state-*.json"), key=lambda path: int(path.stem.split("-")[1]))
    try:
        return json.loads(states[-1].read_text())["info"]["step"]
    except (IndexError, OSError, ValueError):
        return 0


def test_what_does_not_fit_together_is_one_line_everywhere(small_store, small_volumes, tmp_path):
    from mri_transfer.datasets.extraction.extract import SlicesConfig, extract

    other = tmp_path / "store"
    extract(SlicesConfig(paths=(small_volumes / "sub-00_T1w.nii.gz",), out=other, size=48, workers=1))
    options = ("--method", "byol", "--steps", 4)
    two = start_two(
        small_store, tmp_path / "run", *options, stores=(small_store, other), extras=((), ("--seed", 1))
    )
    logs, _ = finish(*two, code=2)
    for log in logs:
        last = log.strip().splitlines()[-1]
        assert "process 1" in last
        assert "--seed is 1 there, 0 in process 0" in last
        assert "the content of the slice store is" in last
    assert not (tmp_path / "run").exists()
    devices = start(small_store, tmp_path / "run", "--steps", 4, devices=3)
    two = start_two(small_store, tmp_path / "run", "--steps", 4, "--batch", 5)
    (uneven, *processes), _ = finish(devices, *two, code=2)
    assert "--batch 4: can't be shared out evenly among 3 devices; give 3 or 6 pairs" in uneven
    for log in processes:
        assert "--batch 5: can't be shared out evenly among 2 devices" in log.strip().splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_what_only_shows_when_all_are_connected_ends_all_too(small_store, tmp_path):
    two = start_two(small_store, tmp_path / "run", "--steps", 4, "--batch", 6, devices=2)
    logs, _ = finish(*two, code=2)
    for log in logs:
        assert "--batch 6: can't be shared out evenly among 4 devices" in log.strip().splitlines()[-1]
    assert not (tmp_path / "run").exists()
    thesis = tmp_path / "mine" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("years of work")
    logs, _ = finish(*start_two(small_store, thesis.parent, "--steps", 4), code=2)
    for log in logs:
        assert "holds something else" in log.strip().splitlines()[-1]
    assert list(thesis.parent.iterdir()) == [thesis]
