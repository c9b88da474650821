"""Same picture or not: every way of copying one, against pictures that only look alike."""

import io

import numpy as np
import pytest
from PIL import Image

from mri_transfer.datasets.alignment import aligned_correlation
from mri_transfer.datasets.duplicates import (
    CANDIDATE,
    DISCOUNT,
    coarse,
    content_box,
    near_duplicates,
    similar_pairs,
    thumbnails,
    turned,
)


def picture(seed: int, height: int = 220, width: int = 180) -> np.ndarray:
    """Smooth blobs in an ellipse on black, like a head in a slice; uint8."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (14, 12), dtype=np.uint8))
    texture = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return (texture * ((x / 0.85) ** 2 + (y / 0.8) ** 2 < 1)).astype(np.uint8)


def recompressed(image: np.ndarray) -> np.ndarray:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=40)
    return np.asarray(Image.open(content))


COPIES = {
    "recompressed": recompressed,
    "smaller": lambda image: np.asarray(Image.fromarray(image).resize((90, 110))),
    "stretched": lambda image: np.asarray(Image.fromarray(image).resize((200, 200))),
    "border": lambda image: np.pad(image, ((30, 10), (50, 0))),
    "cropped": lambda image: image[14:-16, 12:-8],
    "darker": lambda image: (image * 0.4 + 10).astype(np.uint8),
    "mirrored": lambda image: image[:, ::-1],
    "upside down": lambda image: image[::-1],
    "quarter turn": lambda image: np.rot90(image),
    "turned and mirrored": lambda image: np.rot90(image, 3)[:, ::-1],
}


def found_in(thumbs: np.ndarray, others: np.ndarray | None = None) -> list[tuple[int, int]]:
    pairs = near_duplicates(thumbs, similar_pairs(thumbs, CANDIDATE, others), others)
    return sorted(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_found_among_strangers_and_nothing_else_is(how):
    images = [picture(seed) for seed in range(12)]
    images.append(np.ascontiguousarray(COPIES[how](images[5])))
    assert found_in(np.stack([thumbnails(image) for image in images])) == [(5, 12)]


def test_orientation_turns_the_second_into_the_first():
    first = thumbnails(picture(1))
    for orientation in range(8):
        second = turned(first, orientation)
        pairs = similar_pairs(np.stack([first, second]), 0.99)
        assert len(pairs) == 1
        assert np.array_equal(turned(second, int(pairs.orientation[0])), first)


def test_pairs_match_numpys_corrcoef_whatever_the_chunk():
    thumbs = np.stack([thumbnails(picture(seed)) for seed in range(9)])
    each = [np.corrcoef(coarse(thumbs[:, kind]).reshape(9, -1)) - DISCOUNT[kind] for kind in range(2)]
    expected = np.max(each, axis=0)
    for chunk in (2, 5, 100):
        pairs = similar_pairs(thumbs, -1, orientations=1, chunk=chunk)
        assert len(pairs) == 36
        assert np.all(pairs.first < pairs.second)
        assert pairs.correlation == pytest.approx(expected[pairs.first, pairs.second], abs=1e-5)
    crossed = similar_pairs(thumbs[:4], -1, thumbs, orientations=1, chunk=3)
    assert len(crossed) == 36
    assert crossed.correlation == pytest.approx(
        np.minimum(expected[crossed.first, crossed.second], 1), abs=1e-5
    )


def test_flat_images_are_like_nothing():
    flat = np.stack([thumbnails(np.full((50, 40), value, np.uint8)) for value in (0, 0, 200)])
    assert found_in(flat) == []


def test_a_neighbouring_picture_is_no_copy():
    near = np.clip(picture(3) * 0.7 + picture(4) * 0.3, 0, 255).astype(np.uint8)
    thumbs = np.stack([thumbnails(picture(3)), thumbnails(near)])
    assert len(similar_pairs(thumbs, CANDIDATE)) == 1
    assert found_in(thumbs) == []


def test_alignment_undoes_shift_and_scale():
    big = Image.fromarray(picture(7, 240, 240))
    first = np.asarray(big.resize((64, 64), Image.Resampling.BOX))
    second = np.asarray(big.resize((64, 64), Image.Resampling.BOX, box=(14, 5, 230, 222)))
    plain = np.corrcoef(first.ravel(), second.ravel())[0, 1]
    aligned = aligned_correlation(first[None], second[None])[0]
    assert plain < 0.93
    assert aligned > 0.985


def test_alignment_never_lowers_a_correlation():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 255, (2, 70, 64, 64), dtype=np.uint8)
    plain = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(first, second, strict=True)]
    aligned = aligned_correlation(first, second)
    assert aligned.shape == (70,)
    assert np.all(aligned >= np.array(plain) - 1e-5)
    assert aligned.max() < 0.5


def test_content_box_leaves_out_the_border_and_single_specks():
    image = np.zeros((300, 260), np.uint8)
    image[40:200, 30:150] = 180
    image[5, 5] = 255
    assert content_box(image) == (30, 40, 150, 200)
    assert content_box(np.zeros((20, 30), np.uint8)) == (0, 0, 30, 20)
