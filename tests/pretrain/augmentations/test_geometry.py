import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mri_transfer.pretrain.augmentations.geometry import move, shrink
from mri_transfer.pretrain.augmentations.tensors import dct_matrix

NEUTRAL = {"zoom": 1.0, "stretch": 0.0, "angle": 0.0, "mirror": 1.0, "shift_x": 0.0, "shift_y": 0.0}


def moved(x, size, **changed):
    parameters = {name: np.full(len(x), value, np.float32) for name, value in {**NEUTRAL, **changed}.items()}
    return np.asarray(move(x.astype(np.float32), size, **parameters))


def reference(x, size, zoom, stretch, angle, mirror, shift_x, shift_y):
    """The same by SciPy: view pixel -> centred shares -> mirror, stretch, turn, zoom -> slice pixel."""
    side = len(x)
    v, u = np.mgrid[:size, :size]
    u, v = (u + 0.5) / size - 0.5, (v + 0.5) / size - 0.5
    u, v = u * np.exp(stretch), v * np.exp(-stretch)
    u, v = u * np.cos(angle) - v * np.sin(angle), u * np.sin(angle) + v * np.cos(angle)
    u = mirror * u
    column, row = (side * (zoom * u + shift_x + 0.5) - 0.5), (side * (zoom * v + shift_y + 0.5) - 0.5)
    return ndimage.map_coordinates(x, [row, column], order=1, mode="constant", cval=0.0)


def smooth(n, side, seed=0):
    rng = np.random.default_rng(seed)
    return ndimage.gaussian_filter(rng.random((n, side, side)), (0, 1.5, 1.5)).astype(np.float32)


@settings(max_examples=15)
@given(
    st.integers(8, 40),
    st.integers(8, 40),
    st.fixed_dictionaries(
        {
            "zoom": st.floats(0.3, 1.0),
            "stretch": st.floats(-0.3, 0.3),
            "angle": st.floats(-1.0, 1.0),
            "mirror": st.sampled_from([-1.0, 1.0]),
            "shift_x": st.floats(-0.3, 0.3),
            "shift_y": st.floats(-0.3, 0.3),
        }
    ),
)
def test_equals_scipy_at_any_size(side, size, parameters):
    x = smooth(1, side)
    view = moved(x, size, **parameters)[0]
    expected = reference(x[0], size, **parameters)
    # At the very edge the outermost half pixel is faded or cut, as the library's convention is.
    solid = reference(np.ones_like(x[0]), size, **parameters) > 0.999
    np.testing.assert_allclose(view[solid], expected[solid], atol=2e-3)
    assert view.shape == (size, size)


def test_neutral_parameters_change_nothing():
    x = smooth(3, 24)
    np.testing.assert_allclose(moved(x, 24), x, atol=1e-5)


def test_mirroring_exchanges_left_and_right_and_never_top_and_bottom():
    x = smooth(2, 24)
    np.testing.assert_allclose(moved(x, 24, mirror=-1.0), x[:, :, ::-1], atol=1e-5)


@pytest.mark.parametrize("degrees", [-25, 10, 25])
def test_turns_by_the_angle_as_second_moments_see_it(degrees):
    row, column = np.mgrid[-1:1:64j, -1:1:64j]
    ellipse = ((column / 0.6) ** 2 + (row / 0.25) ** 2 < 1).astype(np.float32)[None]
    image = moved(ellipse, 64, angle=np.deg2rad(degrees))[0]
    weight = image / image.sum()
    cov = np.array(
        [
            [(weight * column * column).sum(), (weight * row * column).sum()],
            [(weight * row * column).sum(), (weight * row * row).sum()],
        ]
    )
    major = np.linalg.eigh(cov)[1][:, -1]
    angle = np.rad2deg(np.arctan2(major[1], major[0]))
    assert abs((abs(angle) + 90) % 180 - 90) == pytest.approx(abs(degrees), abs=0.6)


def test_zooming_in_shows_a_part_larger():
    x = smooth(1, 48)
    view = moved(x, 48, zoom=0.5)[0]
    np.testing.assert_allclose(view, reference(x[0], 48, 0.5, 0, 0, 1, 0, 0), atol=1e-4)
    np.testing.assert_allclose(view[::2, ::2][4:-4, 4:-4], x[0, 12:36, 12:36][4:-4, 4:-4], atol=0.05)


@pytest.mark.parametrize(("side", "size"), [(64, 24), (256, 96), (160, 96)])
def test_fine_stripes_do_not_become_coarse_ones_in_small_views(side, size):
    """Stripes finer than the view's pixels must turn grey, in whatever direction they run."""
    at = np.arange(side) + 0.5
    finest = 0.5 * size / side  # cycles a slice pixel that views can show
    for frequency, most in ((0.5, 0.02), (1.3 * finest, 0.02), (1.15 * finest, 0.3)):
        wave = 0.5 + 0.5 * np.cos(2 * np.pi * frequency * at + 0.4)
        for x in (np.tile(wave, (side, 1)), np.tile(wave, (side, 1)).T):
            x = x[None].astype(np.float32)
            edge = size // 8
            view = moved(np.asarray(shrink(x, size)), size)[0, edge:-edge, edge:-edge]
            assert view.std() < most * x.std()
            assert view.mean() == pytest.approx(0.5, abs=0.01)


def test_shrinking_leaves_what_small_views_can_show():
    x = ndimage.gaussian_filter(np.random.default_rng(0).random((1, 256, 256)), (0, 6, 6)).astype(np.float32)
    view = moved(np.asarray(shrink(x, 96)), 96)[0]
    expected = reference(x[0], 96, 1, 0, 0, 1, 0, 0)
    np.testing.assert_allclose(view[2:-2, 2:-2], expected[2:-2, 2:-2], atol=2e-3)
    assert shrink(x, 256) is x
    assert shrink(x, 400) is x


def test_the_cosine_transform_is_orthonormal_and_scipys():
    from scipy.fft import dct

    x = np.random.default_rng(0).normal(size=(12, 3))
    np.testing.assert_allclose(dct_matrix(12) @ x, dct(x, axis=0, norm="ortho"), atol=1e-5)
    np.testing.assert_allclose(dct_matrix(8) @ dct_matrix(8).T, np.eye(8), atol=1e-6)
