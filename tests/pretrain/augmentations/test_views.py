import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage import data

from mri_transfer.pretrain.augmentations.table import NAMES
from mri_transfer.pretrain.augmentations.views import Views

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def slices():
    """Sixteen 64 px crops of the picture of a camera man that scikit-image ships."""
    image = data.camera()[::4, ::4]
    return np.stack([np.roll(image, (i * 3, i * 5), (0, 1))[:64, :64] for i in range(16)]).astype(np.uint8)


def make(views, images):
    return np.asarray(views(images))[..., 0]


def only(*names):
    """Strengths that leave nothing but the augmentations named."""
    return {name: 0.0 for name in NAMES if name not in names}


def test_strength_zero_only_resamples(slices):
    np.testing.assert_allclose(make(Views(64, 0.0), slices), slices, atol=1e-3)
    small = make(Views(52, 0.0), slices)
    assert small.shape == (16, 52, 52)
    large = make(Views(128, 0.0), slices)
    expected = ndimage.zoom(slices[0].astype(float), 2, order=1, grid_mode=True, mode="grid-constant")
    np.testing.assert_allclose(large[0, 4:-4, 4:-4], expected[4:-4, 4:-4], atol=1e-2)


def test_halving_looks_like_pillows_antialiased_halving(slices):
    from PIL import Image

    small = make(Views(32, 0.0), slices)
    for image, half in zip(slices, small, strict=True):
        expected = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR), float)
        assert np.abs(half - expected)[1:-1, 1:-1].mean() < 6
        assert np.corrcoef(half[1:-1, 1:-1].ravel(), expected[1:-1, 1:-1].ravel())[0, 1] > 0.97


@pytest.mark.parametrize("name", NAMES)
def test_every_augmentation_alone_changes_views_and_none_of_strength_zero_does(slices, name):
    slices = np.tile(slices, (4, 1, 1))  # many, as some augmentations are rare
    plain = make(Views(64, 0.0), slices)
    changed = make(Views(64, seed=1, strengths=only(name)), slices)
    assert np.abs(changed - plain).mean() > 0.05, "does nothing"
    np.testing.assert_allclose(make(Views(64, seed=1, strengths=only()), slices), plain, atol=1e-3)
    half = make(Views(64, 0.5, seed=1, strengths=only(name)), slices)
    # Flipping is all or nothing, and so is each of its halves.
    if name != "flip":
        assert np.abs(half - plain).mean() < np.abs(changed - plain).mean()
    # Less of it is also the same as more of it with all strengths lower.
    same = make(Views(64, 1.0, seed=1, strengths={**only(name), name: 0.5}), slices)
    np.testing.assert_array_equal(half, same)


def test_switching_one_off_leaves_the_others_as_they_were(slices):
    """Noise first of all: it draws most of the random numbers."""
    plain = Views(64, seed=2, strengths={"jpeg": 0.0, "noise": 0.0})
    full = Views(64, seed=2, strengths={"jpeg": 0.0})
    for _ in range(2):
        a, b = (views.draw(16) for views in (plain, full))
        for name in a:
            if name != "noise":
                np.testing.assert_array_equal(np.asarray(a[name]), np.asarray(b[name]))


@settings(max_examples=12)
@given(
    st.sampled_from([16, 33, 40]),
    st.sampled_from([20, 37, 64]),
    st.sampled_from([0.0, 0.3, 1.0, 4.0, 30.0]),
    st.sampled_from(["black", "white", "noise"]),
)
def test_views_are_images_at_any_size_and_strength(size, side, strength, kind):
    images = {
        "black": np.zeros((4, side, side), np.uint8),
        "white": np.full((4, side, side), 255, np.uint8),
        "noise": np.random.default_rng(0).integers(0, 256, (4, side, side), dtype=np.uint8),
    }[kind]
    output = np.asarray(Views(size, strength, seed=5)(images))
    assert output.shape == (4, size, size, 1)
    assert output.dtype == np.float32
    assert np.isfinite(output).all()
    assert output.min() >= 0
    assert output.max() <= 255


