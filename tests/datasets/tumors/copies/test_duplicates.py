"""Same picture or not: every way of copying one, against pictures that only look alike."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from mri_transfer.datasets.tumors.copies import duplicates
from mri_transfer.datasets.tumors.copies.alignment import align, tone_free
from mri_transfer.datasets.tumors.copies.duplicates import (
    SMALL,
    WINDOWS,
    aligned,
    near_duplicates,
    neighbours,
)
from mri_transfer.datasets.tumors.copies.thumbnails import THUMBNAIL, thumbnail, turned

SAME = 0.975


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
    "white border": lambda image: np.pad(image, ((30, 10), (50, 5)), constant_values=255),
    "cropped": lambda image: image[14:-16, 12:-8],
    "cropped by a tenth": lambda image: image[40:-22, 30:-18],
    "darker": lambda image: (image * 0.4 + 10).astype(np.uint8),
    "mirrored": lambda image: image[:, ::-1],
    "upside down": lambda image: image[::-1],
    "quarter turn": lambda image: np.rot90(image),
    "turned and mirrored": lambda image: np.rot90(image, 3)[:, ::-1],
    "cropped, turned, recompressed": lambda image: np.rot90(recompressed(image[34:-10, 20:-26])),
}


def found_in(thumbs: np.ndarray, others: np.ndarray | None = None) -> list[tuple[int, int]]:
    pairs = near_duplicates(thumbs, others, SAME)
    return sorted(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_found_among_strangers_and_nothing_else_is(how):
    images = [picture(seed) for seed in range(24)]
    copy = np.ascontiguousarray(COPIES[how](images[5]))
    thumbs = np.stack([thumbnail(image) for image in [*images, copy]])
    assert found_in(thumbs) == [(5, 24)]
    assert found_in(thumbs[:24], thumbs[24:]) == [(5, 0)]
    assert found_in(thumbs[24:], thumbs[:24]) == [(0, 5)]


@pytest.mark.parametrize("orientation", range(8))
def test_orientation_turns_the_second_into_the_first(orientation):
    first = thumbnail(picture(1))
    second = turned(first, orientation)
    pairs = near_duplicates(np.stack([first, second]), threshold=0.99)
    assert len(pairs) == 1
    assert np.array_equal(turned(second, int(pairs.orientation[0])), first)


def test_orientation_is_right_where_the_copy_was_cropped():
    image = picture(2, 256, 256)
    for orientation in range(8):
        copy = np.ascontiguousarray(turned(image, orientation)[40:-40, 40:-20])
        for first, second in ((image, copy), (copy, image)):
            pairs = near_duplicates(np.stack([thumbnail(first), thumbnail(second)]), threshold=SAME)
            assert len(pairs) == 1
            back = turned(np.arange(64).reshape(8, 8), orientation)
            forth = np.arange(64).reshape(8, 8)
            undone = turned(back, int(pairs.orientation[0])) if first is image else None
            assert undone is None or np.array_equal(undone, forth)


def naive_likeness(first: np.ndarray, second: np.ndarray) -> float:
    """The best correlation over windows of either picture and orientations, pixel by pixel."""

    def small(thumb: np.ndarray, window) -> np.ndarray:
        (left, right), (top, bottom) = window
        box = (left * THUMBNAIL, top * THUMBNAIL, (1 - right) * THUMBNAIL, (1 - bottom) * THUMBNAIL)
        picture = Image.fromarray(thumb.astype(np.float32))
        return np.asarray(picture.resize((SMALL, SMALL), Image.Resampling.BOX, box=box))

    return max(
        np.corrcoef(turned(small(a, WINDOWS[0]), orientation).ravel(), small(b, window).ravel())[0, 1]
        for a, b in ((first, second), (second, first))
        for orientation in range(8)
        for window in WINDOWS
    )


def test_neighbours_match_a_naive_search_whatever_the_chunk(monkeypatch):
    thumbs = np.stack([thumbnail(picture(seed, 80 + seed, 70)) for seed in range(9)])
    likeness = np.array([[naive_likeness(a, b) for b in thumbs] for a in thumbs])
    np.fill_diagonal(likeness, -1)
    expected = {tuple(sorted((i, int(j)))) for i in range(9) for j in np.argsort(-likeness[i])[:2]}
    crossed = {(i, int(j)) for i in range(4) for j in np.argsort(-likeness[i, 4:])[:2]}
    for chunk in (2, 5, 100):
        monkeypatch.setattr(duplicates, "_CHUNK", chunk)
        assert {tuple(pair) for pair in neighbours(thumbs, nearest=2).tolist()} == expected
        assert {tuple(pair) for pair in neighbours(thumbs[:4], thumbs[4:], nearest=2).tolist()} == crossed


def test_few_or_no_images_have_few_or_no_neighbours():
    thumbs = np.stack([thumbnail(picture(seed)) for seed in range(3)])
    assert len(near_duplicates(thumbs[:0])) == 0
    assert len(near_duplicates(thumbs[:1])) == 0
    assert len(near_duplicates(thumbs[:1], thumbs[:0])) == 0
    assert neighbours(thumbs).tolist() == [[0, 1], [0, 2], [1, 2]]


def test_flat_images_are_like_nothing():
    flat = np.stack([thumbnail(np.full((50, 40), value, np.uint8)) for value in (0, 0, 200)])
    assert found_in(flat) == []


def test_a_neighbouring_picture_is_no_copy():
    neighbour = np.clip(picture(3) * 0.7 + picture(4) * 0.3, 0, 255).astype(np.uint8)
    assert found_in(np.stack([thumbnail(picture(3)), thumbnail(neighbour)])) == []


def test_pairs_come_best_first_and_do_not_depend_on_their_order():
    thumbs = np.stack(
        [thumbnail(picture(seed % 4)) if seed < 4 else thumbnail(picture(seed - 4)[9:]) for seed in range(8)]
    )
    pairs = np.array([[a, b] for a in range(8) for b in range(a)])
    forward, backward = aligned(thumbs, pairs), aligned(thumbs, pairs[::-1])
    assert np.all(np.diff(forward.correlation) <= 0)
    for ours, theirs in zip(forward.fields(), backward.fields(), strict=True):
        assert np.array_equal(ours, theirs)


def test_alignment_undoes_shift_and_scale():
    big = Image.fromarray(picture(7, 240, 240))
    first = np.asarray(big.resize((64, 64), Image.Resampling.BOX))
    second = np.asarray(big.resize((64, 64), Image.Resampling.BOX, box=(14, 5, 230, 222)))
    plain = np.corrcoef(first.ravel(), second.ravel())[0, 1]
    correlation, warp = align(first[None], second[None])
    assert plain < 0.93
    assert correlation[0] > 0.985
    # The second shows 216 x 217 of 240 pixels, from 14 and 5 on: the first is larger than it by as much.
    assert warp[0] == pytest.approx([240 / 216 - 1, -2 / 216, 240 / 217 - 1, 13 / 217], abs=0.02)
    repeated, _ = align(first[None], second[None], warp, rounds=0)
    assert repeated[0] == pytest.approx(correlation[0], abs=1e-5)


def test_alignment_never_lowers_a_correlation():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 255, (2, 70, 64, 64), dtype=np.uint8)
    plain = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(first, second, strict=True)]
    correlation, _ = align(first, second)
    assert correlation.shape == (70,)
    assert np.all(correlation >= np.array(plain) - 1e-5)
    assert correlation.max() < 0.5
    assert align(first[:0], second[:0])[0].shape == (0,)


TONES = {
    "gamma of a half": lambda image: 255 * (image / 255) ** 0.5,
    "gamma of two": lambda image: 255 * (image / 255) ** 2.0,
    "negative": lambda image: 255 - image,
    "clipped": lambda image: np.clip((image.astype(float) - 40) * 1.5, 0, 255),
    "negative gamma": lambda image: 255 - 255 * (image / 255) ** 0.6,
    "sharpened": lambda image: np.asarray(Image.fromarray(image).filter(ImageFilter.UnsharpMask(2, 150, 0))),
}


@pytest.mark.parametrize("tone", TONES)
def test_a_copy_in_other_tones_is_found_among_strangers_and_nothing_else_is(tone):
    images = [picture(seed) for seed in range(24)]
    copy = recompressed(TONES[tone](images[5]).astype(np.uint8)[14:-6, 20:-6])[:, ::-1]
    thumbs = np.stack([thumbnail(image) for image in [*images, np.ascontiguousarray(copy)]])
    assert found_in(thumbs) == [(5, 24)]
    assert found_in(thumbs[24:], thumbs[:24]) == [(0, 5)]


def test_tones_are_free_and_places_are_not():
    """A polynomial of the tones is seen through; the same tones at other places are nothing alike."""
    rng = np.random.default_rng(0)
    first = np.stack([thumbnail(picture(seed)) for seed in range(6)]).astype(np.float32)
    bent = np.round(255 - 255 * (first / 255) ** 2)
    identity = np.zeros((6, 4), np.float32)
    assert tone_free(first, bent, identity) == pytest.approx(np.ones(6), abs=2e-3)
    assert tone_free(bent, first, identity).min() > 0.998
    shuffled = rng.permuted(first.reshape(6, -1), axis=1).reshape(first.shape)
    assert tone_free(first, shuffled, identity).max() < 0.2
    assert tone_free(first, first, identity + np.array([0, 0.9, 0, 0])).max() == 0  # hardly any overlap


def test_tone_free_agrees_with_a_plain_regression():
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 255, (2, 3, 16, 16)).astype(np.float32)
    second += 0.5 * first
    agreement = tone_free(first, second, np.zeros((3, 4), np.float32))
    for row in range(3):
        expected = []
        for a, b in ((first[row], second[row]), (second[row], first[row])):
            b = (b - b.mean()) / b.std()
            columns = [
                np.ones(256),
                *(b.ravel() ** p for p in (1, 2, 3)),
                (b - gaussian_filter(b, 1.0)).ravel(),
            ]
            design = np.stack(columns, axis=1)
            fit = design @ np.linalg.lstsq(design, a.ravel(), rcond=None)[0]
            expected.append(np.corrcoef(fit, a.ravel())[0, 1])
        assert agreement[row] == pytest.approx(max(expected), abs=1e-3)
