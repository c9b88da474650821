"""Figures of features against independent references, known cases and invariances."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist
from scipy.stats import entropy, ortho_group

from mri_transfer.pretrain.health.measures import (
    alignment,
    alignment_ratio,
    effective_rank,
    feature_spread,
    uniformity,
)

shapes = st.tuples(st.integers(2, 40), st.integers(2, 30), st.integers(0, 2**32 - 1))


def normal(shape):
    rows, columns, seed = shape
    return np.random.default_rng(seed).normal(size=(rows, columns))


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@given(shapes)
def test_figures_equal_their_formulas(shape):
    x = normal(shape)
    n, d = x.shape
    y = x + normal((n, d, 1))
    z, w = unit(x), unit(y)
    assert alignment(x, y) == pytest.approx(
        np.mean([np.sum((a - b) ** 2) for a, b in zip(z, w, strict=True)])
    )
    # As in the authors' published code: torch.pdist(x).pow(2).mul(-2).exp().mean().log()
    assert uniformity(x) == pytest.approx(np.log(np.exp(-2 * pdist(z) ** 2).mean()), abs=1e-9)
    columns = [np.sqrt(np.mean((z[:, j] - z[:, j].mean()) ** 2)) for j in range(d)]
    assert feature_spread(x) == pytest.approx(np.sqrt(d) * np.mean(columns))
    assert effective_rank(x) == pytest.approx(np.exp(entropy(np.linalg.svd(x, compute_uv=False))), rel=1e-5)


@given(shapes, st.sampled_from([1e-30, 1e-3, 1e3, 1e30]))
def test_scale_order_and_rotation_do_not_matter(shape, scale):
    x = normal(shape)
    rng = np.random.default_rng(shape[2])
    rows = rng.permutation(len(x))
    turned = x @ ortho_group.rvs(x.shape[1], random_state=rng)
    for figure in (feature_spread, uniformity, effective_rank):
        assert figure(scale * x) == pytest.approx(figure(x), rel=1e-5)
        assert figure(x[rows]) == pytest.approx(figure(x), rel=1e-5)
    for figure in (uniformity, effective_rank, lambda z: alignment(z, np.roll(z, 1, axis=0))):
        assert figure(turned) == pytest.approx(figure(x), rel=1e-5, abs=1e-7)
    # Unit length makes the scale of single rows irrelevant for all but the rank.
    stretched = x * rng.uniform(0.1, 10, (len(x), 1))
    for figure in (feature_spread, uniformity):
        assert figure(stretched) == pytest.approx(figure(x))


def test_all_the_same_is_collapse():
    x = np.tile(np.random.default_rng(0).normal(size=20), (50, 1))
    assert feature_spread(x) == pytest.approx(0, abs=1e-9)
    assert uniformity(x) == pytest.approx(0, abs=1e-9)
    assert alignment(x, x[::-1]) == pytest.approx(0, abs=1e-9)
    assert effective_rank(x) == pytest.approx(1, rel=1e-3)


def test_evenly_spread_is_ideal():
    x = np.random.default_rng(0).normal(size=(1000, 64))
    assert feature_spread(x) == pytest.approx(1, abs=0.01)
    # E[exp(-2 |x - y|^2)] for independent points: exp(-4) E[exp(4 cos)], cos of mean 0 and variance 1/d.
    assert uniformity(x) == pytest.approx(-4 + 16 / 64 / 2, abs=0.03)
    assert alignment(x[:500], x[500:]) == pytest.approx(2, abs=0.05)
    assert effective_rank(x) > 60


@pytest.mark.parametrize("rank", [1, 3, 10])
def test_rank_of_features_in_a_few_directions(rank):
    rng = np.random.default_rng(rank)
    basis = ortho_group.rvs(32, random_state=rng)[:rank]
    signs = np.array([np.sign(rng.normal(size=200)) for _ in range(rank)]).T
    # Orthonormal columns have equal singular values.
    weights = np.linalg.qr(signs + 1e-3 * rng.normal(size=signs.shape))[0]
    assert effective_rank(weights @ basis) == pytest.approx(rank, rel=1e-3)
    assert effective_rank((weights @ basis).T) == pytest.approx(rank, rel=1e-3)


def test_zero_features_are_no_error():
    x = np.zeros((5, 4))
    assert [feature_spread(x), uniformity(x), effective_rank(x), alignment(x, x)] == [0, 0, 0, 0]
    x[0] = 1
    assert all(np.isfinite([feature_spread(x), uniformity(x), effective_rank(x)]))


def test_large_float32_features_do_not_overflow():
    x = (np.random.default_rng(0).normal(size=(20, 8)) * 1e38).astype("float32")
    small = x.astype("float64") / 1e38
    assert feature_spread(x) == pytest.approx(feature_spread(small))
    assert effective_rank(x) == pytest.approx(effective_rank(small))


def test_pairs_are_counted_once_and_never_with_themselves():
    x = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    distances = [np.sum((x[i] - x[j]) ** 2) for i, j in combinations(range(3), 2)]
    assert sorted(distances) == [2, 2, 4]
    assert uniformity(x) == pytest.approx(np.log(np.mean(np.exp(-2 * np.array([2, 2, 4.0])))))


@given(shapes)
def test_alignment_ratio_compares_pairs_with_all_others(shape):
    x = normal(shape)
    y = x + 0.5 * normal((*x.shape, 1))
    z, w = unit(x), unit(y)
    others = [np.sum((z[i] - w[j]) ** 2) for i in range(len(z)) for j in range(len(z)) if i != j]
    assert alignment_ratio(x, y) == pytest.approx(alignment(x, y) / np.mean(others))


def test_alignment_ratio_of_nothing_learned_and_of_collapse_is_one():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 400, 32))
    assert alignment_ratio(x, y) == pytest.approx(1, abs=0.02)
    assert alignment_ratio(10 + 1e-3 * x, 10 + 1e-3 * y) == pytest.approx(1, abs=0.02)
    assert alignment_ratio(np.ones((5, 3)), np.ones((5, 3))) == 1
    assert alignment_ratio(x, x + 0.1 * y) < 0.02
