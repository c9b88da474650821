import keras
import numpy as np
import pytest

from mri_transfer.finetune.heads.rates import PARTS, LayerwiseAdamW, Schedule, parts_of
from tests.finetune.small_network import small_encoder


def test_the_head_warms_up_and_falls_as_a_cosine():
    schedule = Schedule(0.5, 100, warmup=0.1)
    head = np.array([schedule(step)[0] for step in range(101)])
    cosine = 0.25 * (1 + np.cos(np.pi * np.arange(101) / 100))
    assert head[10:] == pytest.approx(cosine[10:], abs=1e-7)
    assert head[:10] == pytest.approx(cosine[:10] * np.arange(1, 11) / 10)
    assert head[100] == pytest.approx(0, abs=1e-7)


def test_each_part_has_the_same_multiple_of_the_rate_above():
    rates = Schedule(1e-3, 10, decay=0.7)(3)
    assert rates.shape == (PARTS + 1,)
    assert rates[1:] / rates[:-1] == pytest.approx(np.full(PARTS, 0.7), rel=1e-5)
    assert np.ptp(Schedule(1e-3, 10)(3)) == 0


def test_parts_have_their_turn_from_the_top_down():
    schedule = Schedule(1.0, 90, warmup=0.1, gradual=0.5, lowest=4)
    moves = np.array([schedule(step) > 0 for step in range(90)])
    first = moves.argmax(0)
    assert first[:2].tolist() == [0, 0]  # the head and the part below it
    assert first[1:5].tolist() == [0, 15, 30, 45]
    assert (np.diff(moves.astype(int), axis=0) >= 0).all()  # and are not frozen again
    assert schedule(15)[2] == pytest.approx(schedule(15)[0] / 9)  # warmed up, though the head is warm


def test_parts_of_an_encoder_go_from_the_bottom_to_the_top():
    pairs = parts_of(small_encoder())
    parts = [part for _, part in pairs]
    assert [len(layer.weights) > 0 for layer, _ in pairs] == [True] * 6
    assert parts == sorted(parts, reverse=True)
    assert parts[-1] == 1
    assert parts[0] <= PARTS


def by_hand(values, gradients, rates, parts, decay, momentum):
    """Decoupled Adam in float64 as published, and the moving average of what it comes to."""
    values = [np.asarray(value, np.float64) for value in values]
    m, v = [np.zeros_like(x) for x in values], [np.zeros_like(x) for x in values]
    average = None
    for step, (step_gradients, step_rates) in enumerate(zip(gradients, rates, strict=True), 1):
        for k, gradient in enumerate(step_gradients):
            rate = step_rates[parts[k]]
            m[k] = 0.9 * m[k] + 0.1 * gradient
            v[k] = 0.999 * v[k] + 0.001 * gradient**2
            corrected = (m[k] / (1 - 0.9**step)) / (np.sqrt(v[k] / (1 - 0.999**step)) + 1e-7)
            values[k] = values[k] - rate * decay * values[k] - rate * corrected
        average = (
            [x.copy() for x in values]
            if average is None
            else [momentum * a + (1 - momentum) * x for a, x in zip(average, values, strict=True)]
        )
    return values, average


def test_the_optimiser_does_as_by_hand_with_a_rate_for_each_part_and_averages():
    rng = np.random.default_rng(0)
    start = [rng.normal(size=(3, 2)), rng.normal(size=4), rng.normal(size=2)]
    gradients = [[rng.normal(size=x.shape) for x in start] for _ in range(6)]
    parts = [12, 1, 0]
    rates = rng.uniform(0.001, 0.1, (6, PARTS + 1))
    rates[:3, 12] = 0  # its turn comes later
    variables = [keras.Variable(x.astype("float32"), name=f"v{k}") for k, x in enumerate(start)]
    optimizer = LayerwiseAdamW(0.1, use_ema=True, ema_momentum=0.8)
    optimizer.build_parts(variables, parts)
    expected, average = by_hand(start, gradients, rates, parts, 0.1, 0.8)

    for attempt in range(2):  # the second after forgetting the first
        for step in range(6):
            optimizer.rates.assign(rates[step].astype("float32"))
            optimizer.apply([keras.ops.convert_to_tensor(g, "float32") for g in gradients[step]], variables)
            if step == 2 and not attempt:
                assert np.array_equal(keras.ops.convert_to_numpy(variables[0]), start[0].astype("float32"))
        for variable, value in zip(variables, expected, strict=True):
            assert keras.ops.convert_to_numpy(variable) == pytest.approx(value, rel=2e-3, abs=1e-4)
        optimizer.finalize_variable_values(variables)
        for variable, value in zip(variables, average, strict=True):
            assert keras.ops.convert_to_numpy(variable) == pytest.approx(value, rel=2e-3, abs=1e-4)
        optimizer.restart()
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value.astype("float32"))
