import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import center_of_mass

from mri_transfer.pretrain.augmentations import pasted_lesions

NAMES = pasted_lesions._UNIFORM


def heads(pairs, side=80):
    """Discs of grey 0.5 on air, the second slice of a pair a little darker."""
    y, x = np.mgrid[:side, :side] / side - 0.5
    head = 0.5 * (np.hypot(x, y) < 0.4)
    return np.stack([head] * pairs + [0.9 * head] * pairs).astype(np.float32)


def numbers(pairs, seed=0, **fixed):
    uniform, cells, waves = (
        np.array(values) for values in pasted_lesions.uniform_numbers(pairs, keras.random.SeedGenerator(seed))
    )
    for name, value in fixed.items():
        uniform[:, NAMES.index(name)] = value
    return uniform, cells, waves


def paste(x, draws, share=1.0):
    return tuple(np.array(array) for array in pasted_lesions.paste(x, draws, share))


# A round, opaque, bright one that leaves its surroundings alone.
PLAIN = {
    "rim": 1.0,
    "core": 1.0,
    "width": 0.0,
    "halo": 0.5,
    "stretch": 0.5,
    "rough": 0.0,
    "texture": 0.0,
    "through": 0.0,
}


def test_no_share_changes_nothing():
    x = heads(4)
    images, present, _ = paste(x, numbers(4), 0.0)
    np.testing.assert_array_equal(images, x)
    assert not present.any()


def test_as_many_pairs_as_the_share_says_have_one_and_the_others_are_left_alone():
    x = heads(300, side=32)
    images, present, _ = paste(x, numbers(300), 0.7)
    assert 0.6 < present.mean() < 0.8
    changed = (images != x).any(axis=(1, 2))
    assert not changed[np.tile(present, 2) == 0].any()
    assert changed[np.tile(present, 2) == 1].mean() > 0.95  # some are as grey as what they lie on


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.sampled_from([48, 80, 125]))
def test_greys_stay_in_range_and_are_finite(seed, side):
    x = heads(6, side)
    x[0] = 0  # an empty slice
    images, _, descriptions = paste(x, numbers(6, seed))
    assert np.isfinite(images).all()
    assert images.min() >= 0
    assert images.max() <= 1
    assert ((descriptions >= 0) & (descriptions <= 1)).all()


def test_it_lies_where_it_is_said_to_with_the_radius_that_is_said():
    x = heads(40)
    images, _, descriptions = paste(x, numbers(40, **PLAIN))
    low, high = pasted_lesions.RADIUS
    for i in range(40):
        across, down, size, core, rim = descriptions[i]
        opacity = (images[i] - x[i]) / np.maximum(1.0 - x[i], 1e-6)
        y, place = center_of_mass(opacity)
        assert ((place + 0.5) / 80, (y + 0.5) / 80) == pytest.approx((across, down), abs=0.03)
        assert np.hypot(across - 0.5, down - 0.5) < 0.47  # in the head
        radius = low * (high / low) ** size
        if np.hypot(across - 0.5, down - 0.5) + radius < 0.5:
            assert opacity.sum() / 80**2 == pytest.approx(np.pi * radius**2, rel=0.15)
        assert (core, rim) == (1.0, 1.0)


def test_core_and_rim_have_the_greys_that_are_said():
    """As shares of the head's mean, from a tenth of it to twice it."""
    x = heads(1, side=160)
    look = {**PLAIN, "core": 0.0, "rim": 0.5, "radius": 1.0, "width": 1.0, "x": 0.5, "y": 0.5}
    images, _, descriptions = paste(x, numbers(1, **look))
    across, down = (int(160 * place) for place in descriptions[0, :2])
    least, most = pasted_lesions.GREY
    assert images[0, down, across] == pytest.approx(0.5 * least, rel=0.01)
    rim = images[0, down, across + int(160 * pasted_lesions.RADIUS[1] * 0.8)]
    assert rim == pytest.approx(0.5 * (least + most) / 2, rel=0.01)


def test_both_slices_of_a_pair_have_the_same_one_at_the_same_place():
    x = heads(30)
    images, _, _ = paste(x, numbers(30, through=0.0, halo=0.5))
    first, second = np.abs(images - x)[:30] > 0.05, np.abs(images - x)[30:] > 0.05
    either = (first | second).sum(axis=(1, 2))
    assert ((first & second).sum(axis=(1, 2)) > 0.5 * either).mean() > 0.8  # not where greys coincide


def test_pairs_do_not_depend_on_one_another():
    x, draws = heads(6), numbers(6)
    whole = paste(x, draws)
    order = np.array([3, 1, 5, 0, 2, 4])
    moved = paste(x[np.r_[order, order + 6]], tuple(values[order] for values in draws))
    np.testing.assert_allclose(moved[0], whole[0][np.r_[order, order + 6]], atol=1e-6)
    np.testing.assert_allclose(moved[2], whole[2][order])


def test_everything_about_a_lesion_is_drawn_independently():
    _, _, descriptions = paste(heads(3000, side=16), numbers(3000))
    correlation = np.corrcoef(descriptions[:, 2:].T)
    assert np.abs(correlation - np.eye(3)).max() < 0.07
