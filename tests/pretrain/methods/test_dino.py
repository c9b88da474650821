import keras
import numpy as np
import pytest

from mri_transfer.pretrain.augmentations.views import Views
from mri_transfer.pretrain.methods import METHODS
from mri_transfer.pretrain.methods.dino import WARM_UP, Prototypes, self_distillation


def reference(student, teacher, center, student_temperature, teacher_temperature):
    """Equations 2 and 3 of the paper with the centre of algorithm 1, one view at a time, in float64."""
    losses = []
    for s, t in zip(student.astype(float), teacher.astype(float), strict=True):
        s, t = np.exp(s / student_temperature), np.exp((t - center) / teacher_temperature)
        losses.append(-((t / t.sum()) * np.log(s / s.sum())).sum())
    return np.mean(losses)


def draw(n=6, k=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (2, n, k)).astype("float32"), rng.uniform(-0.3, 0.3, k).astype("float32")


@pytest.mark.parametrize("temperatures", [(0.1, 0.04), (0.1, 0.07), (1, 1)])
def test_equals_the_formula(temperatures):
    (student, teacher), center = draw()
    assert float(self_distillation(student, teacher, center, *temperatures)) == pytest.approx(
        reference(student, teacher, center, *temperatures), rel=1e-5
    )


def test_what_all_prototypes_have_in_common_does_not_matter():
    (student, teacher), center = draw()
    loss = float(self_distillation(student, teacher, center, 0.1, 0.04))
    assert float(self_distillation(student + 0.5, teacher, center, 0.1, 0.04)) == pytest.approx(
        loss, rel=1e-4
    )
    shift = np.array([0.5, -0.2, 0.1, 0, 0.3], "float32")
    assert float(self_distillation(student, teacher + shift, center + shift, 0.1, 0.04)) == pytest.approx(
        loss, rel=1e-4
    )
    order = [3, 1, 0, 4, 2]
    assert float(
        self_distillation(student[:, order], teacher[:, order], center[order], 0.1, 0.04)
    ) == pytest.approx(loss, rel=1e-5)


def test_prototypes_give_cosines():
    layer = Prototypes(4, seed=1)
    x = np.random.default_rng(0).normal(size=(3, 7)).astype("float32")
    cosines = np.asarray(layer(x))
    kernel = np.asarray(layer.kernel)
    for i, j in np.ndindex(cosines.shape):
        cosine = x[i] @ kernel[j] / np.linalg.norm(x[i]) / np.linalg.norm(kernel[j])
        assert cosines[i, j] == pytest.approx(cosine, abs=1e-5)
    np.testing.assert_allclose(layer(5 * x), cosines, atol=1e-5)


def test_the_centre_follows_the_teacher_and_its_temperature_the_schedule(tiny_encoder, batch):
    method = METHODS["dino"].build(tiny_encoder(), Views(64), prototypes=20, hidden=16)
    center = np.zeros(20)
    for _ in range(3):
        outputs = method(batch, training=True)
        np.testing.assert_allclose(outputs["center"], center, atol=1e-6)  # of before
        center = 0.9 * center + 0.1 * np.asarray(outputs["teacher"]).mean(0)
        np.testing.assert_allclose(method.center, center, atol=1e-6)
    method(batch, training=False)
    np.testing.assert_allclose(method.center, center, atol=1e-6)
    for share, temperature in ((0, 0.025), (WARM_UP / 2, 0.0325), (WARM_UP, 0.04), (1, 0.04)):
        method.set_progress(share)
        assert float(method.teacher_temperature.value) == pytest.approx(temperature)


def test_the_loss_at_chance_is_that_of_a_student_without_preference(tiny_encoder, batch):
    method = METHODS["dino"].build(tiny_encoder(), Views(64), prototypes=20, hidden=16)
    (_, teacher), center = draw(12, 20)
    flat = keras.ops.zeros((12, 20))
    loss = method.compute_loss(y_pred={"student": flat, "teacher": teacher, "center": center})
    assert float(loss) == pytest.approx(method.chance(6), rel=1e-5)
