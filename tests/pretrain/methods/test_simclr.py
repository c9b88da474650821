import numpy as np
import pytest
from keras import ops

from mri_transfer.pretrain.methods.simclr import nt_xent


def reference(z_a, z_b, subject, temperature):
    """Equation 1 of the paper, one projection at a time, in float64."""
    z = np.concatenate([z_a, z_b]).astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    n, subjects = len(z_a), np.concatenate([subject, subject])
    losses = []
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        positive = np.exp(z[i] @ z[j] / temperature)
        negatives = sum(np.exp(z[i] @ z[k] / temperature) for k in range(2 * n) if subjects[k] != subjects[i])
        losses.append(-np.log(positive / (positive + negatives)))
    return np.mean(losses)


def draw(n=6, d=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)).astype("float32"), rng.normal(size=(n, d)).astype("float32")


def loss(z_a, z_b, subject, temperature=0.2):
    return float(
        nt_xent(ops.convert_to_tensor(z_a), ops.convert_to_tensor(z_b), np.asarray(subject), temperature)
    )


@pytest.mark.parametrize("subject", [[0, 1, 2, 3, 4, 5], [0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 0, 1]])
@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
def test_equals_the_formula(subject, temperature):
    z_a, z_b = draw()
    assert loss(z_a, z_b, subject, temperature) == pytest.approx(
        reference(z_a, z_b, np.array(subject), temperature), rel=1e-5
    )


def test_is_symmetric_and_does_not_depend_on_order_or_scale():
    z_a, z_b = draw()
    subject = np.array([0, 0, 1, 2, 3, 3])
    value = loss(z_a, z_b, subject)
    assert loss(z_b, z_a, subject) == pytest.approx(value, rel=1e-6)
    order = [3, 1, 5, 0, 2, 4]
    assert loss(z_a[order], z_b[order], subject[order]) == pytest.approx(value, rel=1e-6)
    assert loss(7 * z_a, 0.1 * z_b, subject) == pytest.approx(value, rel=1e-5)


def test_slices_of_one_subject_do_not_push_each_other():
    """Moving a same-subject slice onto another must not raise the loss through a negative."""
    z_a, z_b = draw()
    together = z_a.copy()
    together[1], z_b[1] = z_a[0], z_b[0]
    assert loss(together, z_b, [0, 0, 1, 2, 3, 4]) < loss(together, z_b, [0, 5, 1, 2, 3, 4])


def test_one_subject_alone_gives_zero_and_far_negatives_give_nearly_zero():
    z_a, z_b = draw()
    assert loss(z_a, z_b, [3] * 6) == 0
    z = np.array([[1.0, 0], [-1.0, 0]], dtype="float32")
    assert loss(z, z, [0, 1], 0.05) == pytest.approx(0, abs=1e-6)


def test_gradient_is_the_numerical_one():
    import keras

    if keras.backend.backend() != "tensorflow":
        pytest.skip("the tape is TensorFlow's")
    import tensorflow as tf

    z_a, z_b = draw(4, 3)
    subject = np.array([0, 0, 1, 2])
    variable = tf.Variable(z_a)
    with tf.GradientTape() as tape:
        value = nt_xent(variable, tf.constant(z_b), subject, 0.5)
    gradient = tape.gradient(value, variable).numpy()
    for i, j in np.ndindex(z_a.shape):
        step = np.zeros_like(z_a)
        step[i, j] = 1e-3
        numerical = reference(z_a + step, z_b, subject, 0.5) - reference(z_a - step, z_b, subject, 0.5)
        assert gradient[i, j] == pytest.approx(numerical / 2e-3, abs=2e-4)


def test_a_zero_projection_does_not_poison_the_gradient():
    import keras

    if keras.backend.backend() != "tensorflow":
        pytest.skip("the tape is TensorFlow's")
    import tensorflow as tf

    variable = tf.Variable(np.zeros((3, 4), "float32"))
    with tf.GradientTape() as tape:
        value = nt_xent(variable, variable, np.arange(3), 0.1)
    assert np.isfinite(tape.gradient(value, variable).numpy()).all()
