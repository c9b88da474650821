"""What looks like something else than an MRI slice of a head: drawn, photographed and generated pictures."""

import json

import numpy as np
import pytest
import skimage.data
from PIL import Image
from scipy.ndimage import gaussian_filter

from mri_transfer.datasets.audit.measure import measure
from mri_transfer.datasets.audit.modality import find_others, looks_like
from mri_transfer.datasets.image_files import read_grey
from mri_transfer.datasets.synthetic.generate import write_tumors
from mri_transfer.datasets.tumors.images import ImageFile, list_images

ROWS, COLUMNS = np.mgrid[-1:1:256j, -1:1:220j]
RADIUS = np.hypot(ROWS / 0.85, COLUMNS / 0.8)


def slice_of(
    skull: float, scalp: float, brain: float, ground: float = 0, noise: float = 6, seed=0
) -> np.ndarray:
    """Scalp, skull and brain from outside inwards, with fluid in the middle."""
    picture = np.full(RADIUS.shape, ground)
    for within, level in ((1.0, scalp), (0.94, skull), (0.8, brain), (0.25, 0.5 * brain)):
        picture[within > RADIUS] = level
    picture = gaussian_filter(picture, 1.5) + np.random.default_rng(seed).normal(0, noise, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


MRI = slice_of(skull=15, scalp=210, brain=110)
CT = slice_of(skull=400, scalp=60, brain=100)
DIFFUSION = slice_of(skull=115, scalp=115, brain=110, ground=12)


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """Generated MRI slices in three planes, of several contrasts."""
    folder = tmp_path_factory.mktemp("heads")
    write_tumors(folder, per_class=8, seed=5)
    files, _ = list_images(folder)
    return [read_grey(folder / file.path) for file in files]


def test_mri_of_a_head_looks_like_nothing_else(heads):
    assert looks_like(MRI) == ()
    odd = [kinds for kinds in map(looks_like, heads) if kinds]
    assert len(odd) <= len(heads) // 20, odd


@pytest.mark.parametrize("turn", range(4))
def test_a_bright_skull_beside_the_brain_is_ct_and_a_bright_scalp_is_not(turn):
    assert looks_like(np.rot90(CT, turn)) == ("CT",)
    assert looks_like(np.rot90(MRI, turn)) == ()


@pytest.mark.parametrize("size", [(128, 110), (512, 440), (900, 774)])
def test_the_size_of_the_picture_does_not_matter(size):
    for picture, kinds in ((MRI, ()), (CT, ("CT",)), (DIFFUSION, ("diffusion",))):
        resized = Image.fromarray(picture).resize(size[::-1], Image.Resampling.BICUBIC)
        assert looks_like(np.asarray(resized)) == kinds


def test_a_brain_without_scalp_and_skull_looks_like_diffusion():
    assert looks_like(DIFFUSION) == ("diffusion",)


@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (2, 1), (2, 2), (3, 3), (3, 4)])
def test_several_slices_in_one_picture_are_a_montage(rows, columns):
    slices = [slice_of(15, 210, 110, seed=seed) for seed in range(rows * columns)]
    sheet = np.concatenate(
        [np.concatenate(slices[row * columns : (row + 1) * columns], axis=1) for row in range(rows)]
    )
    assert "montage" in looks_like(sheet)


def test_a_photograph_in_colour_or_grey_and_a_page():
    cat = Image.fromarray(skimage.data.chelsea())
    grey = np.asarray(cat.convert("L"))
    assert "photograph" in looks_like(grey)
    assert "photograph" in looks_like(MRI, colour=0.6)
    assert "photograph" not in looks_like(MRI, colour=0.01)
    assert "inverted" in looks_like(255 - MRI)


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (17, 9), (40, 40), (300, 200)])
@pytest.mark.parametrize("value", [0, 255])
def test_flat_pictures_show_nothing(shape, value):
    assert looks_like(np.full(shape, value, np.uint8)) == ("empty",)


def test_noise_and_tiny_pictures_break_nothing():
    rng = np.random.default_rng(0)
    for shape in ((2, 300), (16, 16), (97, 33), (200, 200)):
        for high in (30, 256):
            looks_like(rng.integers(0, high, shape, dtype=np.uint8))


def test_a_modality_that_one_class_has_more_often_is_told(tmp_path):
    files = []
    for number in range(60):
        picture = CT if number % 2 and number > 20 else MRI
        Image.fromarray(picture).save(tmp_path / f"{number}.jpg", quality=90)
        files.append(ImageFile(f"{number}.jpg", "all", number % 2, "", number))
    Image.fromarray(skimage.data.coffee()).save(tmp_path / "coffee.jpg")
    (tmp_path / "broken.jpg").write_text("no picture")
    files += [ImageFile("coffee.jpg", "all", 0, "", 0), ImageFile("broken.jpg", "all", 1, "", 0)]
    others = find_others(measure(tmp_path, files), files, ("tumour", "healthy"))
    json.dumps(others, allow_nan=False)
    assert others["images"] == 61
    assert others["kinds"]["CT"] == {
        "images": 20,
        "by_class": {"tumour": 0.0, "healthy": round(20 / 30, 4)},
        "depends_on_class": True,
    }
    assert others["kinds"]["photograph"]["images"] == 1
    assert not others["kinds"]["photograph"]["depends_on_class"]
    assert {"file": "coffee.jpg", "class": "tumour", "kinds": ["photograph"]} in others["files"]
    assert any("learn the modality" in line for line in others["sentences"])


def test_nothing_odd_is_said(tmp_path):
    Image.fromarray(MRI).save(tmp_path / "1.png")
    files = [ImageFile("1.png", "all", 0, "", 1)]
    others = find_others(measure(tmp_path, files), files, ("a",))
    assert others["files"] == []
    assert others["sentences"] == ["Every image looks like a slice of a head."]
