import numpy as np
import pytest
from keras import ops

from mri_transfer.pretrain.methods.simclr import nt_xent


def reference(z_a, z_b, subject, temperature, decoupled=False):
    """Equation 1 of the paper (or 6 of DCL), one projection at a time, in float64."""
    z = np.concatenate([z_a, z_b]).astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    n, subjects = len(z_a), np.concatenate([subject, subject])
    losses = []
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        positive = np.exp(z[i] @ z[j] / temperature)
        negatives = sum(np.exp(z[i] @ z[k] / temperature) for k in range(2 * n) if subjects[k] != subjects[i])
        if negatives:
            losses.append(-np.log(positive / (negatives if decoupled else positive + negatives)))
        else:
            losses.append(0.0)
    return np.mean(losses)


def draw(n=6, d=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)).astype("float32"), rng.normal(size=(n, d)).astype("float32")


def loss(z_a, z_b, subject, temperature=0.2, decoupled=False):
    z_a, z_b = ops.convert_to_tensor(z_a), ops.convert_to_tensor(z_b)
    return float(nt_xent(z_a, z_b, np.asarray(subject), temperature, decoupled))


@pytest.mark.parametrize("subject", [[0, 1, 2, 3, 4, 5], [0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 0, 1]])
@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("decoupled", [False, True])
def test_equals_the_formula(subject, temperature, decoupled):
    z_a, z_b = draw()
    assert loss(z_a, z_b, subject, temperature, decoupled) == pytest.approx(
        reference(z_a, z_b, np.array(subject), temperature, decoupled), rel=1e-5
    )


@pytest.mark.parametrize("decoupled", [False, True])
def test_is_symmetric_and_does_not_depend_on_order_or_scale(decoupled):
    z_a, z_b = draw()
    subject = np.array([0, 0, 1, 2, 3, 3])
    value = loss(z_a, z_b, subject, decoupled=decoupled)
    assert loss(z_b, z_a, subject, decoupled=decoupled) == pytest.approx(value, rel=1e-6)
    order = [3, 1, 5, 0, 2, 4]
    assert loss(z_a[order], z_b[order], subject[order], decoupled=decoupled) == pytest.approx(value, rel=1e-6)
    assert loss(7 * z_a, 0.1 * z_b, subject, decoupled=decoupled) == pytest.approx(value, rel=1e-5)


def test_slices_of_one_subject_do_not_push_each_other():
    """Moving a same-subject slice onto another must not raise the loss through a negative."""
    z_a, z_b = draw()
    twins = z_a.copy()
    twins[1], z_b[1] = z_a[0], z_b[0]
    assert loss(twins, z_b, [0, 0, 1, 2, 3, 4]) < loss(twins, z_b, [0, 5, 1, 2, 3, 4])


@pytest.mark.parametrize("decoupled", [False, True])
def test_slices_of_one_subject_have_no_influence_on_each_other(decoupled):
    """Moving one changes the loss by the same, wherever the other is. The third slice is at right angles to both."""

    def two_and_one(first, second):
        pairs = np.zeros((2, 3, 8), "float32")
        for i, seed in enumerate((first, second)):
            pairs[:, i, :4] = np.concatenate(draw(1, 4, seed))
        pairs[:, 2, 4:] = np.concatenate(draw(1, 4, 9))
        return pairs

    def effect_of_moving(second, subject):
        here, there = (loss(*two_and_one(first, second), subject, decoupled=decoupled) for first in (1, 2))
        return there - here

    assert effect_of_moving(3, [0, 0, 1]) == pytest.approx(effect_of_moving(4, [0, 0, 1]), abs=1e-5)
    assert abs(effect_of_moving(3, [0, 2, 1]) - effect_of_moving(4, [0, 2, 1])) > 0.05


def test_one_subject_alone_gives_zero_and_far_negatives_give_nearly_zero():
    z_a, z_b = draw()
    assert loss(z_a, z_b, [3] * 6) == loss(z_a, z_b, [3] * 6, decoupled=True) == 0
    z = np.array([[1.0, 0], [-1.0, 0]], dtype="float32")
    assert loss(z, z, [0, 1], 0.05) == pytest.approx(0, abs=1e-6)
