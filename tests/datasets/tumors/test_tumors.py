"""The tumour folder: copies by pixels not bytes, the published split with its leaks, and bad files."""

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from mri_transfer.datasets.image_files import read_grey, square
from mri_transfer.datasets.tumors.images import list_images
from mri_transfer.datasets.tumors.tumors import load_tumors
from mri_transfer.errors import UserError
from mri_transfer.storage.arrays import load_npz, save_npz

CLASSES = ("glioma", "meningioma", "none")


def picture(seed: int, height: int = 90, width: int = 110) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (9, 11), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def save(image: np.ndarray, path: Path, comment: str | None = None) -> None:
    notes = PngImagePlugin.PngInfo()
    if comment:
        notes.add_text("comment", comment)
    Image.fromarray(image).convert("RGB").save(path, pnginfo=notes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two splits, three classes, unrelated images; four in training and two in testing each."""
    seeds = itertools.count()
    for split, count in (("Training", 4), ("Testing", 2)):
        for name in CLASSES:
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(count):
                save(picture(next(seeds)), tmp_path / split / name / f"image({20 * number}).png")
    return tmp_path


def test_distinct_images_are_kept_with_labels_and_splits(folder):
    tumors = load_tumors(folder, 32)
    assert tumors.images.shape == (18, 32, 32)
    assert tumors.images.dtype == np.uint8
    assert tumors.classes == CLASSES
    assert np.bincount(tumors.labels).tolist() == [6, 6, 6]
    assert [path.split("/")[:2] for path in tumors.paths] == [
        [split, tumors.classes[label]] for split, label in zip(tumors.split, tumors.labels, strict=True)
    ]
    assert tumors.published_train.tolist() == list(range(12))
    assert tumors.published_test.tolist() == list(range(12, 18))
    assert len(np.unique(tumors.groups)) == 18
    assert tumors.audit["test_near_duplicate"] == 0


def test_copies_are_found_by_pixels_and_trainings_is_kept(folder):
    original = folder / "Training/glioma/image(20).png"
    save(picture(1), folder / "Testing/glioma/image(0).png", comment="other bytes, same pixels")
    (folder / "Testing/glioma/image(77).png").write_bytes(original.read_bytes())
    save(picture(1), folder / "Training/glioma/zzz.png", comment="a copy within training")
    tumors = load_tumors(folder, 32)
    audit = tumors.audit
    assert (audit["files"], audit["distinct"]) == (20, 17)
    assert (audit["test_identical"], audit["test_byte_identical"], audit["test_files"]) == (2, 1, 7)
    assert audit["test_identical_by_class"] == {"glioma": 2, "meningioma": 0, "none": 0}
    assert "Training/glioma/image(20).png" in tumors.paths
    assert not {"Testing/glioma/image(0).png", "Testing/glioma/image(77).png"} & set(tumors.paths)

    # The published split, leaks and repeats included.
    row = tumors.paths.index("Training/glioma/image(20).png")
    assert (len(tumors.published_train), len(tumors.published_test)) == (13, 7)
    assert (tumors.published_train == row).sum() == 2
    assert (tumors.published_test == row).sum() == 2
    assert set(tumors.published_train) | set(tumors.published_test) == set(range(17))


def test_near_copies_share_a_group_and_contradicting_labels_are_told(folder):
    content = io.BytesIO()
    mirrored = Image.fromarray(np.ascontiguousarray(picture(6)[:, ::-1]))
    mirrored.resize((140, 115)).save(content, "JPEG", quality=60)
    (folder / "Testing/glioma/image(55).jpg").write_bytes(content.getvalue())
    save(picture(9), folder / "Testing/meningioma/image(56).png")
    tumors = load_tumors(folder, 32)
    first = tumors.paths.index("Training/meningioma/image(40).png")
    second = tumors.paths.index("Testing/glioma/image(55).jpg")
    assert tumors.groups[first] == tumors.groups[second]
    assert len(np.unique(tumors.groups)) == 18
    assert tumors.audit["test_near_duplicate"] == 2
    assert {(c["first"], c["second"], c["identical"]) for c in tumors.audit["label_conflicts"]} == {
        ("Training/none/image(20).png", "Testing/meningioma/image(56).png", True),
        ("Training/meningioma/image(40).png", "Testing/glioma/image(55).jpg", False),
    }


def test_the_same_folder_gives_the_same_answer_also_from_the_cache(folder, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    first = load_tumors(folder, 32)
    built = load_tumors(folder, 32, cache=cache)
    cached = load_tumors(folder, 32, cache=cache)
    assert len(list(cache.iterdir())) == 2
    for file in cache.iterdir():
        file.write_bytes(file.read_bytes()[:-200])
    mended = load_tumors(folder, 32, cache=cache)
    for other in (built, cached, mended):
        assert other.fingerprint == first.fingerprint
        assert other.audit == first.audit
        assert np.array_equal(other.images, first.images)
        assert np.array_equal(other.groups, first.groups)


CHANGES = {
    "too short": ("pairs_0", "thumbs", lambda array: array[:-1]),
    "of another kind": ("original", "rows", lambda array: array.astype("U")),
    "one axis more": ("pairs_3", "skipped", lambda array: array[None]),
    "other numbers": ("pairs_1", "rows", lambda array: array + 100_000),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_cache_that_holds_something_else_is_made_again(folder, tmp_path_factory, change):
    cache = tmp_path_factory.mktemp("cache")
    first = load_tumors(folder, 32, cache=cache)
    *names, changed = CHANGES[change]
    for path in cache.iterdir():
        arrays = load_npz(path)
        save_npz(path, arrays | {name: changed(arrays[name]) for name in names if name in arrays})
    tumors = load_tumors(folder, 32, cache=cache)
    assert tumors.audit == first.audit
    assert np.array_equal(tumors.groups, first.groups)


def test_the_cache_notices_a_changed_file(folder, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    before = load_tumors(folder, 32, cache=cache)
    save(picture(999), folder / "Training/none/image(20).png")
    after = load_tumors(folder, 32, cache=cache)
    assert after.fingerprint != before.fingerprint
    assert not np.array_equal(after.images, before.images)


def test_class_folders_without_splits(folder):
    tumors = load_tumors(folder / "Training", 32)
    assert set(tumors.split) == {"all"}
    assert len(tumors.published_train) == len(tumors.published_test) == 0
    assert tumors.audit["test_files"] == 0


def spoil_with_text(path):
    path.write_text("this is not a picture")


def spoil_by_truncation(path):
    path.write_bytes(path.read_bytes()[:-300])


def spoil_by_emptying(path):
    path.write_bytes(b"")


def spoil_header(path):
    content = path.read_bytes()
    path.write_bytes(content[:20] + b"\xff" * 40 + content[60:])


@pytest.mark.parametrize("spoil", [spoil_with_text, spoil_by_truncation, spoil_by_emptying, spoil_header])
def test_an_unreadable_file_is_skipped_and_listed_or_fatal_if_strict(folder, spoil):
    bad = folder / "Training/glioma/bad.jpg"
    Image.fromarray(picture(50)).save(bad, quality=95)
    spoil(bad)
    tumors = load_tumors(folder, 32)
    assert len(tumors) == 18
    (skipped,) = tumors.audit["skipped"]
    assert skipped["file"] == "Training/glioma/bad.jpg"
    assert skipped["reason"]
    with pytest.raises(UserError, match=r"bad\.jpg"):
        load_tumors(folder, 32, strict=True)


def test_bad_folders_are_one_clear_line(folder, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(UserError, match="no such folder"):
        load_tumors(folder / "nowhere", 32)
    with pytest.raises(UserError, match="two or more classes"):
        load_tumors(empty, 32)
    for file in (folder / "Testing/none").iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"Testing/none: holds no images"):
        load_tumors(folder, 32)
    (folder / "Testing/none").rmdir()
    with pytest.raises(UserError, match=r"Testing/none: no such folder"):
        load_tumors(folder, 32)


def test_a_class_of_unreadable_images_only(folder):
    for split in ("Training", "Testing"):
        for file in (folder / split / "none").iterdir():
            file.write_text("broken")
    with pytest.raises(UserError, match="no image of class none can be read"):
        load_tumors(folder, 32)


def test_files_come_in_the_order_of_their_numbers(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for file in ("p (10).png", "p (2).png", "p.png", "p (1).png", ".hidden.png", "notes.txt"):
            save(picture(1), tmp_path / name / file) if file.endswith("png") else (
                tmp_path / name / file
            ).write_text("")
    files, classes = list_images(tmp_path)
    assert classes == ("a", "b")
    assert [file.path for file in files[:4]] == ["a/p.png", "a/p (1).png", "a/p (2).png", "a/p (10).png"]
    assert [file.number for file in files[:4]] == [0, 1, 2, 10]


GREY = picture(3)
ALPHA = np.full_like(GREY, 255)
ALPHA[:30] = 0


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(GREY), GREY),
        (Image.fromarray(np.stack([GREY] * 3, -1)), GREY),
        (Image.fromarray(np.dstack([GREY, ALPHA])), np.where(ALPHA > 0, GREY, 0)),
        (Image.fromarray(np.dstack([GREY, GREY, GREY, ALPHA])), np.where(ALPHA > 0, GREY, 0)),
        (Image.fromarray((GREY > 100).astype(np.uint8) * 255).convert("1"), (GREY > 100) * 255),
        (Image.fromarray(GREY).convert("P"), GREY),
    ],
    ids=["L", "RGB", "LA", "RGBA", "1", "P"],
)
def test_every_mode_is_read_as_grey(image, expected, tmp_path):
    image.save(tmp_path / "image.png")
    assert np.array_equal(read_grey(tmp_path / "image.png"), expected)


def test_square_pads_in_the_middle_and_keeps_proportions():
    small = square(np.full((40, 80), 200, np.uint8), 20)
    assert small.shape == (20, 20)
    assert np.all(small[5:15] == 200)
    assert np.all(small[:5] == 0)
    assert np.all(small[15:] == 0)


def test_square_does_not_alias():
    stripes = np.tile(np.array([0, 255], np.uint8), (256, 128))
    assert np.abs(square(stripes, 32).astype(int) - 127.5).max() < 12
