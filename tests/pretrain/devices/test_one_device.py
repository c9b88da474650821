"""What a run trains with where there is nothing to share, and what TensorFlow does on one device only."""

import json

import pytest

from mri_transfer.checkpoints.state import load_state, save_state
from mri_transfer.machine import device
from mri_transfer.pretrain import pretrain as run_module
from mri_transfer.pretrain.fit.out_of_memory import remember_fewer
from tests.pretrain import small_network


@pytest.fixture
def tensorflow():
    import keras

    if keras.backend.backend() != "tensorflow":
        pytest.skip("of TensorFlow")


def test_tensorflow_refuses_several_processes(small_store, tmp_path, refuses, tensorflow):
    options = ("--coordinator", "127.0.0.1:9", "--processes", 2, "--process", 1, "--steps", 2)
    refuses(
        "pretrain", small_store, "--out", tmp_path / "r", *options, words=("--processes", "KERAS_BACKEND=jax")
    )
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("gpus", [1, 2])
def test_tensorflow_trains_on_one_gpu_and_says_what_several_need(
    gpus, small_store, tmp_path, cli, monkeypatch, tensorflow
):
    small_network.use(monkeypatch.setattr)
    monkeypatch.setattr(run_module, "_monitors", lambda config: [])
    monkeypatch.setattr(device, "tensorflow_gpus", lambda: gpus)
    small = ("--batch", 4, "--size", 32, "--backbone", "mobilenet", "--steps", 1)
    done = cli("pretrain", small_store, "--out", tmp_path / "r", *small)
    assert done.returncode == 0
    assert ("on the first of 2 GPUs: several need KERAS_BACKEND=jax" in done.stderr) == (gpus == 2)
    assert json.loads((tmp_path / "r" / "config.json").read_text())["config"]["processes"] is None


def test_after_a_shortage_of_memory_the_next_start_takes_half_as_many_pairs(tmp_path):
    import numpy as np

    assert remember_fewer(tmp_path, 64) is None  # nothing was saved yet
    save_state(tmp_path / "state", {"x": np.arange(3.0)}, {"step": 7, "micro_batch": None})
    assert [remember_fewer(tmp_path, 64) for _ in range(5)] == [32, 16, 8, 4, None]
    arrays, info = load_state(tmp_path / "state")
    assert info == {"step": 7, "micro_batch": 4}
    np.testing.assert_array_equal(arrays["x"], np.arange(3.0))


@pytest.mark.parametrize("letter", ["\x1b", "\U0001f600", "\\", "\udcff"])
def test_the_longest_line_of_an_error_reaches_the_others(monkeypatch, letter):
    multihost_utils = pytest.importorskip("jax.experimental.multihost_utils")
    from mri_transfer.pretrain.devices.group import LINE, ProcessGroup

    monkeypatch.setattr(multihost_utils, "process_allgather", lambda row: row[None])
    group = object.__new__(ProcessGroup)
    group.rank = 0
    (words,) = group.exchange({"do": "end", "code": 2, "line": letter * LINE})
    assert words["line"] == ("?" if letter == "\udcff" else letter) * LINE
