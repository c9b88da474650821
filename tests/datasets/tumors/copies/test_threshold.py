"""The line between the same picture and another: where it is drawn, and from what."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mri_transfer.datasets.image_files import read_grey
from mri_transfer.datasets.synthetic.generate import write_tumors
from mri_transfer.datasets.tumors.copies.duplicates import Pairs
from mri_transfer.datasets.tumors.copies.threshold import (
    HIGHEST,
    LOWEST,
    TONES,
    USUAL,
    calibrate,
    copied,
    planted_copies,
)
from mri_transfer.datasets.tumors.copies.thumbnails import thumbnail
from mri_transfer.datasets.tumors.images import list_images


def pairs_with(correlations) -> Pairs:
    values = np.sort(np.asarray(correlations, np.float32))[::-1]
    numbers = np.arange(len(values))
    return Pairs(numbers, numbers + 1, values, numbers * 0)


PLANTED = np.linspace(0.985, 1.0, 100)


def test_the_line_lies_in_the_widest_gap():
    calibration = calibrate(pairs_with([0.90, 0.951, 0.955, 0.958, 0.984, 0.985, 0.99, 0.999]), PLANTED)
    assert 0.958 < calibration.threshold < 0.984
    assert calibration.gap == pytest.approx((0.958, 0.984))
    assert calibration.share_found == 1.0


def test_a_set_without_copies_gets_a_line_above_its_pairs():
    calibration = calibrate(pairs_with([0.91, 0.95, 0.96, 0.962]), PLANTED)
    assert 0.962 < calibration.threshold <= np.quantile(PLANTED, 0.05)
    assert calibration.gap[1] is None


@given(
    st.lists(st.floats(-1, 1, width=32), max_size=60),
    st.lists(st.floats(0, 1, width=32), min_size=20, max_size=60),
)
def test_the_line_keeps_its_bounds_and_parts_the_pairs(correlations, planted):
    planted = np.sort(planted)
    calibration = calibrate(pairs_with(correlations), planted)
    assert LOWEST < calibration.threshold < HIGHEST
    assert calibration.share_found == np.mean(planted >= calibration.threshold)
    below, above = calibration.gap
    assert below is None or below < calibration.threshold
    assert above is None or above >= calibration.threshold
    between = [c for c in correlations if (below is None or c > below) and (above is None or c < above)]
    assert between == []


def test_few_images_take_the_usual_line():
    calibration = calibrate(pairs_with([0.5]), np.array([0.9] * 5))
    assert (calibration.threshold, calibration.share_found) == (USUAL, None)


def test_copies_are_other_files_of_the_same_picture(tmp_path):
    write_tumors(tmp_path, per_class=10, seed=3)
    files, _ = list_images(tmp_path)
    images = [read_grey(tmp_path / file.path) for file in files[:40]]
    planted = planted_copies(images)
    assert np.all(np.diff(planted) >= 0)
    assert np.mean(planted > 0.95) > 0.9
    assert np.array_equal(planted, planted_copies(images))
    copies = [copied(images[0], np.random.default_rng(seed)) for seed in range(12)]
    assert len({copy.shape for copy in copies}) > 6
    assert planted_copies([]).shape == (0,)


def test_a_copy_that_does_not_meet_its_original_counts_as_missed():
    """Among a set of which an image is no part, its copies find nothing."""
    rng = np.random.default_rng(0)
    images = [
        np.asarray(Image.fromarray(rng.integers(0, 255, (9, 9), dtype=np.uint8)).resize((96, 96)))
        for _ in range(30)
    ]
    thumbs = np.stack([thumbnail(image) for image in images])
    whole = planted_copies(images[:20], among=thumbs, rows=np.arange(20))
    assert np.mean(whole > 0.95) > 0.8
    # The originals are said to be where other pictures are; of 30, a copy has some of these among its ten neighbours.
    wrong = planted_copies(images[:20], among=thumbs, rows=np.arange(20) + 10)
    assert (wrong == 0).any()
    assert wrong.max() < whole[2]


@pytest.mark.parametrize("tone", TONES)
def test_tones_change_a_picture_and_keep_its_shape(tone):
    rng = np.random.default_rng(1)
    grey = Image.fromarray(rng.normal(120, 30, (60, 80)).clip(5, 240).astype(np.uint8))
    variants = {TONES[tone](grey, np.random.default_rng(seed)).tobytes() for seed in range(4)}
    assert grey.tobytes() not in variants
    assert len(variants) == (1 if tone == "negative" else 4)
    assert TONES[tone](grey, np.random.default_rng(0)).size == grey.size
    assert TONES[tone](grey, np.random.default_rng(0)).mode == "L"
