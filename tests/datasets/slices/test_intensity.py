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
    spoilt_window = find_window(spoilt)
    assert (spoilt_window.low, spoilt_window.high) == pytest.approx((window.low, window.high), rel=0.03)


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
    grey = window.grey(voxels.transpose(2, 0, 1)[:, ::-1])
    assert grey.dtype == np.float32
    assert grey.flags.c_contiguous
    np.testing.assert_allclose(grey, expected.transpose(2, 0, 1)[:, ::-1], rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(voxels, before)


def test_grey_is_the_window_stretched_to_bytes():
    window = Window(level=10.5, low=20.0, high=70.0, hole=50.0)
    voxels = np.array([[[5, 10, 11, 20, 45, 50, 60, 70, 99]]], np.int16)
    assert window.foreground(voxels)[0, 0].tolist() == [
        False,
        False,
        True,
        True,
        True,
        False,
        True,
        True,
        True,
    ]
    assert window.foreground(voxels.astype(np.float32)).tolist() == window.foreground(voxels).tolist()
    grey = window.grey(voxels)
    assert grey.dtype == np.float32
    np.testing.assert_allclose(grey[0, 0], [0, 0, 0, 0, 127.5, 0, 204, 255, 255], rtol=1e-6)
    assert voxels[0, 0, 0] == 5  # a copy


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_the_level_is_a_third_of_the_way_to_otsus(head, dtype):
    """Of 256 bins between the 0.1 and 99.9 percentiles, by NumPy and scikit-image."""
    voxels = head().astype(dtype)
    bottom, top = np.percentile(voxels, (0.1, 99.9), method="inverted_cdf")
    counts, edges = np.histogram(np.clip(voxels, bottom, top), 256, (bottom, top))
    split = edges[threshold_otsu(hist=(counts, np.arange(256))) + 1]
    assert find_window(voxels).level == pytest.approx(bottom + 0.35 * (split - bottom), rel=1e-5)


@pytest.mark.parametrize(
    ("level", "inside"),
    [(-1.0, 256), (-0.5, 256), (0.0, 255), (0.5, 255), (253.9, 2), (254.0, 1), (255.0, 0), (300.0, 0)],
)
def test_levels_inside_and_outside_of_what_bytes_hold(level, inside):
    voxels = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    assert Window(level, 0, 1).foreground(voxels).sum() == inside


@given(
    st.lists(st.integers(0, 255), min_size=27, max_size=90),
    st.sampled_from([np.uint8, np.int16, np.uint16, np.float32]),
)
def test_a_window_follows_from_the_values_and_not_from_how_they_are_stored(values, dtype):
    """Bytes are counted in pairs, short integers one by one, floats are sorted."""
    values = [0] * 30 + values + [255]
    shape = (len(values), 1, 1)
    try:
        expected = find_window(np.array(values, np.int32).reshape(shape))
    except BadVolume:
        with pytest.raises(BadVolume):
            find_window(np.array(values, dtype).reshape(shape))
        return
    window = find_window(np.array(values, dtype).reshape(shape))
    assert (window.low, window.high, window.hole) == (expected.low, expected.high, expected.hole)
    assert window.level == pytest.approx(expected.level)


def test_negative_whole_numbers_are_counted_from_the_smallest():
    voxels = np.repeat([-1000, -990, 40, 60, 80, 100], [500, 100, 100, 100, 100, 100]).astype(np.int16)
    window = find_window(voxels.reshape(10, 10, 10))
    assert -1000 < window.level < -990
    assert (window.low, window.high) == (-990, 100)
    moved = find_window((voxels.astype(np.int32) + 1000).astype(np.uint16).reshape(10, 10, 10))
    assert (moved.level, moved.low, moved.high) == pytest.approx((window.level + 1000, 10, 1100))


def stripped(outside: float, below: float, corner=0.0) -> np.ndarray:
    """1,000 voxels: a share of zeros, those in the corners first, and a share of the others below zero."""
    places = np.arange(1000).reshape(10, 10, 10)
    order = np.unique(np.concatenate([places[::9, ::9, ::9].ravel(), places.ravel()]), return_index=True)[
        1
    ].argsort()
    zeros = round(1000 * outside)
    inside = 1000 - zeros
    negative = round(below * inside)
    values = np.concatenate([np.linspace(-2, -0.1, negative), np.linspace(0.1, 2, inside - negative)])
    voxels = np.zeros(1000, np.float32)
    voxels[order[zeros:]] = np.random.default_rng(0).permutation(values)
    voxels[-1] = corner
    return voxels.reshape(10, 10, 10)


@pytest.mark.parametrize(
    ("volume", "hole"),
    [
        (stripped(0.5, 0.5), 0.0),
        (stripped(0.201, 0.5), 0.0),
        (stripped(0.2, 0.5), None),  # zeros are not more than a fifth
        (stripped(0.5, 0.022), 0.0),
        (stripped(0.5, 0.02), None),  # nor what is below zero more than a hundredth
        (stripped(0.5, 0.5, corner=0.7), None),  # not in every corner
        (stripped(0.5, 0.0), None),  # nothing below zero
    ],
)
def test_zeros_among_negatives_are_a_hole_if_they_are_many_and_in_all_corners(volume, hole):
    assert find_window(volume).hole == hole


def test_large_volumes_are_judged_from_a_grid(monkeypatch):
    from mri_transfer.datasets.slices import intensity

    rng = np.random.default_rng(0)
    voxels = np.where(rng.random((40, 40, 40)) < 0.5, 0, rng.normal(100, 10, (40, 40, 40))).astype(np.float32)
    whole = find_window(voxels)
    monkeypatch.setattr(intensity, "_SAMPLE", 8000)
    grid = find_window(voxels[::2, ::2, ::2])
    window = find_window(voxels)
    assert (window.low, window.high) == (grid.low, grid.high)
    assert (window.low, window.high) == pytest.approx((whole.low, whole.high), rel=0.05)
    # A grid that meets one value only says nothing.
    voxels[::2, ::2, ::2] = 0
    assert find_window(voxels).high == pytest.approx(whole.high, rel=0.05)
