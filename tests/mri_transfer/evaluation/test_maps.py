"""Maps of features that leave scikit-learn nothing to spread."""

import warnings

import numpy as np
import pytest

from mri_transfer.evaluation.maps import tsne
from mri_transfer.finetune.report.insight import flattened
from mri_transfer.pretrain.health import embedding_map

RNG = np.random.default_rng(0)
FEATURES = {
    "all alike": np.ones((120, 5), np.float32),
    "all zero": np.zeros((120, 5), np.float32),
    "one number each": RNG.normal(size=(120, 1)).astype(np.float32),
    "of one kind but for one": np.vstack([np.ones((119, 5)), np.zeros((1, 5))]).astype(np.float32),
    "two kinds": np.repeat(RNG.normal(size=(2, 5)), 60, axis=0).astype(np.float32),
}


@pytest.mark.parametrize("layout", [flattened, embedding_map.tsne, tsne])
@pytest.mark.parametrize("kind", FEATURES)
def test_features_with_little_or_no_spread_have_a_map(layout, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        points = layout(FEATURES[kind])
    assert points.shape == (120, 2)
    assert np.isfinite(points).all()
    if kind.startswith("all"):
        assert not points.any()


def test_one_number_each_keeps_its_neighbours():
    values = RNG.normal(size=(200, 1))
    values[:100] += 50
    points = tsne(values)
    left, right = points[:100, 0], points[100:, 0]
    assert left.min() > right.max() or right.min() > left.max()
