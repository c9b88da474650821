"""Every method on a tiny encoder: it learns, its teacher follows by the rule, and it goes on from a saved state."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest

from mri_transfer.checkpoints.state import assign_arrays, model_arrays
from mri_transfer.errors import UserError
from mri_transfer.pretrain.augmentations.table import AUGMENTATIONS
from mri_transfer.pretrain.augmentations.views import Views
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.methods import METHODS
from mri_transfer.pretrain.methods.teacher import momentum_at

WITH_TEACHER = ("moco", "byol", "dino")
# A few augmentations that draw random numbers: methods know none of them, and all take seconds to trace.
FEW = {
    augmentation.name: 0.0
    for augmentation in AUGMENTATIONS
    if augmentation.name not in ("contrast", "brightness", "noise")
}


def make(name, tiny_encoder, seed=0, plan=None, graph=False):
    views = Views(64, seed=seed, strengths=FEW)
    method = METHODS[name].build(tiny_encoder(seed=seed), views, plan=plan, seed=seed)
    optimizer = keras.optimizers.AdamW(1e-3)
    # Tracing a graph takes seconds, a step none; the slow tests do trace.
    method.compile(optimizer=optimizer, jit_compile=False, run_eagerly=not graph)
    optimizer.build(method.trainable_variables)
    return method, optimizer


def steps(method, batch, count, first=0, of=10):
    losses = []
    for step in range(first, first + count):
        method.set_progress(step / of)
        method.reset_metrics()
        losses.append(float(method.train_on_batch(batch, return_dict=True)["loss"]))
    return losses


def arrays(variables):
    return [np.array(v) for v in variables]


@pytest.mark.parametrize("graph", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", METHODS)
def test_it_trains_and_goes_on_from_a_saved_state_to_the_bit(name, graph, tiny_encoder, batch):
    method, optimizer = make(name, tiny_encoder, graph=graph)
    variables = len(method.variables)
    before = arrays(method.encoder.trainable_variables)
    losses = steps(method, batch, 2)
    saved = model_arrays(method, optimizer)
    losses += steps(method, batch, 1, first=2)
    assert np.isfinite(losses).all()
    if graph:  # a graph may read a variable before or after it is set, and must do it in the same order
        assert losses == pytest.approx(steps(make(name, tiny_encoder)[0], batch, 3), rel=2e-3)
    after = arrays(method.encoder.trainable_variables)
    assert all((a != b).any() for a, b in zip(before, after, strict=True))
    assert len(method.variables) == variables  # all of them existed before the first step

    other, other_optimizer = make(name, tiny_encoder, seed=5, graph=graph)
    assign_arrays(saved, other, other_optimizer)
    assert steps(other, batch, 1, first=2) == losses[2:]
    now, then = model_arrays(other, other_optimizer), model_arrays(method, optimizer)
    assert all(np.array_equal(now[key], then[key]) for key in then)


@pytest.mark.parametrize("name", WITH_TEACHER)
def test_the_teacher_follows_by_exactly_the_momentum_rule(name, tiny_encoder, batch):
    method, _ = make(name, tiny_encoder)
    students = [method.encoder, method.head]
    trained = {id(v) for v in method.trainable_variables}

    def weights():
        """Trained weights of the student, and the teacher's that stand for them."""
        pairs = [
            (slow, fast)
            for copy, student in zip(method.teacher.copies, students, strict=True)
            for slow, fast in zip(copy.weights, student.weights, strict=True)
            if fast.trainable
        ]
        assert not any(id(slow) in trained for slow, _ in pairs)
        return arrays(slow for slow, _ in pairs), arrays(fast for _, fast in pairs)

    slow, fast = weights()
    assert len(slow) > 8
    assert all(np.array_equal(a, b) for a, b in zip(slow, fast, strict=True))
    for step in range(3):
        slow, fast = weights()
        steps(method, batch, 1, first=step, of=4)
        m = float(momentum_at(step / 4, 0.95 if name == "dino" else 0.99))
        for weight, a, b in zip(weights()[0], slow, fast, strict=True):
            np.testing.assert_allclose(weight, m * a + (1 - m) * b, rtol=1e-5, atol=1e-7)
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(*weights(), strict=True))


@pytest.mark.parametrize("name", WITH_TEACHER)
def test_the_teacher_normalises_by_the_batch(name, tiny_encoder, batch):
    """And hands out the student's first outputs; with moving statistics they would be of another scale."""
    method, _ = make(name, tiny_encoder)
    x = np.concatenate([batch["a"], batch["b"]])[..., None]
    taught = np.asarray(method.teacher(x, training=True))
    student = method.head(method.encoder(x, training=True), training=True)
    np.testing.assert_allclose(taught, student, rtol=1e-3, atol=1e-4)
    assert np.abs(taught - np.asarray(method.teacher(x, training=False))).max() > 0.01


