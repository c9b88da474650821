import numpy as np
import pytest
from scipy import ndimage
from skimage import data

from mri_transfer.pretrain.views import Views


@pytest.fixture(scope="module")
def slices():
    """Sixteen 64 px crops of the head that scikit-image ships as a picture, or of its camera man."""
    image = data.camera()[::4, ::4]
    return np.stack([np.roll(image, (i * 3, i * 5), (0, 1))[:64, :64] for i in range(16)]).astype(np.uint8)


def make(views, images):
    return np.asarray(views(images))[..., 0]


def test_strength_zero_only_resamples(slices):
    np.testing.assert_allclose(make(Views(64, 0.0), slices), slices, atol=1e-3)
    small = make(Views(32, 0.0), slices)
    assert small.shape == (16, 32, 32)
    # Bilinear at half-pixel centres: every output pixel is the mean of four.
    np.testing.assert_allclose(small, slices.reshape(16, 32, 2, 32, 2).mean((2, 4)), atol=1e-2)
    large = make(Views(128, 0.0), slices)
    expected = ndimage.zoom(slices[0].astype(float), 2, order=1, grid_mode=True, mode="grid-constant")
    np.testing.assert_allclose(large[0, 4:-4, 4:-4], expected[4:-4, 4:-4], atol=1e-2)


def test_views_are_images_and_differ(slices):
    views = Views(48, seed=3)
    first, second = make(views, slices), make(views, slices)
    assert first.shape == (16, 48, 48)
    assert first.dtype == np.float32
    assert first.min() >= 0
    assert first.max() <= 255
    assert np.isfinite(first).all()
    assert np.abs(first - second).mean() > 5
    # Two of the same slice differ as well: each view is drawn for itself.
    twice = make(views, np.stack([slices[0], slices[0]]))
    assert np.abs(twice[0] - twice[1]).mean() > 2


def test_the_seed_repeats_the_views_and_its_state_goes_on(slices):
    a, b, other = Views(48, seed=3), Views(48, seed=3), Views(48, seed=4)
    first = make(a, slices)
    np.testing.assert_array_equal(first, make(b, slices))
    assert np.abs(first - make(other, slices)).mean() > 2
    state = np.asarray(a.random.state.value)
    second = make(a, slices)
    restored = Views(48, seed=99)
    make(restored, slices)
    restored.random.state.assign(state)
    np.testing.assert_array_equal(second, make(restored, slices))


def test_black_stays_black():
    """Air around the head must not become grey through gamma, window or shading (noise is another matter)."""
    views = Views(32, seed=0)
    views.NOISE = 0.0
    assert make(views, np.zeros((8, 32, 32), np.uint8)).max() < 0.01


def test_a_strength_between_disturbs_less(slices):
    plain = make(Views(64, 0.0), slices)
    change = [np.abs(make(Views(64, s, seed=1), slices) - plain).mean() for s in (0.1, 1.0)]
    assert 0 < change[0] < change[1]


def test_the_pieces_that_move_do_not_change_the_grey_of_a_flat_image():
    views = Views(64, seed=5)
    flat = np.full((8, 96, 96, 1), 0.5, np.float32)
    moved = np.asarray(views._move(flat))[:, 24:40, 24:40]
    np.testing.assert_allclose(moved, 0.5, atol=1e-5)


def test_rician_noise_has_the_rayleigh_mean_in_air():
    """Where the signal is 0 the magnitude is Rayleigh distributed: mean sigma * sqrt(pi / 2)."""
    views = Views(64, seed=5)
    air = np.zeros((32, 64, 64, 1), np.float32)
    noisy = np.asarray(views._add_noise(air))[..., 0]
    mean, root = noisy.mean((1, 2)), np.sqrt((noisy**2).mean((1, 2)) / 2)
    with_noise = root > 1e-3
    assert 4 < with_noise.sum() < 28  # about half of the views
    np.testing.assert_allclose(mean[with_noise], root[with_noise] * np.sqrt(np.pi / 2), rtol=0.02)


def test_left_and_right_are_exchanged_in_half_of_the_views():
    ramp = np.tile(np.linspace(50, 250, 64), (200, 64, 1)).astype(np.uint8)
    views = Views(64, 0.05, seed=0)
    views.NOISE = views.BLUR = views.CUTOUT = 0.0
    made = make(views, ramp)
    flipped = (made[:, :, 40:60].mean((1, 2)) < made[:, :, 4:24].mean((1, 2))).mean()
    assert 0.4 < flipped < 0.6
