"""What is compared of an image: its content, whatever stands around it."""

import numpy as np
import pytest

from mri_transfer.datasets.tumors.copies.thumbnails import (
    DARK,
    THUMBNAIL,
    coarse,
    content_box,
    lifted,
    normalised,
    opposite,
    positive,
    thumbnail,
    turned,
)


def test_content_box_leaves_out_the_border_and_single_specks():
    image = np.zeros((300, 260), np.uint8)
    image[40:200, 30:150] = 180
    image[5, 5] = 255
    assert content_box(image) == (30, 40, 150, 200)
    assert content_box(np.zeros((20, 30), np.uint8)) == (0, 0, 30, 20)


@pytest.mark.parametrize("colour", [255, 128, 60])
def test_content_box_leaves_out_a_frame_of_any_colour(colour):
    inside = np.zeros((200, 160), np.uint8)
    inside[40:170, 30:120] = 180
    image = np.pad(inside, ((20, 10), (35, 0)), constant_values=colour)
    assert content_box(image) == (65, 60, 155, 190)


@pytest.mark.parametrize("sides", [((0, 0), (25, 25)), ((30, 10), (0, 0)), ((9, 9), (9, 9))])
def test_content_box_leaves_out_a_frame_that_was_padded(sides):
    inside = np.zeros((200, 160), np.uint8)
    inside[40:170, 30:120] = 180
    framed = np.pad(inside, ((20, 10), (35, 5)), constant_values=250)
    left, top, right, bottom = content_box(np.pad(framed, sides))
    top, left = top - sides[0][0], left - sides[1][0]
    assert (left, top) == (65, 60)
    assert (right - sides[1][0], bottom - sides[0][0]) == (155, 190)


def test_content_box_leaves_out_letters_in_the_border():
    image = np.zeros((300, 260), np.uint8)
    image[60:240, 40:200] = 180
    image[10:22, 40:160:4] = 255  # a line of text above
    image[100:180, 235:240] = 255  # a scale at the side
    assert content_box(image) == (40, 60, 200, 240)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 2), (2000, 4)])
def test_images_without_content_have_a_thumbnail(shape):
    assert thumbnail(np.full(shape, 77, np.uint8)).shape == (THUMBNAIL, THUMBNAIL)
    assert not thumbnail(np.full(shape, 77, np.uint8)).any()


def test_brightness_and_contrast_do_not_matter():
    image = np.random.default_rng(0).integers(40, 140, (90, 70), dtype=np.uint8)
    first, second = thumbnail(image), thumbnail((image * 1.5 - 20).astype(np.uint8))
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("orientation", range(8))
def test_the_opposite_orientation_undoes_one(orientation):
    image = np.arange(25).reshape(5, 5)
    assert np.array_equal(turned(turned(image, orientation), int(opposite(np.array(orientation)))), image)


def test_orientations_are_the_eight_symmetries_of_a_square():
    image = np.arange(9).reshape(3, 3)
    assert len({turned(image, orientation).tobytes() for orientation in range(8)}) == 8
    assert np.array_equal(turned(image, 0), image)


def test_products_of_normalised_vectors_are_correlations():
    images = np.random.default_rng(0).integers(0, 255, (6, 8, 8))
    vectors = normalised(images)
    assert vectors @ vectors.T == pytest.approx(np.corrcoef(images.reshape(6, -1)), abs=1e-5)
    assert not normalised(np.full((1, 8, 8), 9)).any()


def test_coarse_is_the_mean_of_blocks():
    thumbs = np.random.default_rng(0).integers(0, 255, (2, THUMBNAIL, THUMBNAIL), dtype=np.uint8)
    assert coarse(thumbs)[1, 3, 4] == thumbs[1, 6:8, 8:10].mean()


def test_a_negative_is_told_by_what_surrounds_it():
    head = np.zeros((200, 160), np.uint8)
    head[30:170, 25:135] = 120
    for image in (head, np.pad(head, 20, constant_values=255)):  # a white margin makes no negative
        assert np.array_equal(positive(image), image)
        assert np.array_equal(positive(255 - image), image)
    assert content_box(positive(255 - head)) == (25, 30, 135, 170)
    for colour in (0, 255):  # nor does a margin hide one
        framed = np.pad(255 - head, 20, constant_values=colour)
        assert np.array_equal(positive(framed), 255 - framed)
        assert content_box(positive(framed)) == (45, 50, 155, 190)


def test_dark_images_are_lifted_to_one_brightness():
    y, x = np.mgrid[-1:1:200j, -1:1:160j]
    texture = np.random.default_rng(3).uniform(0.3, 1, (200, 160))
    head = (220 * texture * (x**2 + y**2 < 0.9)).astype(np.uint8)
    assert lifted(head) is head
    for gamma in (4, 6):
        dark = np.round(255 * (head / 255) ** gamma).astype(np.uint8)
        bright = lifted(dark)
        left, top, right, bottom = content_box(dark)
        assert dark[top:bottom, left:right].mean() < 0.8 * 255 * DARK
        assert bright[top:bottom, left:right].mean() == pytest.approx(255 * DARK, rel=0.03)
        order = np.argsort(dark, axis=None, kind="stable")
        assert (np.diff(bright.ravel()[order].astype(int)) >= 0).all()
    assert not lifted(np.zeros((30, 30), np.uint8)).any()
