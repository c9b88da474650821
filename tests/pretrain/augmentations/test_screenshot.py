import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.fft import dctn, idctn

from mri_transfer.pretrain.augmentations import screenshot


def full(value, n=3):
    return np.full(n, value, np.float32)


def pictures(side=40, seed=0, n=3):
    return np.random.default_rng(seed).random((n, side, side), dtype=np.float32)


def jpeg_reference(image, quality):
    """One picture, 0..255, a block at a time, by SciPy's transform."""
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    table = np.clip(np.floor((screenshot.LUMINANCE.astype(np.float64) * scale + 50) / 100), 1, 255)
    side = len(image)
    padded = np.pad(image, ((0, -side % 8), (0, -side % 8)), mode="symmetric") - 128.0
    for top in range(0, len(padded), 8):
        for left in range(0, len(padded), 8):
            block = dctn(padded[top : top + 8, left : left + 8], norm="ortho")
            padded[top : top + 8, left : left + 8] = idctn(np.round(block / table) * table, norm="ortho")
    return np.clip(padded[:side, :side] + 128, 0, 255)


@settings(max_examples=12)
@given(st.integers(8, 45), st.integers(5, 95), st.integers(0, 100))
def test_jpeg_loses_what_rounding_blocks_of_cosines_loses(side, quality, seed):
    x = pictures(side, seed, n=2)
    outputs = 255 * np.asarray(screenshot.jpeg(x, full(quality, 2)))
    for output, image in zip(outputs, x, strict=True):
        wrong = np.abs(output - jpeg_reference(255 * image, quality)) > 0.05
        # A coefficient that lies on the edge of two steps may be rounded either way: that block differs, no other.
        blocks = np.pad(wrong, ((0, -side % 8), (0, -side % 8))).reshape(-(-side // 8), 8, -(-side // 8), 8)
        assert blocks.any(axis=(1, 3)).sum() <= 1


def test_jpeg_loses_about_what_a_real_encoder_does():
    from skimage import data

    image = data.camera()[100:356, 100:356]
    for quality in (10, 30, 75):
        output = 255 * np.asarray(screenshot.jpeg(image[None].astype(np.float32) / 255, full(quality, 1)))[0]
        file = io.BytesIO()
        Image.fromarray(image).save(file, format="JPEG", quality=quality)
        real = np.asarray(Image.open(file)).astype(float)
        # Pillow rounds to whole greys within, too.
        assert np.sqrt(np.mean((output - real) ** 2)) < 1.2
        assert np.sqrt(np.mean((output - image) ** 2)) > 1.5


def test_neutral_parameters_change_nothing():
    x = pictures(24)
    zero = full(0.0)
    np.testing.assert_allclose(np.asarray(screenshot.lift_black(x, zero)), x)
    np.testing.assert_array_equal(np.asarray(screenshot.lower_depth(x, zero)), x)
    np.testing.assert_array_equal(np.asarray(screenshot.jpeg(x, zero)), x)
    np.testing.assert_array_equal(np.asarray(screenshot.hide(x, side=zero, left=full(0.5), top=zero)), x)
    edges = dict.fromkeys(("left", "right", "top", "bottom"), zero)
    np.testing.assert_array_equal(np.asarray(screenshot.fill_outside(x, **edges, grey=full(1.0))), x)


@settings(max_examples=20)
@given(st.sampled_from([20, 24, 33]), *[st.floats(0, 0.4)] * 4, st.floats(0, 1))
def test_strips_are_constant_and_the_rest_is_untouched(side, left, right, top, bottom, grey):
    x = pictures(side, n=1)
    widths = {"left": left, "right": right, "top": top, "bottom": bottom}
    parameters = {name: full(width, 1) for name, width in widths.items()}
    output = np.asarray(screenshot.fill_outside(x, **parameters, grey=full(grey, 1)))[0]
    at = (np.arange(side) + 0.5) / side
    inside = ((at > top) & (at < 1 - bottom))[:, None] & ((at > left) & (at < 1 - right))[None]
    # A pixel whose centre lies on an edge may fall to either side.
    on_edge = [
        np.abs(at[:, None] - [low, 1 - high]).min(axis=1) < 1e-5
        for low, high in ((top, bottom), (left, right))
    ]
    clear = ~(on_edge[0][:, None] | on_edge[1][None])
    np.testing.assert_allclose(output[clear], np.where(inside, x[0], grey)[clear], atol=1e-6)


def test_a_square_is_hidden_where_it_should_be():
    x = np.ones((1, 40, 40), np.float32)
    output = np.asarray(screenshot.hide(x, side=full(0.25, 1), left=full(0.5, 1), top=full(0.1, 1)))[0]
    expected = np.ones((40, 40))
    expected[4:14, 20:30] = 0
    np.testing.assert_array_equal(output, expected)


@pytest.mark.parametrize("levels", [2, 4, 16, 100])
def test_low_depth_leaves_so_many_greys_and_keeps_black_and_white(levels):
    x = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(1, 64, 64)
    output = np.asarray(screenshot.lower_depth(x, full(levels, 1)))
    assert len(np.unique(output.round(5))) == levels
    assert output.min() == 0
    assert output.max() == 1
    assert np.abs(output - x).max() <= 0.5 / (levels - 1) + 1e-6


def test_lifting_black_keeps_white():
    output = np.asarray(screenshot.lift_black(np.array([[[0.0, 0.5, 1.0]]], np.float32), full(0.2, 1)))
    np.testing.assert_allclose(output[0, 0], [0.2, 0.6, 1.0], atol=1e-6)