def test_views_differ_from_one_another(slices):
    views = Views(48, seed=3)
    first, second = make(views, slices), make(views, slices)
    assert np.abs(first - second).mean() > 5
    # Two of the same slice differ as well: each view is drawn for itself.
    pair = make(views, np.stack([slices[0], slices[0]]))
    assert np.abs(pair[0] - pair[1]).mean() > 2


def test_a_view_depends_on_its_own_slice_and_numbers_alone(slices):
    views = Views(48, seed=3)
    numbers = views.draw(16)
    reference = np.asarray(views.apply(slices, numbers))
    order = np.random.default_rng(0).permutation(16)[:5]
    some = {name: np.asarray(values)[order] for name, values in numbers.items()}
    others = slices.copy()
    others[1:] = 255 - others[1:]
    # Sums in another order may round a pixel or a block's cosine to the other side; all others agree.
    differences = np.abs(np.asarray(views.apply(slices[order], some)) - reference[order])
    assert (differences < 0.1).mean() > 0.98
    differences = np.abs(np.asarray(views.apply(others, numbers))[0] - reference[0])
    assert (differences < 0.1).mean() > 0.98


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


def test_the_state_does_not_depend_on_the_size_and_settings_are_kept(slices):
    small, large = Views(32, seed=3), Views(80, seed=3, strengths={"jpeg": 2.0})
    make(small, slices), make(large, slices)
    shapes = [[tuple(v.shape) for v in views.variables] for views in (small, large)]
    assert shapes[0] == shapes[1] == [(2,)]
    copy = Views.from_config(large.get_config())
    large.random.state.assign(np.asarray(copy.random.state.value))
    np.testing.assert_array_equal(make(copy, slices), make(large, slices))


def test_the_graph_gives_what_the_eager_call_gives(slices):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.function is TensorFlow's")
    import tensorflow as tf

    a, b = Views(48, seed=3), Views(48, seed=3)
    graph = tf.function(lambda images: a(images))
    compiled, eager = graph(slices).numpy()[..., 0], make(b, slices)
    # Sums in another order may round a pixel to another of few grey levels; all others agree.
    assert (np.abs(compiled - eager) < 0.1).mean() > 0.99


def test_black_stays_black():
    """Air around the head must not become grey through gamma, window or shading.

    Noise and haze are another matter, and JPEG rounds black to a multiple of its step, which is rarely black.
    """
    quiet = dict.fromkeys(("noise", "haze", "border", "letterbox", "jpeg"), 0.0)
    views = Views(32, seed=0, strengths=quiet)
    for _ in range(4):
        assert make(views, np.zeros((32, 32, 32), np.uint8)).max() < 0.02


def test_noise_is_in_proportion_to_the_head_as_dark_slices_would_drown(slices):
    views = Views(64, seed=0, strengths=only("noise"))
    numbers = views.draw(16, full="noise")
    plain = 20 + slices // 8
    bright = 3 * plain
    spread = [(np.asarray(views.apply(x, numbers))[..., 0] - x).std(axis=(1, 2)) for x in (plain, bright)]
    np.testing.assert_allclose(spread[1] / spread[0], 3, rtol=0.03)
    np.testing.assert_allclose(spread[1] / bright.mean((1, 2)), 0.15, rtol=0.06)


def test_left_and_right_are_exchanged_in_half_of_the_views_and_top_and_bottom_in_none():
    ramp = np.tile(np.linspace(50, 250, 64), (200, 64, 1)).astype(np.uint8)
    views = Views(64, seed=0, strengths=only("flip", "rotation"))
    output = make(views, ramp)
    flipped = (output[:, 24:40, 36:60].mean((1, 2)) < output[:, 24:40, 4:28].mean((1, 2))).mean()
    assert 0.4 < flipped < 0.6
    output = make(views, ramp.transpose(0, 2, 1))
    assert (output[:, 36:60, 24:40].mean((1, 2)) > output[:, 4:28, 24:40].mean((1, 2))).all()