@pytest.mark.parametrize("name", METHODS)
def test_which_view_is_which_and_the_order_of_the_pairs_do_not_matter(name, tiny_encoder, batch):
    method, _ = make(name, tiny_encoder)
    method(batch, training=True)  # so that a queue holds something
    outputs = method(batch, training=True)
    loss = float(method.compute_loss(x=batch, y_pred=outputs))

    def reordered(order):
        return keras.tree.map_structure(lambda x: np.asarray(x)[order] if x.shape[0] == 12 else x, outputs)

    swapped = reordered(np.r_[6:12, 0:6])
    assert float(method.compute_loss(x=batch, y_pred=swapped)) == pytest.approx(loss, rel=1e-5)
    order = np.array([3, 1, 5, 0, 2, 4])
    shuffled = {**batch, "subject": batch["subject"][order]}
    found_there = reordered(np.r_[order, order + 6])
    assert float(method.compute_loss(x=shuffled, y_pred=found_there)) == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_and_the_teacher_keep_full_precision_in_a_mixed_one(name, tiny_encoder, batch):
    full = make(name, tiny_encoder)[0]
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = make(name, tiny_encoder)[0]
    finally:
        keras.config.set_dtype_policy(before)
    assert {v.dtype for v in mixed.trainable_variables} == {"float32"}
    outputs, expected = mixed(batch, training=True), full(batch, training=True)
    loss = mixed.compute_loss(x=batch, y_pred=outputs)
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    assert float(loss) == pytest.approx(float(full.compute_loss(x=batch, y_pred=expected)), rel=0.1, abs=0.02)
    if name in WITH_TEACHER:
        student, teacher = mixed.encoder.trainable_variables[0], mixed.teacher.copies[0].weights[0]
        start = np.array(teacher)
        student.assign(student + 1e-4)  # a step that bfloat16 can't hold beside the weight
        mixed.teacher.momentum.assign(0.5)
        mixed(batch, training=True)
        np.testing.assert_allclose(np.array(teacher) - start, 5e-5, rtol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_plan_that_recomputes_gives_the_same_loss(name, tiny_encoder, batch):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("one backend is enough")
    called = []

    def plan(model):
        """As a plan that saves memory does: state goes in and out as values, and nothing is kept for the gradient."""

        def pure(trainable, state, x):
            return model.stateless_call(trainable, state, x, training=True)

        def call(x):
            called.append(model.name)
            trainable = [v.value for v in model.trainable_variables]
            state = [v.value for v in model.non_trainable_variables]
            y, state = keras.remat(pure)(trainable, state, x)
            for variable, new in zip(model.non_trainable_variables, state, strict=True):
                variable.assign(new)
            return y

        return call

    plain, recomputing = (make(name, tiny_encoder, plan=plan, graph=True)[0] for plan in (None, plan))
    assert steps(recomputing, batch, 2) == pytest.approx(steps(plain, batch, 2), rel=1e-3)
    assert called
    for a, b in zip(arrays(plain.encoder.weights), arrays(recomputing.encoder.weights), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-2, atol=3e-3)  # Adam's first steps have the size of the rate


@pytest.mark.parametrize("name", METHODS)
def test_variables_do_not_depend_on_the_size_of_the_views(name, tiny_encoder):
    small, large = (METHODS[name].build(tiny_encoder(size=size), Views(size)) for size in (64, 96))
    assert {k: v.shape for k, v in model_arrays(small).items()} == {
        k: v.shape for k, v in model_arrays(large).items()
    }


def test_options_reach_the_method_that_knows_them(tiny_encoder):
    config = PretrainConfig(store=Path("s"), out=Path("o"), method="simclr", temperature=0.3, decoupled=True)
    assert config.method_options == {"temperature": 0.3, "decoupled": True}
    custom, plain = (
        METHODS["simclr"].build(tiny_encoder(), Views(64), **options)
        for options in (config.method_options, {})
    )
    assert (custom.temperature, custom.decoupled) == (0.3, True)
    assert (plain.temperature, plain.decoupled) == (0.1, False)
    hybrid = PretrainConfig(store=Path("s"), out=Path("o"), method="hybrid", lesions=0.0)
    assert hybrid.method_options == {"lesions": 0.0}
    with pytest.raises(UserError, match="--temperature: --method byol has no"):
        dataclasses.replace(config, method="byol", decoupled=False)
    with pytest.raises(UserError, match="--decoupled: --method moco has no"):
        dataclasses.replace(config, method="moco")
    with pytest.raises(UserError, match="--label-weight: --method simclr has no"):
        dataclasses.replace(config, label_weight=2.0)
