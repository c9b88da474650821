import numpy as np
import pytest

from mri_transfer.pretrain.augmentations.views import Views
from mri_transfer.pretrain.methods.barlow_twins import BarlowTwins, cross_correlation_loss


def reference(z_a, z_b, redundancy):
    """Equations 1 and 2 of the paper, one pair of features at a time, in float64."""
    d, loss = z_a.shape[1], 0.0
    z_a, z_b = (z - z.mean(0) for z in (z_a.astype(float), z_b.astype(float)))
    for i in range(d):
        for j in range(d):
            c = (z_a[:, i] * z_b[:, j]).sum() / np.sqrt((z_a[:, i] ** 2).sum() * (z_b[:, j] ** 2).sum())
            loss += (1 - c) ** 2 if i == j else redundancy * c**2
    return loss


def draw(n=9, d=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)).astype("float32"), rng.normal(size=(n, d)).astype("float32")


@pytest.mark.parametrize("redundancy", [0.005, 0.3])
def test_equals_the_formula(redundancy):
    z_a, z_b = draw()
    z_b += z_a
    # The small number that keeps constant features finite, 1e-5, is not in the formula.
    assert float(cross_correlation_loss(z_a, z_b, redundancy)) == pytest.approx(
        reference(z_a, z_b, redundancy), rel=1e-4
    )


def test_scale_offset_and_order_of_features_do_not_matter():
    z_a, z_b = draw()
    loss = float(cross_correlation_loss(z_a, z_b, 0.1))
    assert float(cross_correlation_loss(z_b, z_a, 0.1)) == pytest.approx(loss, rel=1e-5)
    scale = np.array([1, 2, 30, 4, 5], "float32")
    assert float(cross_correlation_loss(scale * z_a + 2, 7 * z_b - scale, 0.1)) == pytest.approx(
        loss, rel=1e-3
    )
    order = [4, 0, 2, 1, 3]
    assert float(cross_correlation_loss(z_a[:, order], z_b[:, order], 0.1)) == pytest.approx(loss, rel=1e-5)


def test_is_least_where_views_agree_and_features_differ():
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], "float32")
    assert float(cross_correlation_loss(corners, 3 * corners, 1.0)) == pytest.approx(0, abs=1e-4)
    same = corners[:, [0, 0, 0]]
    assert float(cross_correlation_loss(same, same, 1.0)) == pytest.approx(6, rel=1e-4)
    assert float(cross_correlation_loss(0 * same, 0 * same, 1.0)) == pytest.approx(3)


def test_chance_is_the_loss_of_independent_numbers(tiny_encoder):
    method = BarlowTwins(tiny_encoder(), Views(64), width=40)
    values = [float(cross_correlation_loss(*draw(32, 40, seed), method.redundancy)) for seed in range(40)]
    assert np.mean(values) == pytest.approx(method.chance(32), rel=0.03)
