"""Precision: chosen by measurement, kept by a run, float32 on disk."""

import json

import keras
import numpy as np
import pytest

from mri_transfer.checkpoints.encoders import load_encoder
from mri_transfer.pretrain.fit.precision import fastest, measured, policy

TINY = ("--batch", 4, "--size", 32, "--backbone", "mobilenet")


def test_bfloat16_has_to_be_faster_by_more_than_noise():
    assert fastest({"float32": 1.0, "bfloat16": 0.5}) == "bfloat16"
    assert fastest({"float32": 1.0, "bfloat16": 0.95}) == "float32"
    assert fastest({"float32": 1.0, "bfloat16": 2.0}) == "float32"


def test_the_policy_ends_with_the_block():
    def failing():
        with policy("bfloat16"):
            assert keras.layers.Dense(1).compute_dtype == "bfloat16"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        failing()
    assert keras.layers.Dense(1).compute_dtype == "float32"


def test_each_precision_is_measured_without_the_step_that_compiles():
    import time

    class Fake:
        def __init__(self, precision):
            self.seconds = {"float32": 0.03, "bfloat16": 0.001}[precision]
            self.first = True

        def step(self, batch, rate, share):
            assert rate == 0.0
            time.sleep(0.2 if self.first else self.seconds)
            self.first = False

    seconds = measured(Fake, {})
    assert 0.03 <= seconds["float32"] < 0.2
    assert fastest(seconds) == "bfloat16"


@pytest.mark.slow
def test_a_run_in_bfloat16_is_resumed_in_it_and_leaves_float32(small_store, cli, tmp_path):
    arguments = ("pretrain", small_store, "--out", tmp_path / "run", "--steps", 3, *TINY)
    done = cli(*arguments, "--precision", "bfloat16")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "start.json").read_text())["precision"] == "bfloat16"
    encoder = load_encoder(tmp_path / "run")
    assert all(variable.dtype == "float32" for variable in encoder.weights)
    other = ("pretrain", small_store, "--out", tmp_path / "other", "--steps", 3, *TINY)
    assert cli(*other).returncode == 0
    pairs = list(zip(encoder.weights, load_encoder(tmp_path / "other").weights, strict=True))
    assert not all(np.array_equal(a, b) for a, b in pairs)


def test_a_run_that_must_be_ready_soon_measures_nothing(tmp_path):
    import datetime

    from mri_transfer.pretrain.config import PretrainConfig
    from mri_transfer.pretrain.run.starting import _precision

    def fails(*_):
        raise AssertionError("measured")

    soon = (datetime.datetime.now() + datetime.timedelta(minutes=30)).strftime("%H:%M:%S")
    time_of_day = (datetime.datetime.now() + datetime.timedelta(hours=8)).strftime("%H:%M:%S")
    for budget in ({"until": soon}, {"minutes": 30.0}, {"steps": 10**6}):
        config = PretrainConfig(store=tmp_path, out=tmp_path, **budget)
        assert _precision(config, fails, fails) == {"precision": "float32"}
    for budget in ({"until": time_of_day}, {"hours": 8.0}):
        with pytest.raises(AssertionError, match="measured"):
            _precision(PretrainConfig(store=tmp_path, out=tmp_path, **budget), fails, fails)
