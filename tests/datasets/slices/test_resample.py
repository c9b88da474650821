"""Against Pillow, which resizes one picture at a time, and by what any resize must keep."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from mri_transfer.datasets.slices.resample import axis_matrix, resample_stack

sides = st.integers(8, 70)


def pillow(picture: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(
        Image.fromarray(picture.astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC)
    )


@settings(max_examples=60, deadline=None)
@given(rows=sides, columns=sides, size=st.integers(4, 90), seed=st.integers(0, 9))
def test_a_picture_that_fills_the_square_is_resized_as_pillow_does(rows, columns, size, seed):
    stack = np.random.default_rng(seed).uniform(0, 255, (3, rows, columns)).astype(np.float32)
    spacing = (120.0 / rows, 120.0 / columns)  # other pixels in height than in width, but a square of 120 mm
    resampled = resample_stack(stack, spacing, size)
    for picture, expected in zip(resampled, stack, strict=True):
        np.testing.assert_allclose(picture, pillow(expected, size), atol=0.01)


@settings(max_examples=40, deadline=None)
@given(
    short=sides, pad=st.integers(0, 20), size=st.integers(4, 90), zoom=st.floats(0.3, 6), tall=st.booleans()
)
@example(short=54, pad=2, size=4, zoom=0.8548857900222426, tall=False)  # 58 * zoom / zoom is not quite 58
def test_padding_to_a_square_is_as_if_zeros_had_been_added_first(short, pad, size, zoom, tall):
    picture = np.random.default_rng(short).uniform(0, 255, (short, short + 2 * pad)).astype(np.float32)
    padded = np.pad(picture, ((pad, pad), (0, 0)))
    if tall:
        picture, padded = picture.T, padded.T
    resampled = resample_stack(np.ascontiguousarray(picture)[None], (zoom, zoom), size)[0]
    np.testing.assert_allclose(resampled, pillow(padded, size), atol=0.01)


@given(count=sides, spacing=st.floats(0.2, 5), size=st.integers(4, 90), flip=st.booleans())
def test_weights_of_an_output_sample_sum_to_one(count, spacing, size, flip):
    matrix = axis_matrix(count, spacing, count * spacing, size, flip)
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-5)


@given(count=sides, extra=st.floats(1, 3), size=st.integers(4, 90))
def test_padding_is_zero_and_the_middle_is_untouched(count, extra, size):
    sums = axis_matrix(count, 1.0, count * extra, size).sum(axis=1)
    centres = (np.arange(size) + 0.5) * count * extra / size - count * (extra - 1) / 2
    reach = 2.0 * max(count * extra / size, 1.0) + 1
    np.testing.assert_allclose(sums[(centres > reach) & (centres < count - reach)], 1.0, atol=1e-5)
    np.testing.assert_allclose(sums[(centres < -reach) | (centres > count + reach)], 0.0, atol=1e-6)


@pytest.mark.parametrize("flip", [(True, False), (False, True), (True, True)])
def test_flipping_in_the_matrix_is_flipping_the_picture(flip):
    stack = np.random.default_rng(0).uniform(0, 1, (2, 31, 44)).astype(np.float32)
    axes = [axis for axis, wanted in zip((1, 2), flip, strict=True) if wanted]
    resampled = resample_stack(stack, (1.0, 0.8), 25, flip)
    np.testing.assert_allclose(resampled, np.flip(resample_stack(stack, (1.0, 0.8), 25), axes), atol=1e-5)


def test_shrinking_removes_what_the_smaller_grid_cannot_show():
    stripes = np.tile([0.0, 255.0], 64).astype(np.float32) * np.ones((1, 128, 1), np.float32)
    small = resample_stack(stripes, (1.0, 1.0), 32)[0]
    assert small[4:-4, 4:-4].std() < 1.0  # without anti-aliasing the stripes would turn into others
    np.testing.assert_allclose(small[4:-4, 4:-4].mean(), 127.5, atol=0.5)
