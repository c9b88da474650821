"""Global figures are what NumPy and SciPy say of a picture, and know nothing of where things lie in it."""

import numpy as np
from scipy import stats

from mri_transfer.datasets.tumors.global_figures import FIGURES, global_figures, picture_measures


def pictures(count=6, side=80):
    rng = np.random.default_rng(0)
    images = np.zeros((count, side, side), np.uint8)
    for image in images:
        left, top = rng.integers(5, 20, 2)
        image[top : top + 50, left : left + 45] = rng.integers(60, 220, (50, 45))
    return images


def test_against_numpy_and_scipy():
    images = pictures()
    figures = global_figures(images)
    assert figures.shape == (6, 17) == (6, len(FIGURES))
    table = dict(zip(FIGURES, figures.T, strict=True))
    np.testing.assert_allclose(table["mean"], images.mean((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(table["contrast"], images.std((1, 2)), rtol=1e-6)
    entropy = [stats.entropy(np.bincount(image.ravel(), minlength=256), base=2) for image in images]
    np.testing.assert_allclose(table["entropy"], entropy, rtol=1e-6)
    np.testing.assert_allclose(table["dark"], (images < 16).mean((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(table["percentile_95"], np.percentile(images, 95, axis=(1, 2)), rtol=1e-6)
    assert (np.abs(table["border"] - (1 - 50 * 45 / 80**2)) < 0.05).all()


def test_what_lies_within_the_margins_may_change_places():
    """Rows of the content in another order: a lesion elsewhere, and the same figures but for edges between rows."""
    images = pictures()
    moved = images.copy()
    for image in moved:
        (rows,) = np.nonzero(image.any(axis=1))
        image[rows] = image[np.random.default_rng(1).permutation(rows)]
    before, after = global_figures(images), global_figures(moved)
    columns = [n for n, name in enumerate(FIGURES) if name not in ("sharpness", "edges")]
    np.testing.assert_allclose(before[:, columns], after[:, columns], rtol=1e-6)
    assert not np.array_equal(images, moved)


def test_a_plain_picture_has_finite_figures():
    assert np.isfinite(global_figures(np.full((1, 32, 32), 7, np.uint8))).all()
    assert picture_measures(np.full((32, 32), 7, np.uint8))["sharpness"] == 0
