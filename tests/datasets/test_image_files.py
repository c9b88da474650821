"""Pictures whose numbers are not 0 to 255."""

import io

import numpy as np
import pytest
from PIL import Image

from mri_transfer.datasets.image_files import open_image, upright


def as_file(values):
    file = io.BytesIO()
    Image.fromarray(np.float32(values)).save(file, "TIFF")
    file.seek(0)
    return file


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_picture_without_numbers_is_refused_and_a_masked_one_is_not(wrong):
    values = np.linspace(1, 2, 48).reshape(6, 8)
    values[:, :3] = wrong
    with open_image(as_file(values)) as file:
        grey = np.asarray(upright(file, "L"))
    assert (grey[:, :3] == 0).all()
    assert grey[-1, -1] == 255
    with (
        open_image(as_file(np.full((6, 8), wrong))) as file,
        pytest.raises(ValueError, match="no pixel is a number"),
    ):
        upright(file, "L")


def test_floats_are_rescaled_from_their_own_range():
    values = np.linspace(-3, 5, 48).reshape(6, 8)
    with open_image(as_file(values)) as file:
        grey = np.asarray(upright(file, "L"))
    assert grey.dtype == np.uint8
    np.testing.assert_allclose(grey, (values + 3) / 8 * 255, atol=0.51)
