"""Layouts that people have: splits, classes, and folders that are neither and may not become classes."""

import itertools
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mri_transfer.datasets.tumors.layout import published, read_layout, split_kind
from mri_transfer.datasets.tumors.persons.group_table import write_groups
from mri_transfer.datasets.tumors.tumors import load_tumors
from mri_transfer.errors import UserError

CLASSES = ("glioma", "meningioma", "notumor")
SEEDS = itertools.count()


def draw(path: Path) -> Path:
    small = np.random.default_rng(next(SEEDS)).integers(0, 255, (9, 9), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC).save(path)
    return path


def write(folder: Path, *splits: str, classes=CLASSES, images: int = 2) -> Path:
    for split, name, number in itertools.product(splits or [""], classes, range(images)):
        draw(folder / split / name / f"image({number}).png")
    return folder


def shape(folder: Path) -> list[tuple[str, str, int]]:
    return [(place.split, place.name, len(place.images)) for place in read_layout(folder).places]


@pytest.mark.parametrize(
    ("names", "kinds"),
    [
        (("train", "val", "test"), ("train", "validation", "test")),
        (("Training", "Validation", "Testing"), ("train", "validation", "test")),
        (("TRAIN", "DEV", "TEST"), ("train", "validation", "test")),
        (("train_set", "valid", "test images"), ("train", "validation", "test")),
    ],
)
def test_splits_are_splits_whatever_their_case(tmp_path, names, kinds):
    write(tmp_path, *names)
    assert tuple(map(split_kind, names)) == kinds
    assert read_layout(tmp_path).classes == CLASSES
    assert shape(tmp_path) == [(split, name, 2) for split in names for name in CLASSES]


@pytest.mark.parametrize(
    "name", ["glioma", "testosterone", "trainee", "devil", "valley", "latest", "fold1", ""]
)
def test_other_names_are_no_splits(name):
    assert split_kind(name) is None


def test_validation_is_neither_training_nor_the_published_test(tmp_path):
    tumors = load_tumors(write(tmp_path, "train", "val", "test"), 32)
    assert set(tumors.split[tumors.published_train]) == {"train"}
    assert set(tumors.split[tumors.published_test]) == {"test"}
    assert len(tumors) == 18
    assert (tumors.audit["training_files"], tumors.audit["test_files"]) == (6, 6)


def test_validation_stands_for_a_test_split_that_is_missing():
    for splits, expected in (
        (["train", "val"], ([1, 0], [0, 1])),
        (["train", "dev", "test"], ([1, 0, 0], [0, 0, 1])),
        (["all", "all"], ([0, 0], [0, 0])),
        (["Testing"], ([0], [1])),
    ):
        assert [mask.astype(int).tolist() for mask in published(splits)] == list(map(list, expected))


def test_splits_may_lie_within_the_classes(tmp_path):
    for name in CLASSES:
        write(tmp_path / name, classes=("train", "test"))
    assert shape(tmp_path) == [(split, name, 2) for split in ("train", "test") for name in CLASSES]


@pytest.mark.parametrize("around", ["tumors", "archive/Brain-Tumor", "a/b/c"])
def test_folders_around_the_set_are_looked_through(tmp_path, around):
    write(tmp_path / around, "Training", "Testing")
    layout = read_layout(tmp_path)
    assert layout.classes == CLASSES
    assert any(f"read from {around}" in line for line in layout.left_out)
    assert load_tumors(tmp_path, 32).paths[0].startswith(f"{around}/Training/glioma/")


def test_an_archive_within_a_split(tmp_path):
    write(tmp_path / "Training", "Training")
    write(tmp_path / "Testing", "Testing")
    assert shape(tmp_path) == [(split, name, 2) for split in ("Training", "Testing") for name in CLASSES]


