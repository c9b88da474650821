import numpy as np
import pytest
from scipy import ndimage

from mri_transfer.pretrain.augmentations import scanner

N, SIDE = 4, 48


def full(value, n=N):
    return np.full(n, value, np.float32)


def pictures(seed=0, n=N):
    """A bright disc with texture on black."""
    row, column = np.mgrid[-1:1:48j, -1:1:48j]
    texture = ndimage.gaussian_filter(np.random.default_rng(seed).random((n, SIDE, SIDE)), (0, 0.7, 0.7))
    return (texture * (row**2 + column**2 < 0.6)).astype(np.float32)


def low_pass(x, blur=0.0, fewer_rows=1.0, fewer_columns=1.0):
    n = len(x)
    parameters = {"blur": blur, "fewer_rows": fewer_rows, "fewer_columns": fewer_columns}
    return np.asarray(scanner.low_pass(x, **{name: full(value, n) for name, value in parameters.items()}))


def regrade(x, bias=None, gamma=1.0, contrast=1.0, brightness=0.0):
    n = len(x)
    bias = np.zeros((n, scanner.BIAS_TERMS), np.float32) if bias is None else bias
    numbers = {"gamma": gamma, "contrast": contrast, "brightness": brightness}
    return np.asarray(
        scanner.regrade(x, bias=bias, **{name: full(value, n) for name, value in numbers.items()})
    )


def test_neutral_parameters_change_nothing():
    x = pictures()
    np.testing.assert_allclose(low_pass(x), x, atol=1e-5)
    np.testing.assert_allclose(regrade(x), x, atol=1e-5)
    uniform = np.random.default_rng(0).random((N, SIDE, SIDE), dtype=np.float32)
    np.testing.assert_allclose(np.asarray(scanner.add_rician_noise(x, full(0.0), uniform)), x, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.7, 1.3, 3.0])
def test_blur_is_scipys_gaussian_with_mirrored_edges(sigma):
    x = pictures()
    expected = np.stack([ndimage.gaussian_filter(image, sigma, mode="reflect", truncate=6) for image in x])
    np.testing.assert_allclose(
        low_pass(x, blur=sigma), np.clip(expected, 0, 1), atol=0.012
    )  # sampled, SciPy's is another


def test_lower_resolution_removes_what_lies_beyond_the_cut_off_and_only_that():
    rng = np.random.default_rng(0)
    x = (0.5 + 0.05 * rng.normal(size=(N, SIDE, SIDE))).clip(0, 1).astype(np.float32)
    output = low_pass(x, fewer_rows=2.0)
    from scipy.fft import dctn

    before, after = (np.abs(dctn(images, axes=(1, 2), norm="ortho")).mean(0) for images in (x, output))
    cut = SIDE // 2
    assert after[cut:].max() < 1e-3
    np.testing.assert_allclose(after[: int(0.8 * cut)], before[: int(0.8 * cut)], rtol=1e-2, atol=1e-3)
    # The other direction keeps all it had.
    assert after[:cut, cut:].mean() > 0.7 * before[:cut, cut:].mean()


def test_the_bias_field_is_smooth_and_has_the_strength_it_says():
    rng = np.random.default_rng(1)
    terms = (0.25 * rng.uniform(-1, 1, (400, scanner.BIAS_TERMS))).astype(np.float32)
    field = np.asarray(scanner.bias_field(terms, SIDE))
    assert np.sqrt((field**2).mean()) == pytest.approx(0.25, rel=0.05)
    assert abs(field.mean(axis=(1, 2))).max() < 1e-5
    # A cosine of a whole wave along the side is the steepest there is: 2 pi / side a pixel, times each coefficient.
    steepest = np.abs(terms).sum(axis=1) * 2 * np.pi / SIDE
    for axis in (1, 2):
        assert (np.abs(np.diff(field, axis=axis)).max(axis=(1, 2)) <= steepest).all()


def scaled(x, to):
    """Each picture multiplied so that its head, where `to` is not black, has the mean it has there."""
    head = np.clip(to / 0.04, 0, 1)
    return x * ((to * head).sum((1, 2)) / (x * head).sum((1, 2)))[:, None, None]


