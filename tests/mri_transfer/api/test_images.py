"""Pictures in every form that people have them come out the same."""

import numpy as np
import pytest
from PIL import Image

from mri_transfer.api.images import grey_images
from mri_transfer.errors import UserError

GREY = (np.arange(20 * 12) % 251).astype(np.uint8).reshape(20, 12)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "a.png"
    Image.fromarray(GREY).save(path)
    return path


def test_all_forms_agree(file):
    expected = grey_images(file, 16)
    assert expected.shape == (1, 16, 16)
    assert expected.dtype == np.uint8
    colour = np.stack([GREY] * 3, axis=-1)
    for form in (
        str(file),
        [file],
        GREY,
        GREY.astype(float),
        GREY.astype(np.int64),
        GREY[None],
        GREY[None, ..., None],
        colour,
        colour[None],
        Image.fromarray(GREY),
        [Image.fromarray(colour)],
    ):
        np.testing.assert_array_equal(grey_images(form, 16), expected)
    assert grey_images([file, GREY, Image.fromarray(GREY)], 16).shape == (3, 16, 16)
    assert grey_images([GREY, GREY[:5]], 16).shape == (2, 16, 16)  # of different sizes


def test_deeper_than_8_bits_is_stretched_as_in_files(tmp_path):
    deep = GREY.astype(np.uint16) * 200
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(grey_images(deep, 16), grey_images(tmp_path / "deep.png", 16))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.ones((4, 4)) * 300, "image 0: its values go from 300 to 300; arrays hold grey 0..255"),
        ([GREY, -np.ones((4, 4))], "image 1: its values go from -1"),
        (np.full((4, 4), np.nan), "image 0: its values go from nan"),
        (GREY / 255, "multiply them by 255"),
        (np.zeros((4, 4), bool), "image 0: is bool (4, 4)"),
        (np.zeros((2, 4, 4, 5), np.uint8), "image 0: is uint8 (4, 4, 5)"),
        (np.zeros(4), "image 0: is float64 ()"),
        ([], "there are none"),
        ("no.png", "no.png: can't be read as an image (No such file"),
        ([3], "image 0: is int64 ()"),
        (np.zeros((8, 8, 2), np.uint8), "image 0: is uint8 (8, 8, 2)"),
        (None, "is NoneType; give paths"),
        (5, "is int; give paths"),
        (np.float32(3), "image 0: is float32 ()"),
    ],
)
def test_what_is_no_picture_is_one_line(images, words):
    with pytest.raises(UserError) as error:
        grey_images(images, 16)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("shape", "count"), [((9, 9, 1), 1), ((9, 9, 4), 1), ((3, 9, 9), 3), ((3, 9, 9, 1), 3)]
)
def test_an_axis_of_colours_is_none_of_pictures(shape, count):
    assert grey_images(np.full(shape, 7, np.uint8), 16).shape == (count, 16, 16)
