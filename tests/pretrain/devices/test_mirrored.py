"""Two devices of TensorFlow against one: the same losses, gradients, statistics and weights, for every method.

There need not be a GPU: the processor is divided in two, each time in a process of its own (see logical_devices.py).
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mri_transfer.checkpoints.encoders import load_encoder
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.devices import mirrored
from mri_transfer.pretrain.devices.team import Team
from mri_transfer.pretrain.methods import METHODS
from mri_transfer.pretrain.run import starting
from tests.pretrain import small_network
from tests.pretrain.devices import logical_devices

# Ten times what was measured with TensorFlow 2.16 and 2.21, as shares. First losses differed by 6e-7 at most, losses of
# eight steps by 2e-6, and by 2e-5 with Barlow Twins, which divides by the variance of six pairs; first gradients by
# 1.5e-5 and statistics by 1e-4. Of the way that weights have come 1e-3 was the most: Adam's first steps are the signs
# of gradients, and signs of gradients near zero are rounding. A step in which a device forgot that it holds half of the
# batch (in a normalisation, a gradient, the dropout) was tried for each: later losses moved by 5e-3 at least.
FIRST_LOSS, LOSSES, GRADIENTS, STATISTICS, WEIGHTS = 6e-6, 2e-4, 1.5e-4, 1e-3, 1e-2
TENSORFLOW = {
    **os.environ,
    "KERAS_BACKEND": "tensorflow",
    "CUDA_VISIBLE_DEVICES": "-1",
    "PYTHONUNBUFFERED": "1",
}


def python(program, *words, code=0, **environment):
    done = subprocess.run(
        [sys.executable, program.__file__, *map(str, words)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**TENSORFLOW, **environment},
        timeout=600,
    )
    assert done.returncode == code, done.stderr
    return done


def trained(**settings):
    """What logical_devices.py prints, with the difference of every loss as a share of it, or of 1."""
    found = json.loads(python(logical_devices, json.dumps(settings)).stdout)
    ours, theirs = (np.array(found["losses"][of]) for of in ("two", "one"))
    found["apart"] = np.abs(ours - theirs) / np.maximum(np.abs(theirs), 1.0)
    print(settings, found)
    return found


def check_equal(found):
    assert found["apart"][0] < FIRST_LOSS
    assert found["apart"].max() < LOSSES
    first, last = found["first"], found["last"]
    assert first["momentum"] < GRADIENTS
    for differences in (first, last):
        assert differences["statistics"] < STATISTICS
        assert differences["weights"] < WEIGHTS
        assert differences["generators"] == 0
    assert found["unlike"] == []


def test_two_devices_give_the_losses_of_one_and_share_the_work():
    found = trained(method="simclr", steps=3)
    check_equal(found)
    assert found["rows"] == {"one": [12], "two": [6]}  # images that an encoder saw: half of the twelve views


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_does_and_is_resumed_on_another_number_of_devices(method):
    """After six steps views become larger, either goes on from the other's state, and both do two steps more."""
    found = trained(method=method, steps=6, carry=True)
    check_equal(found)
    assert found["rows"] == {"one": [12], "two": [6]}  # a teacher's encoder, too
    assert found["watched"]


@pytest.mark.slow
def test_in_bfloat16_the_first_loss_is_the_same_too():
    """Later ones differ as much as bfloat16 rounds, 0.4%: at its place that is what another order of a sum costs."""
    found = trained(method="simclr", steps=4, precision="bfloat16")
    assert found["apart"][0] < 1e-3
    assert found["apart"].max() < 2e-2
    assert found["first"]["statistics"] < STATISTICS
    assert found["first"]["momentum"] < 5e-2
    assert found["unlike"] == []


# -- the command line

SMALL = ("--size", 32, "--backbone", "mobilenet")
DIVIDED = "from tests.pretrain.devices import logical_devices; logical_devices.use()"
# A line of metrics for every step.
EVERY_STEP = "from mri_transfer.pretrain.run import reports; reports.REPORT_SECONDS = 0.0"
# At these steps of a process, counted from 1, the user interrupts it, or memory is short.
AT = """
import os, signal
from mri_transfer.pretrain.run.trainer import Trainer
train, calls = Trainer._train, []
def train_or_not(self, batch):
    calls.append(1)
    if len(calls) == {interrupt}:
        os.kill(os.getpid(), signal.SIGINT)
    if len(calls) == {short}:
        raise MemoryError
    return train(self, batch)
Trainer._train = train_or_not
"""


