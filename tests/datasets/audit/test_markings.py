"""Marks drawn upon generated heads are found where they were drawn; heads without any have none."""

import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from mri_transfer.datasets.audit.markings import find_markings, find_marks, outside_head
from mri_transfer.datasets.audit.measure import measure
from mri_transfer.datasets.image_files import read_grey
from mri_transfer.datasets.synthetic.generate import write_tumors
from mri_transfer.datasets.tumors.images import ImageFile, list_images

SIDE = 360


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """Generated heads of all classes, at the size of published pictures."""
    folder = tmp_path_factory.mktemp("heads")
    write_tumors(folder, per_class=6, seed=3)
    files, _ = list_images(folder)
    return [
        Image.fromarray(read_grey(folder / file.path)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        for file in files
        if file.split == "Training"
    ]


def recompressed(image: Image.Image, quality: int = 85) -> np.ndarray:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality)
    return np.asarray(Image.open(io.BytesIO(content.getvalue())))


def kinds(image: Image.Image, quality: int = 85) -> set[str]:
    return {mark.kind for mark in find_marks(recompressed(image, quality))}


def arrow(image: Image.Image, x: float, y: float, length: float, angle: float, fill: int = 255) -> None:
    outline = (
        np.array([(0, 0), (-4, 2.5), (-4, 0.8), (-10, 0.8), (-10, -0.8), (-4, -0.8), (-4, -2.5)])
        * length
        / 10
    )
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    ImageDraw.Draw(image).polygon([tuple(point) for point in outline @ turn + (x, y)], fill=fill)


def test_heads_that_nobody_drew_upon_have_no_marks(heads):
    marked = [number for number, head in enumerate(heads) if kinds(head)]
    assert len(marked) <= len(heads) // 20, marked


@pytest.mark.parametrize("quality", [60, 90])
@pytest.mark.parametrize("text", ["R", "SE 4 IM 12/36", "DOE, JANE"])
def test_letters_in_a_corner_are_found_there(heads, text, quality):
    font = ImageFont.load_default(14)
    count = 0
    for head in heads:
        picture = head.copy()
        ImageDraw.Draw(picture).text((6, 6), text, fill=230, font=font)
        marks = find_marks(recompressed(picture, quality))
        count += any(mark.kind == "letters" and mark.box[1] < 26 for mark in marks)
        assert not any(mark.kind == "letters" and mark.box[1] > 40 for mark in marks)
    assert count >= 0.9 * len(heads)


def test_arrows_upon_the_head_are_found_there(heads):
    rng = np.random.default_rng(0)
    count = 0
    for head in heads:
        picture = head.copy()
        x, y = rng.uniform(0.4, 0.6, 2) * SIDE
        arrow(picture, x, y, 22, rng.uniform(0, 2 * np.pi))
        near = [
            mark
            for mark in find_marks(recompressed(picture))
            if mark.kind == "graphics"
            and np.hypot((mark.box[0] + mark.box[2]) / 2 - x, (mark.box[1] + mark.box[3]) / 2 - y) < 22
        ]
        count += bool(near)
    assert count >= 0.6 * len(heads)  # the rest touch something as bright


@pytest.mark.parametrize("edge", ["top", "bottom", "left", "right", "all"])
def test_a_line_along_an_edge_is_a_frame(heads, edge):
    last = SIDE - 1
    lines = {
        "top": (0, 1, last, 1),
        "bottom": (0, last, last, last),
        "left": (2, 0, 2, last),
        "right": (last, 0, last, last),
    }
    picture = heads[0].copy()
    for name, line in lines.items():
        if edge in (name, "all"):
            ImageDraw.Draw(picture).line(line, fill=220)
    assert "frame" in kinds(picture)


def test_smooth_bright_spots_are_anatomy(heads):
    """Vessels and fat are as bright as letters, and end softly."""
    y, x = np.mgrid[:SIDE, :SIDE]
    for place in ((20, 20), (SIDE // 2, SIDE // 2)):
        spot = 200 * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * 4.0**2))
        picture = Image.fromarray(np.maximum(np.asarray(heads[0]), spot).astype(np.uint8))
        assert not {"letters", "graphics"} & kinds(picture)


def test_outside_of_the_head_is_the_corners_and_never_the_head(heads):
    for head in heads:
        grey = np.asarray(head)
        outside = outside_head(grey)
        assert outside[:4, :4].all()
        assert not (outside & (grey > 90)).any()


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (33, 40), (300, 300)])
def test_flat_and_tiny_pictures_have_no_marks(value, shape):
    assert find_marks(np.full(shape, value, np.uint8)) == []


def test_counts_by_class_and_a_marking_that_gives_the_class_away(heads, tmp_path):
    files = []
    for number, head in enumerate(heads[:16] * 3):
        label = number % 2
        picture = head.convert("RGB")
        if label and number >= 6:
            ImageDraw.Draw(picture).text(
                (6, 6), "R 12", fill=(255, 255, 255), font=ImageFont.load_default(16)
            )
        if number == 4:
            ImageDraw.Draw(picture).text((6, 300), "scan", fill=(255, 60, 0), font=ImageFont.load_default(24))
        picture.save(tmp_path / f"{number}.jpg", quality=90)
        files.append(ImageFile(f"{number}.jpg", "all", label, "", number))
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8")
    files.append(ImageFile("broken.jpg", "all", 0, "", 0))
    markings = find_markings(measure(tmp_path, files), files, ("a", "b"))
    json.dumps(markings, allow_nan=False)
    assert markings["images"] == 48
    assert markings["kinds"]["letters"]["by_class"]["b"] > 0.7
    assert markings["kinds"]["letters"]["by_class"]["a"] < 0.1
    assert markings["kinds"]["letters"]["depends_on_class"]
    assert markings["kinds"]["colour"]["images"] == 1
    coloured = next(entry for entry in markings["files"] if "colour" in entry["kinds"])
    assert (coloured["file"], coloured["class"]) == ("4.jpg", "a")
    assert not markings["kinds"]["frame"]["images"]
    assert any("learn the marking" in line for line in markings["sentences"])
    scores = [entry["score"] for entry in markings["files"]]
    assert scores == sorted(scores, reverse=True)


def test_nothing_found_is_said(heads, tmp_path):
    heads[0].save(tmp_path / "1.png")
    files = [ImageFile("1.png", "all", 0, "", 1)]
    figures = dataclasses.replace(measure(tmp_path, files), marks=((),))
    assert find_markings(figures, files, ("a",))["sentences"] == [
        "No colour, letters, arrows or frames were found."
    ]