def test_shading_multiplies():
    x = (0.4 * pictures()).astype(np.float32)
    terms = np.random.default_rng(2).uniform(-0.1, 0.1, (N, scanner.BIAS_TERMS)).astype(np.float32)
    expected = x * np.exp(np.asarray(scanner.bias_field(terms, SIDE)))
    np.testing.assert_allclose(regrade(x, bias=terms), scaled(expected, x), atol=1e-4)


@pytest.mark.parametrize("gamma", [0.6, 1.5])
def test_gamma_is_a_power_that_leaves_the_mean(gamma):
    x = (0.6 * pictures()).astype(np.float32)
    np.testing.assert_allclose(regrade(x, gamma=gamma), scaled(x**gamma, x), atol=2e-4)


def test_contrast_keeps_the_mean_of_the_head_and_brightness_moves_it():
    x = (0.3 + 0.3 * np.random.default_rng(0).random((N, SIDE, SIDE))).astype(np.float32)
    mean, spread = x.mean((1, 2)), x.std((1, 2))
    wide, bright = regrade(x, contrast=1.2), regrade(x, brightness=0.2)
    np.testing.assert_allclose(wide.mean((1, 2)), mean, atol=1e-3)
    np.testing.assert_allclose(wide.std((1, 2)), 1.2 * spread, rtol=1e-3)
    np.testing.assert_allclose(bright.mean((1, 2)), 1.2 * mean, rtol=1e-3)
    np.testing.assert_allclose(bright.std((1, 2)), 1.2 * spread, rtol=1e-3)


def test_dark_slices_are_not_blackened():
    x = (0.1 * pictures()).astype(np.float32)
    output = regrade(x, contrast=1.3, brightness=-0.3)
    assert (output.mean((1, 2)) > 0.65 * x.mean((1, 2))).all()


def test_the_mean_of_the_head_leaves_air_out():
    x = np.zeros((N, SIDE, SIDE), np.float32)
    x[:, 10:20, 10:20] = 0.3
    np.testing.assert_allclose(np.asarray(scanner.head_mean(x)), 0.3, rtol=1e-3)
    np.testing.assert_array_equal(np.asarray(scanner.head_mean(0 * x)), 0)


def test_air_stays_black():
    x = pictures()
    terms = np.full((N, scanner.BIAS_TERMS), 0.2, np.float32)
    output = regrade(x, bias=terms, gamma=0.6, contrast=0.7, brightness=0.3)
    assert output[x == 0].max() * 255 < 0.05  # of 255
    assert output[x > 0.2].min() > 0.05


@pytest.mark.parametrize("signal", [0.0, 0.05, 0.4])
def test_noise_is_rician(signal):
    """Against the magnitude of a complex signal with normal noise, drawn by NumPy."""
    rng, sigma, side = np.random.default_rng(0), 0.06, 160
    uniform = rng.random((8, side, side), dtype=np.float32)
    x = np.full((8, side, side), signal, np.float32)
    noise = np.asarray(scanner.add_rician_noise(x, full(sigma, 8), uniform)).ravel()
    expected = np.hypot(signal + sigma * rng.normal(size=400_000), sigma * rng.normal(size=400_000))
    quantiles = np.linspace(0.01, 0.99, 25)
    np.testing.assert_allclose(np.quantile(noise, quantiles), np.quantile(expected, quantiles), atol=1.5e-3)
    if signal == 0:  # Rayleigh
        assert noise.mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=5e-3)
    assert np.isfinite(noise).all()
    # Both halves of a number's bits are used: neighbours and pixels with equal leading bits differ.
    picture = noise.reshape(8, -1)[0]
    assert abs(np.corrcoef(picture[1:], picture[:-1])[0, 1]) < 0.03
    assert len(np.unique(picture)) > 0.5 * len(picture) or signal == 0


def test_noise_of_the_extreme_numbers_is_finite():
    uniform = np.array([[[0.0, 1 - 2**-24], [2**-12, 2**-24]]], np.float32)
    noise = np.asarray(scanner.add_rician_noise(np.ones((1, 2, 2), np.float32), full(0.06, 1), uniform))
    assert np.isfinite(noise).all()
    assert (noise >= 0).all()