def run(store, out, *options, first=(), code=0):
    """The program with the small network; what it said on standard error."""
    root = Path(__file__).resolve().parents[3]
    environment = {
        "MRI_TRANSFER_TEST": "\n".join([EVERY_STEP, *first]),
        "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]),
    }
    words = ("pretrain", store, "--out", out, *SMALL, *options)
    return python(small_network, *words, code=code, **environment).stderr


def losses(out):
    return np.array([json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()])


@pytest.mark.slow
def test_a_run_on_two_devices_that_goes_on_with_one_ends_with_the_encoder_of_one(
    small_store, tmp_path, monkeypatch
):
    one, two, steps = tmp_path / "one", tmp_path / "two", ("--batch", 4, "--steps", 20)
    run(small_store, one, *steps)
    said = run(small_store, two, *steps, first=[DIVIDED, AT.format(interrupt=10, short=0)], code=130)
    assert said.startswith("2 devices share each batch\n")
    assert not re.search("INFO|WARN|Error|tensorflow", said)  # TensorFlow has a lot to say of its devices
    assert len(losses(two)) == 10
    said = run(small_store, two, *steps)
    assert "at step 10" in said
    assert "share each batch" not in said
    np.testing.assert_allclose(losses(two), losses(one), rtol=2e-4)
    small_network.use(monkeypatch.setattr)
    ours, theirs = (load_encoder(out).get_weights() for out in (two, one))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3 * np.abs(b).max())


@pytest.mark.slow
def test_what_memory_is_short_for_is_said_where_a_batch_can_not_be_split(small_store, tmp_path):
    out, steps = tmp_path / "run", ("--batch", 8, "--steps", 20)
    said = run(small_store, out, *steps, first=[AT.format(interrupt=10, short=4)], code=130)
    assert "going on with 4" in said
    said = run(small_store, out, *steps, first=[DIVIDED, AT.format(interrupt=0, short=4)], code=2)
    assert "4 pairs were encoded at once until now; from here on, the devices encode all of a batch" in said
    last = said.splitlines()[-1]
    assert "out of memory with 4 pairs on each of 2 devices; give a smaller --batch" in last
    assert "KERAS_BACKEND=jax" in last
    done = len(losses(out))
    assert f"at step {done}" in run(small_store, out, *steps, first=[DIVIDED])  # nothing was lost
    assert json.loads((out / "summary.json").read_text())["micro_batch"] is None


def test_after_a_kill_for_want_of_memory_there_is_nothing_to_split(capsys):
    """Fewer pairs at once would be the answer on one device."""
    config = PretrainConfig(store=Path(), out=Path(), batch=64)
    assert starting._after_a_kill(config, None, mirrored.MirroredTeam) is None
    assert "if it happens again, give a smaller --batch" in capsys.readouterr().err
    assert starting._after_a_kill(config, None, Team) == 32


# -- what is refused, before any device is touched


@pytest.fixture
def two_gpus(monkeypatch):
    import keras

    if keras.backend.backend() != "tensorflow":
        pytest.skip("of TensorFlow")
    monkeypatch.setattr(mirrored, "gpus", lambda: ["GPU:0", "GPU:1"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--batch", 5), ("--batch 5", "2 devices", "4 or 6 pairs", "CUDA_VISIBLE_DEVICES")),
        (
            ("--batch", 8, "--micro-batch", 4),
            ("--micro-batch 4", "KERAS_BACKEND=jax", "CUDA_VISIBLE_DEVICES=0"),
        ),
        (("--batch", 8, "--recompute", "always"), ("--recompute always", "KERAS_BACKEND=jax")),
    ],
)
def test_what_several_devices_can_not_do_is_refused(options, words, small_store, tmp_path, refuses, two_gpus):
    refuses("pretrain", small_store, "--out", tmp_path / "r", "--steps", 2, *options, words=words)
    assert not (tmp_path / "r").exists()
