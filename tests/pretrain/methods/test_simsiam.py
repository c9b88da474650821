import numpy as np
import pytest
from keras import ops

from mri_transfer.pretrain.augmentations.views import Views
from mri_transfer.pretrain.methods.byol import normalised_regression
from mri_transfer.pretrain.methods.simsiam import SimSiam, negative_cosine


def draw(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(6, 5)).astype("float32"), rng.normal(size=(6, 5)).astype("float32")


def test_equals_the_formulas():
    """Equation 1 of SimSiam and 2 of BYOL, one row at a time."""
    p, z = draw()
    cosines, distances = [], []
    for a, b in zip(p.astype(float), z.astype(float), strict=True):
        a, b = a / np.sqrt(a @ a), b / np.sqrt(b @ b)
        cosines.append(a @ b)
        distances.append(((a - b) ** 2).sum())
    assert float(negative_cosine(p, z)) == pytest.approx(-np.mean(cosines), rel=1e-5)
    assert float(normalised_regression(p, z)) == pytest.approx(np.mean(distances), rel=1e-5)


def test_only_directions_count():
    p, z = draw()
    scale = np.arange(1, 7, dtype="float32")[:, None]
    for loss, best, worst in ((negative_cosine, -1, 1), (normalised_regression, 0, 4)):
        assert float(loss(scale * p, 0.2 * z)) == pytest.approx(float(loss(p, z)), rel=1e-5)
        assert float(loss(p, z)) == pytest.approx(float(loss(z, p)), rel=1e-6)
        assert float(loss(p, 3 * p)) == pytest.approx(best, abs=1e-5)
        assert float(loss(p, -p)) == pytest.approx(worst, abs=1e-5)


def test_each_view_predicts_the_other(tiny_encoder):
    """Swapping the views of all pairs swaps the terms: the loss of (a, b) is that of (b, a)."""
    method = SimSiam(tiny_encoder(), Views(64), width=5)
    (p, z), n = draw(), 3
    swap = np.r_[n : 2 * n, :n]
    loss = float(method.compute_loss(y_pred={"predicted": ops.convert_to_tensor(p), "projected": z}))
    swapped = float(
        method.compute_loss(y_pred={"predicted": ops.convert_to_tensor(p[swap]), "projected": z[swap]})
    )
    expected = float(negative_cosine(p[:n], z[n:]) + negative_cosine(p[n:], z[:n])) / 2
    assert loss == pytest.approx(expected, rel=1e-5)
    assert swapped == pytest.approx(loss, rel=1e-6)
