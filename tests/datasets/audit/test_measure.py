"""What is measured of image files, against what they were written with."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mri_transfer.datasets.audit.measure import SIDE, jpeg_quality, measure
from mri_transfer.datasets.tumors.images import ImageFile, list_images


@pytest.fixture
def written(tmp_path):
    """Writes images into one class folder; returns their measurements, in the order given."""

    def write(**images):
        files = []
        for name, (image, suffix, options) in images.items():
            image.save(tmp_path / f"{name}.{suffix}", **options)
            files.append(ImageFile(f"{name}.{suffix}", "all", 0, name, 7))
        return measure(tmp_path, files)

    return write


def noise(height=90, width=120, low=0, high=256, seed=0):
    return np.random.default_rng(seed).integers(low, high, (height, width), dtype=np.uint8)


def test_size_intensity_and_file_are_those_written(written, tmp_path):
    grey = noise(low=40, high=80)
    measurements = written(a=(Image.fromarray(grey), "png", {}))
    assert (measurements.width[0], measurements.height[0], measurements.number[0]) == (120, 90, 7)
    assert measurements.bytes[0] == (tmp_path / "a.png").stat().st_size
    assert measurements.mean[0] == pytest.approx(grey.mean(), abs=0.01)
    assert measurements.contrast[0] == pytest.approx(grey.std(), abs=0.01)
    counts = np.unique(grey, return_counts=True)[1] / grey.size
    assert measurements.entropy[0] == pytest.approx(-(counts * np.log2(counts)).sum(), abs=0.01)
    assert (measurements.quality[0], measurements.colour[0], measurements.depth[0], measurements.mode[0]) == (
        0,
        0,
        8,
        "L",
    )
    assert measurements.small.shape == (1, SIDE, SIDE)


@pytest.mark.parametrize("quality", [1, 10, 30, 49, 50, 51, 75, 90, 92, 95, 99])
def test_jpeg_quality_is_the_setting_of_the_writer(quality, tmp_path):
    Image.fromarray(noise()).save(tmp_path / "a.jpg", quality=quality)
    with Image.open(tmp_path / "a.jpg") as file:
        assert jpeg_quality(file.quantization[0]) == quality


def test_margins_are_found_and_their_sides(written):
    canvas = np.zeros((200, 100), np.uint8)
    canvas[100:180, 10:60] = noise(80, 50, 100, 200)
    measurements = written(a=(Image.fromarray(canvas), "png", {}))
    assert measurements.border[0] == pytest.approx(1 - 80 * 50 / (200 * 100), abs=0.01)
    assert measurements.offset_x[0] == pytest.approx((10 - 40) / 100, abs=0.02)
    assert measurements.offset_y[0] == pytest.approx((100 - 20) / 200, abs=0.02)


@pytest.mark.parametrize("quality", [30, 90])
def test_grey_content_in_a_colour_jpeg_has_no_colour_and_red_letters_have(quality, written):
    grey = Image.fromarray(noise()).convert("RGB")
    marked = grey.copy()
    ImageDraw.Draw(marked).rectangle((10, 10, 49, 49), fill=(255, 0, 0))
    options = {"quality": quality}
    measurements = written(grey=(grey, "jpg", options), marked=(marked, "jpg", options))
    assert measurements.colour[0] == 0
    assert measurements.colour[1] == pytest.approx(40 * 40 / (90 * 120), rel=0.3)


def test_blurring_lowers_sharpness_but_gain_does_not(written):
    grey = Image.fromarray(noise(low=0, high=120))
    small = grey.resize((60, 45)).resize((120, 90), Image.Resampling.BICUBIC)
    brighter = Image.fromarray(np.asarray(grey) * 2)
    measurements = written(grey=(grey, "png", {}), blurred=(small, "png", {}), brighter=(brighter, "png", {}))
    assert measurements.sharpness[1] < 0.7 * measurements.sharpness[0]
    assert measurements.sharpness[2] == pytest.approx(measurements.sharpness[0], rel=0.02)


def test_deep_images_and_turned_ones(written):
    deep = Image.fromarray(noise().astype(np.uint16) * 100)
    turned = Image.fromarray(noise())
    exif = turned.getexif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    measurements = written(deep=(deep, "png", {}), turned=(turned, "jpg", {"exif": exif}))
    assert measurements.depth.tolist() == [16, 8]
    assert (measurements.width[1], measurements.height[1]) == (90, 120)


def test_unreadable_files_have_no_figures_and_do_not_stop_the_rest(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(noise()).save(tmp_path / name / "1.png")
        (tmp_path / name / "2.png").write_bytes((tmp_path / name / "1.png").read_bytes()[:-2000])
    files, _ = list_images(tmp_path)
    measurements = measure(tmp_path, files)
    assert measurements.readable.tolist() == [True, False, True, False]
    assert np.isnan(measurements.bytes[[1, 3]]).all()
    assert measurements.mode.tolist() == ["L", "", "L", ""]
    assert measurements.small[[0, 2]].any(axis=(1, 2)).all()
    assert not measurements.small[[1, 3]].any()


def test_no_files_make_no_figures(tmp_path):
    assert len(measure(tmp_path, [])) == 0
