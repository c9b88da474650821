"""Every loss: gradients against central differences, against the other backend, and where nothing varies."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

LOSSES = Path(__file__).with_name("losses.py")
NAMES = (
    "nt_xent",
    "decoupled",
    "info_nce",
    "negative_cosine",
    "normalised_regression",
    "cross_correlation",
    "vicreg",
    "self_distillation",
    "masked_error",
    "free_label_loss",
)
WITH_FIXED_TARGETS = ("masked_error", "free_label_loss")


def test_every_loss_is_tested(losses):
    assert set(NAMES) == set(losses.CASES)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_the_numerical_ones(losses, name):
    case = losses.CASES[name]
    import keras

    if keras.backend.backend() == "jax":
        pytest.skip(
            "JAX computes in 32 bits unless told otherwise; its gradients are compared with TensorFlow's"
        )
    gradients = losses.gradients(case, case.inputs, "float64")
    for i, array in enumerate(case.inputs):
        if i >= case.trained:
            assert not gradients[i].any()
            continue
        for index in np.ndindex(array.shape):
            step = np.zeros_like(array)
            step[index] = 1e-5
            up, down = ((*case.inputs[:i], array + sign * step, *case.inputs[i + 1 :]) for sign in (1, -1))
            numerical = (losses.value(case, up, "float64") - losses.value(case, down, "float64")) / 2e-5
            assert gradients[i][index] == pytest.approx(numerical, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("constant", [0.0, 0.5])
def test_embeddings_that_do_not_vary_have_a_finite_loss_and_gradient(losses, name, constant):
    case = losses.CASES[name]
    inputs = tuple(np.full_like(x, constant) for x in case.inputs)
    assert np.isfinite(losses.value(case, inputs))
    assert all(np.isfinite(gradient).all() for gradient in losses.gradients(case, inputs))


@pytest.mark.parametrize("name", NAMES)
def test_order_of_the_pairs_does_not_matter(losses, name):
    case = losses.CASES[name]
    if name in ("nt_xent", "decoupled", "info_nce"):
        order = [
            1,
            0,
            2,
            3,
            5,
            4,
        ]  # the subjects are fixed, so within them; test_simclr and test_moco move those too
    else:
        order = np.random.default_rng(0).permutation(len(case.inputs[0]))
    n = len(case.inputs[0])
    moved = tuple(x[order] if len(x) == n and name not in WITH_FIXED_TARGETS else x for x in case.inputs)
    assert losses.value(case, moved) == pytest.approx(losses.value(case, case.inputs), rel=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="pip install '.[jax]'")
def test_tensorflow_and_jax_agree(tmp_path):
    gradients = {}
    for backend in ("tensorflow", "jax"):
        file = tmp_path / f"{backend}.npz"
        environment = {
            **os.environ,
            "KERAS_BACKEND": backend,
            "JAX_PLATFORMS": "cpu",
            "CUDA_VISIBLE_DEVICES": "-1",
        }
        done = subprocess.run(
            [sys.executable, LOSSES, file], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        with np.load(file) as results:
            gradients[backend] = dict(results)
    assert set(gradients["jax"]) == set(gradients["tensorflow"])
    assert len(gradients["jax"]) > 2 * len(NAMES)
    for name, expected in gradients["tensorflow"].items():
        np.testing.assert_allclose(
            gradients["jax"][name],
            expected,
            rtol=2e-5,
            atol=2e-6 * np.abs(expected).max() + 1e-7,
            err_msg=name,
        )
