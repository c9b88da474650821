import keras
import numpy as np
import pytest
from keras import layers

from mri_transfer.errors import UserError
from mri_transfer.pretrain.augmentations.views import Views
from mri_transfer.pretrain.methods.masked import STRIDE, Masked, masked_error


class AsTheyAre(layers.Layer):
    """No augmentation: slices become views unchanged."""

    def call(self, images):
        return keras.ops.expand_dims(keras.ops.cast(images, "float32"), -1)


def reference(pixels, images, hidden):
    """Mean over hidden pixels of the squared error in units of each view's own contrast, in float64."""
    errors = []
    for prediction, image, mask in zip(pixels, images.astype(float), hidden, strict=True):
        target = (image - image.mean()) / np.sqrt(image.var() + 1)
        errors += [(p - t) ** 2 for p, t, h in zip(prediction.flat, target.flat, mask.flat, strict=True) if h]
    return np.mean(errors)


def draw(seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(3, 8, 8, 1)).astype("float32"),
        rng.uniform(0, 255, (3, 8, 8, 1)).astype("float32"),
        (rng.uniform(size=(3, 8, 8, 1)) < 0.4).astype("float32"),
    )


def test_equals_the_formula():
    pixels, images, hidden = draw()
    assert float(masked_error(pixels, images, hidden)) == pytest.approx(
        reference(pixels, images, hidden), rel=1e-5
    )


def test_what_is_visible_does_not_count_and_neither_do_brightness_and_contrast():
    pixels, images, hidden = draw()
    error = float(masked_error(pixels, images, hidden))
    assert float(masked_error(pixels + 3 * (1 - hidden), images, hidden)) == pytest.approx(error, rel=1e-6)
    assert float(masked_error(pixels + 0.1 * hidden, images, hidden)) != pytest.approx(error, rel=1e-3)
    assert float(masked_error(pixels, 0.5 * images + 20, hidden)) == pytest.approx(error, rel=1e-3)
    assert float(masked_error(pixels, images, 0 * hidden)) == 0
    order = [2, 0, 1]
    assert float(masked_error(pixels[order], images[order], hidden[order])) == pytest.approx(error, rel=1e-5)


def test_drawing_the_mean_is_chance_and_the_image_is_perfect(tiny_encoder):
    _, images, _ = draw()
    mask = np.ones_like(images)
    chance = Masked(tiny_encoder(), Views(64)).chance(3)
    assert float(masked_error(0 * images, images, mask)) == pytest.approx(chance, rel=1e-3)
    centred = images - images.mean((1, 2, 3), keepdims=True)
    perfect = centred / np.sqrt(images.var((1, 2, 3), keepdims=True) + 1)
    assert float(masked_error(perfect, images, mask)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("size", [64, 80, 160])
def test_blocks_of_the_stride_are_hidden_at_random_as_many_in_every_view(tiny_encoder, size):
    method = Masked(tiny_encoder(size=size), AsTheyAre())
    hidden = np.asarray(method._hidden(50, size))
    assert hidden.shape == (50, size, size, 1)
    corners = hidden[:, ::STRIDE, ::STRIDE, 0]
    side = -(-size // STRIDE)
    assert (corners.sum((1, 2)) == round(0.6 * side**2)).all()
    grown = corners.repeat(STRIDE, 1).repeat(STRIDE, 2)[:, :size, :size]
    np.testing.assert_array_equal(hidden[..., 0], grown)
    assert (corners.mean(0) > 0.2).all()
    assert (corners.mean(0) < 0.95).all()
    assert len({corner.tobytes() for corner in corners}) > 3


def test_nothing_of_a_hidden_pixel_reaches_the_encoder(tiny_encoder, batch):
    method = Masked(tiny_encoder(), AsTheyAre(), seed=3)
    state = np.array(method.random.state)
    before = method(batch, training=False)
    hidden = np.asarray(before["hidden"])[..., 0]
    changed = np.concatenate([batch["a"], batch["b"]])
    changed = np.where(hidden > 0, 255 - changed, changed).astype("uint8")
    method.random.state.assign(state)
    after = method({**batch, "a": changed[:6], "b": changed[6:]}, training=False)
    np.testing.assert_array_equal(after["hidden"], before["hidden"])
    np.testing.assert_array_equal(after["pixels"], before["pixels"])
    method.random.state.assign(state)
    images = np.concatenate([batch["a"], batch["b"]])
    images = np.where(hidden > 0, images, 255 - images).astype("uint8")
    after = method({**batch, "a": images[:6], "b": images[6:]}, training=False)
    assert np.abs(np.asarray(after["pixels"]) - np.asarray(before["pixels"])).max() > 1e-3


def test_every_cell_draws_the_block_at_its_own_place(tiny_encoder):
    from mri_transfer.pretrain.methods.masked import _assembled

    blocks = np.arange(2 * 3 * 4 * STRIDE**2, dtype="float32").reshape(2, 3, 4, STRIDE**2)
    picture = np.asarray(_assembled(keras.ops.convert_to_tensor(blocks), 80))
    assert picture.shape == (2, 80, 80, 1)
    for image, row, column in ((0, 0, 0), (1, 2, 1), (0, 1, 2)):
        block = blocks[image, row, column].reshape(STRIDE, STRIDE)[:16, :16]
        top, left = row * STRIDE, column * STRIDE
        np.testing.assert_array_equal(picture[image, top : top + 16, left : left + 16, 0], block)
    small = keras.ops.convert_to_tensor(np.ones((2, 1, 1, STRIDE**2), "float32"))
    assert np.asarray(_assembled(small, 64)).shape == (2, 64, 64, 1)


def test_what_it_cannot_work_with_is_refused(tiny_encoder):
    with pytest.raises(UserError, match="--size of at least 64"):
        Masked(tiny_encoder(size=48), Views(48))
    image = keras.Input((64, 64, 1))
    flat = keras.Model(image, layers.Dense(3)(layers.Reshape((-1,))(layers.Reshape((64, 64))(image))))
    with pytest.raises(UserError, match="--backbone has no feature map"):
        Masked(flat, Views(64))