@pytest.mark.parametrize("splits", [("Training", "Testing"), ()])
@pytest.mark.parametrize("inner", ["tumors", "brain_tumor_dataset"])
def test_a_nested_copy_is_neither_a_class_nor_counted_twice(tmp_path, splits, inner):
    write(tmp_path / "set", *splits)
    before = shape(tmp_path / "set")
    shutil.copytree(tmp_path / "set", tmp_path / "copy")
    shutil.move(tmp_path / "copy", tmp_path / "set" / inner)
    layout = read_layout(tmp_path / "set")
    assert shape(tmp_path / "set") == before
    assert any(line.startswith(f"{inner}: a copy") for line in layout.left_out)


def test_a_pooled_copy_beside_the_splits(tmp_path):
    write(tmp_path, "Training", "Testing")
    for path in sorted(tmp_path.glob("T*/*/*.png")):
        place = tmp_path / "brain_tumor_dataset" / path.parent.name / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    assert {split for split, _, _ in shape(tmp_path)} == {"Training", "Testing"}


@pytest.mark.parametrize("splits", [("Training", "Testing"), ()])
def test_another_set_within_is_asked_about(tmp_path, splits):
    write(tmp_path, *splits)
    write(tmp_path / "extra", *splits)
    with pytest.raises(
        UserError, match=r"extra: another set of \d+ pictures beside .*move the folder elsewhere"
    ):
        read_layout(tmp_path)


@pytest.mark.parametrize("splits", [("train", "val", "test"), ("Training",), ()])
@pytest.mark.parametrize("name", ["plots", "pred", "masks", "Predictions"])
def test_a_folder_of_other_pictures_is_asked_about(tmp_path, splits, name):
    write(tmp_path, *splits)
    draw(tmp_path / name / "roc.png")
    with pytest.raises(UserError, match=rf"{name}: 1 picture.*move"):
        read_layout(tmp_path)


def test_masks_within_a_class_are_asked_about(tmp_path):
    write(tmp_path, "Training", "Testing")
    draw(tmp_path / "Training" / "glioma" / "masks" / "1.png")
    with pytest.raises(UserError, match="glioma/masks: 1 picture"):
        read_layout(tmp_path)


@pytest.mark.parametrize("splits", [("Training", "Testing"), ()])
def test_what_programs_leave_behind_and_folders_without_images_are_passed_over(tmp_path, splits):
    write(tmp_path, *splits)
    before = shape(tmp_path)
    write(tmp_path / "__MACOSX", *splits)
    write(tmp_path / ".ipynb_checkpoints")
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "train.ipynb").write_text("{}")
    draw(tmp_path / "sample.png")
    layout = read_layout(tmp_path)
    assert shape(tmp_path) == before
    text = "\n".join(layout.left_out)
    assert "__MACOSX" in text
    assert "notebooks: holds no images" in text
    assert "1 image lies beside the class folders, without a class, ignored: sample.png" in text
    assert ".ipynb" not in text


@pytest.mark.parametrize("splits", [("Training", "Testing"), ()])
def test_an_empty_folder_that_is_called_like_a_class_is_asked_about(tmp_path, splits):
    write(tmp_path, *splits)
    for split in splits or [""]:
        (tmp_path / split / "pituitary_tumor").mkdir()
    with pytest.raises(UserError, match="pituitary_tumor: holds no images"):
        read_layout(tmp_path)


@pytest.mark.parametrize("names", [("part_a", "part_b"), ("first", "second")])
def test_splits_by_other_names_are_asked_about(tmp_path, names):
    write(tmp_path, *names)
    with pytest.raises(
        UserError, match="seem to be splits rather than classes; rename them to train and test"
    ):
        read_layout(tmp_path)


def test_planes_within_classes_are_no_splits(tmp_path):
    for name in CLASSES:
        write(tmp_path / name, classes=("axial", "coronal", "T1"))
    assert shape(tmp_path) == [("all", name, 6) for name in CLASSES]


