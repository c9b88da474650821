"""Thresholds and windows against scikit-image, NumPy and heads whose parts are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.filters import threshold_otsu

from mri_transfer.datasets.slices.intensity import Window, find_window, otsu
from mri_transfer.datasets.volumes.volume import BadVolume


@given(
    st.lists(st.integers(0, 1000), min_size=3, max_size=256).filter(lambda counts: sum(map(bool, counts)) > 1)
)
def test_otsu_is_scikit_images(counts):
    filled = np.array(counts) + 1  # scikit-image leaves empty bins at the ends out
    assert otsu(filled) == threshold_otsu(hist=(filled, np.arange(len(filled))))


def test_percentiles_are_those_of_the_foreground(head):
    voxels = head()
    window = find_window(voxels)
    inside = voxels[voxels > window.level]
    np.testing.assert_allclose((window.low, window.high), np.percentile(inside, (0.5, 99.5)), rtol=0.01)
    whole = voxels.astype(np.int16)
    window = find_window(whole)
    expected = np.percentile(whole[whole > window.level], (0.5, 99.5), method="inverted_cdf")
    assert (window.low, window.high) == tuple(expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_fluid_belongs_to_the_head_and_noise_does_not(head, dtype):
    voxels = head().astype(dtype)
    window = find_window(voxels)
    centre = tuple(slice(n // 2 - 1, n // 2 + 1) for n in voxels.shape)
    assert window.foreground(voxels)[centre].all()  # the ventricle
    assert window.foreground(voxels)[:3].mean() < 0.01  # air
    assert 5 < window.grey(voxels[centre]).mean() < 80  # dark, not black


def test_skull_stripped_and_standardised_brains_keep_their_dark_half(head):
    brain = head()
    inside = brain > 20
    brain = np.where(inside, (brain - brain[inside].mean()) / brain[inside].std(), 0).astype(np.float32)
    window = find_window(brain)
    np.testing.assert_array_equal(window.foreground(brain), inside)
    grey = window.grey(brain)
    assert (grey[~inside] == 0).all()  # although zero is in the middle of the range
    low, high = np.percentile(brain[inside], (0.5, 99.5))
    assert (window.low, window.high) == pytest.approx((low, high), abs=0.02)


def test_a_few_huge_outliers_change_nothing(head):
    voxels = head()
    window = find_window(voxels)
    spoilt = voxels.copy()
    spoilt[5, 5, 5:9] = [1e9, -1e9, 3e9, -4e9]
    found = find_window(spoilt)
    assert (found.low, found.high) == pytest.approx((window.low, window.high), rel=0.03)


def test_a_mask_is_no_scan():
    mask = np.zeros((20, 20, 20), np.uint8)
    mask[5:15, 5:15, 5:15] = 1
    with pytest.raises(BadVolume, match="mask"):
        find_window(mask)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32])
def test_how_a_volume_lies_in_memory_changes_nothing(head, dtype):
    voxels = np.ascontiguousarray(head().astype(dtype)[:, :-3])
    expected = find_window(voxels)
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        lying = np.ascontiguousarray(voxels.transpose(order)[::-1, :, ::-1])[::-1, :, ::-1].transpose(
            np.argsort(order)
        )
        assert min(lying.strides) < 0
        assert find_window(lying) == expected
        inside = expected.foreground(lying)
        np.testing.assert_array_equal(inside, voxels > expected.level)
        assert np.sign(inside.strides).tolist() == np.sign(lying.strides).tolist()
        np.testing.assert_array_equal(expected.grey(lying), expected.grey(voxels))


@given(
    dtype=st.sampled_from([np.uint8, np.int8, np.int16, np.uint16, np.int32, np.float32]),
    seed=st.integers(0, 10_000),
    hole=st.booleans(),
)
def test_grey_levels_are_the_clipped_window_in_floating_point(dtype, seed, hole):
    rng = np.random.default_rng(seed)
    least, most = (-1e6, 1e6) if dtype == np.float32 else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    voxels = rng.uniform(least, most, (4, 5, 6)).astype(dtype)
    values = np.unique(voxels)
    low, high = float(values[len(values) // 5]), float(values[-len(values) // 5])
    window = Window(low, low, high, float(voxels[1, 2, 3]) if hole else None)
    real = voxels.astype(np.float64)
    if hole:
        real[voxels == voxels[1, 2, 3]] = low
    expected = (np.clip(real, low, high) - low) * (255 / (high - low))
    before = voxels.copy()
    found = window.grey(voxels.transpose(2, 0, 1)[:, ::-1])
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, expected.transpose(2, 0, 1)[:, ::-1], rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(voxels, before)
