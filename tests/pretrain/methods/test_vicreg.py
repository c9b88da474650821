import numpy as np
import pytest

from mri_transfer.pretrain.augmentations.views import Views
from mri_transfer.pretrain.methods.vicreg import VICReg, vicreg_loss


def reference(z_a, z_b, invariance, variance, covariance):
    """Equations 1 to 6 of the paper, with the averages of the authors' code, in float64."""
    (n, d), loss = z_a.shape, 0.0
    loss += invariance * sum(((a - b) ** 2).sum() for a, b in zip(z_a, z_b, strict=True)) / n / d
    for z in (z_a.astype(float), z_b.astype(float)):
        mean = z.sum(0) / n
        for i in range(d):
            for j in range(d):
                c = sum((row[i] - mean[i]) * (row[j] - mean[j]) for row in z) / (n - 1)
                if i == j:
                    loss += variance * max(0, 1 - np.sqrt(c + 1e-4)) / d / 2
                else:
                    loss += covariance * c**2 / d
    return loss


def draw(n=7, d=4, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return (scale * rng.normal(size=(2, n, d))).astype("float32")


@pytest.mark.parametrize("weights", [(25, 25, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1)])
@pytest.mark.parametrize("scale", [0.2, 1, 3])
def test_equals_the_formula(weights, scale):
    z_a, z_b = draw(scale=scale)
    assert float(vicreg_loss(z_a, z_b, *weights)) == pytest.approx(
        reference(z_a, z_b, *weights), rel=1e-4, abs=1e-6
    )


def test_offset_and_order_do_not_matter():
    z_a, z_b = draw()
    loss = float(vicreg_loss(z_a, z_b))
    assert float(vicreg_loss(z_b, z_a)) == pytest.approx(loss, rel=1e-5)
    assert float(vicreg_loss(z_a + 5, z_b + 5)) == pytest.approx(loss, rel=1e-4)
    assert float(vicreg_loss(z_a[:, [2, 0, 3, 1]], z_b[:, [2, 0, 3, 1]])) == pytest.approx(loss, rel=1e-5)


def test_each_term_is_least_where_it_should_be():
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], "float32")
    assert float(vicreg_loss(corners, corners)) == pytest.approx(0, abs=1e-5)
    assert float(vicreg_loss(0 * corners, 0 * corners)) == pytest.approx(25 * 0.99, rel=1e-5)  # collapsed
    same = corners[:, [0, 0, 0]]
    assert float(vicreg_loss(same, same, 1, 1, 1)) == pytest.approx(2 * 2 * (8 / 7) ** 2, rel=1e-5)


def test_chance_is_the_least_loss_of_independent_numbers(tiny_encoder):
    method = VICReg(tiny_encoder(), Views(64))
    values = {
        scale: np.mean([float(vicreg_loss(*draw(64, 40, seed, scale))) for seed in range(5)])
        for scale in (0.1, 0.2, 0.25, 0.3, 0.5, 1)
    }
    assert min(values, key=values.get) in (0.2, 0.25, 0.3)
    assert min(values.values()) == pytest.approx(method.chance(64), rel=0.02)