def test_two_sets_side_by_side_are_asked_about(tmp_path):
    for name in ("fold_1", "fold_2"):
        write(tmp_path / name, "train", "test")
    with pytest.raises(UserError, match=r"several sets \(fold_1, fold_2\); name one"):
        read_layout(tmp_path)


def test_two_folders_of_one_split_and_a_split_without_classes_are_asked_about(tmp_path):
    write(tmp_path, "train", "test")
    draw(tmp_path / "val" / "1.png")
    with pytest.raises(UserError, match="val: 1 pictures, but no class folders"):
        read_layout(tmp_path)
    shutil.rmtree(tmp_path / "val")
    write(tmp_path, "Testing")
    with pytest.raises(UserError, match="Testing and test seem to be the same split"):
        read_layout(tmp_path)


def test_pictures_with_unknown_endings_are_counted_and_told(tmp_path, capsys):
    write(tmp_path / "set", "Training", "Testing")
    place = tmp_path / "set" / "Training" / "glioma"
    png = (place / "image(0).png").read_bytes()
    for name in ("1.dcm", "2.jfif", "3.HEIC", "4.heic"):
        (place / name).write_bytes(b"")
    (place / "no_ending").write_bytes(png)
    (place / "photo.png_large").write_bytes(png)
    for name in ("notes.txt", "Thumbs.db", "labels.csv", "README", ".5.dcm"):
        (place / name).write_text("no picture")
    assert read_layout(tmp_path / "set").unread == {
        ".dcm": 1,
        ".jfif": 1,
        ".heic": 2,
        "no ending": 1,
        ".png_large": 1,
    }
    assert load_tumors(tmp_path / "set", 32).audit["unread_pictures"] == 6
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "not read because" in line]
    assert "6 pictures are" in line
    assert ".dcm (1), .heic (2), .jfif (1), .png_large (1), no ending (1)" in line


def test_a_class_of_other_pictures_only(tmp_path):
    write(tmp_path, classes=("a", "b"))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "1.dcm").write_bytes(b"")
    with pytest.raises(UserError, match=r"c: holds no images .*but 1 of other kinds \(\.dcm\): convert"):
        read_layout(tmp_path)


def test_a_link_around_the_set_does_not_lead_in_circles(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(UserError, match="two or more classes"):
        read_layout(tmp_path)
    write(tmp_path, "Training", "Testing")
    assert len(read_layout(tmp_path).places) == 6  # what lies behind the link is the same


def test_a_name_that_is_no_utf8_stops_no_comparison(tmp_path, cli):
    folder = write(tmp_path / "set", "Training", "Testing", images=6)
    try:
        (folder / "Training" / "glioma" / "image(0).png").rename(
            os.fsdecode(os.fsencode(folder) + b"/Training/glioma/caf\xe9 3.png")
        )
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    few = (
        "--arm",
        "pixels",
        "--arm",
        "figures",
        "--mode",
        "nearest",
        "--size",
        32,
        "--folds",
        2,
        "--seeds",
        1,
        "--draws",
        9,
    )
    write_groups(tmp_path / "groups.csv", load_tumors(folder, 32))
    done = cli(
        "compare", folder, *few, "--workers", 1, "--groups", tmp_path / "groups.csv", "--out", tmp_path / "o"
    )
    assert done.returncode == 0, done.stderr


def test_a_folder_whose_name_is_no_utf8_is_one_line(tmp_path):
    write(tmp_path, classes=("a", "b"))
    try:
        (tmp_path / "a").rename(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    with pytest.raises(UserError, match=r"the name of the folder caf\\xe9 is not UTF-8; rename it"):
        read_layout(tmp_path)


def test_numbered_folders_in_the_only_class_are_not_taken_for_classes(tmp_path):
    write(tmp_path / "glioma_set", classes=("1", "2"))
    with pytest.raises(
        UserError, match=r"only glioma_set; if the folders in it are the classes, name .*glioma_set"
    ):
        read_layout(tmp_path)
    assert read_layout(tmp_path / "glioma_set").classes == ("1", "2")