def test_numbers_stay_within_what_the_table_says():
    draws = {name: np.asarray(values) for name, values in Views(10, seed=1).draw(4000).items()}
    for name, low, high in (
        ("zoom", np.sqrt(0.35), 1.0),
        ("stretch", -0.15, 0.15),
        ("angle", -np.deg2rad(25), np.deg2rad(25)),
        ("blur", 0.0, 0.08),
        ("fewer_rows", 1.0, 2**1.3),
        ("gamma", np.exp(-0.5), np.exp(0.5)),
        ("contrast", 0.7, 1.3),
        ("brightness", -0.3, 0.3),
        ("noise", 0.0, 0.15),
        ("haze", 0.0, 0.15),
        ("bars_x", 0.0, 0.18),
        ("border_left", 0.0, 0.04),
        ("quality", 0.0, 100.0),
        ("levels", 0.0, 256.0),
        ("hidden", 0.0, 0.35),
    ):
        values = draws[name]
        assert values.min() >= low - 1e-5
        assert values.max() <= high + 1e-5
        if name not in ("quality", "levels"):  # the ends are reached, nearly
            assert values.min() <= low + 0.03 * (high - low)
            assert values.max() >= high - 0.03 * (high - low)
    quality, levels = draws["quality"], draws["levels"]
    assert quality[quality > 0].min() >= 25
    assert levels[levels > 0].min() >= 16
    for name, share in (("quality", 0.3), ("levels", 0.15), ("noise", 0.5), ("haze", 0.1), ("blur", 0.3)):
        assert (draws[name] > 0).mean() == pytest.approx(share, abs=0.03)
    # The field of view stays within the slice.
    for shift in ("shift_x", "shift_y"):
        assert (np.abs(draws[shift]) <= (1 - draws["zoom"]) / 2 + 1e-6).all()
    # What decides one augmentation tells nothing of another.
    uncorrelated = np.corrcoef(
        [draws[name] for name in ("zoom", "angle", "blur", "gamma", "noise", "quality")]
    )
    assert np.abs(uncorrelated - np.eye(6)).max() < 0.08


JAX = """
import json, sys
import numpy as np
from mri_transfer.machine import device
device.prepare()
import keras
from mri_transfer.pretrain.augmentations.views import Views
images = np.load(sys.argv[1])
numbers = dict(np.load(sys.argv[2]))
size = int(sys.argv[3])
made = np.asarray(Views(size).apply(keras.ops.convert_to_tensor(images), numbers))
own = np.asarray(Views(size, seed=11)(keras.ops.convert_to_tensor(np.repeat(images, 8, axis=0))))
np.save(sys.argv[4], made)
print(json.dumps([keras.backend.backend(), float(own.mean()), float(own.std())]))
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_jax_makes_the_same_views_of_the_same_numbers(slices, tmp_path):
    views = Views(48, seed=8)
    numbers = {name: np.asarray(values) for name, values in views.draw(16).items()}
    np.save(tmp_path / "images.npy", slices)
    np.savez(tmp_path / "numbers.npz", **numbers)
    files = [str(tmp_path / name) for name in ("images.npy", "numbers.npz")]
    done = subprocess.run(
        [sys.executable, "-c", JAX, *files, "48", str(tmp_path / "made.npy")],
        env=os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    backend, mean, deviation = json.loads(done.stdout.splitlines()[-1])
    assert backend == "jax"
    here, there = np.asarray(views.apply(slices, numbers)), np.load(tmp_path / "made.npy")
    # Rounding to levels and to quantised cosines may fall to the other side in a few pixels or blocks.
    close = np.abs(here - there) < 0.1
    assert close.mean() > 0.98
    own = np.asarray(Views(48, seed=11)(np.repeat(slices, 8, axis=0)))
    assert mean == pytest.approx(own.mean(), rel=0.06)
    assert deviation == pytest.approx(own.std(), rel=0.06)
