"""Whatever `predict` is given becomes the same picture, or one clear line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mri_transfer.datasets.image_files import read_grey, square
from mri_transfer.errors import UserError
from mri_transfer.finetune.prediction.inputs import find_inputs, read_input, reason_of

SIZE = 48


def read(path):
    (source,) = find_inputs([path], [])
    return list(read_input(source, SIZE, 4.0))


def failure(path):
    with pytest.raises(Exception) as error:  # noqa: PT011, the reader may raise nearly anything
        read(path)
    reason = reason_of(error.value)
    assert reason
    assert "\n" not in reason
    return reason


@pytest.fixture(scope="module")
def head():
    """A bright ellipse with a darker one inside, uint8 (60, 90)."""
    y, x = np.mgrid[-1:1:60j, -1:1:90j]
    picture = 200 * ((x / 0.8) ** 2 + (y / 0.9) ** 2 < 1) - 90.0 * ((x / 0.3) ** 2 + (y / 0.5) ** 2 < 1)
    return picture.astype(np.uint8)


def saved(head, path, mode):
    grey = Image.fromarray(head)
    if mode == "I;16":
        grey = Image.fromarray(head.astype(np.uint16) * 257)
    elif mode in ("I", "F"):
        grey = Image.fromarray(head.astype({"I": np.int32, "F": np.float32}[mode]) * 3 - 100)
    elif mode == "LA":
        grey.putalpha(255)
    elif mode == "CMYK":
        grey = grey.convert("RGB").convert("CMYK")
    else:
        grey = grey.convert(mode)
    assert grey.mode == mode
    grey.save(path)
    return path


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        *(("L", suffix) for suffix in ("png", "bmp", "gif", "tif", "webp", "jpg")),
        *(("RGB", suffix) for suffix in ("png", "jpg", "webp")),
        *(("RGBA", "png"), ("LA", "png"), ("P", "png"), ("P", "gif"), ("I;16", "png"), ("I;16", "tif")),
        *(("I", "tif"), ("F", "tif"), ("CMYK", "jpg"), ("CMYK", "tif"), ("YCbCr", "jpg")),
    ],
)
def test_every_mode_and_format_gives_the_same_picture(head, tmp_path, mode, suffix):
    (picture,) = read(saved(head, tmp_path / f"head.{suffix}", mode))
    expected = square(head, SIZE).astype(float)
    if mode in ("I", "F", "I;16"):  # deeper than 8 bits: stretched from its own range
        expected *= 255 / head.max()
    pixels = picture.image.astype(float)
    assert pixels.shape == (SIZE, SIZE)
    assert np.abs(pixels - expected).mean() < 2.5
    assert np.corrcoef(pixels.ravel(), expected.ravel())[0, 1] > 0.995
    assert not picture.strange


def test_one_bit_keeps_what_it_has(head, tmp_path):
    (picture,) = read(saved(head, tmp_path / "bits.png", "1"))
    assert np.corrcoef(picture.image.ravel(), square(head, SIZE).ravel())[0, 1] > 0.8


def test_transparency_lies_on_black(head, tmp_path):
    picture = Image.fromarray(np.full_like(head, 255))
    picture.putalpha(Image.fromarray(head))
    picture.save(tmp_path / "clear.png")
    (result,) = read(tmp_path / "clear.png")
    assert np.abs(result.image.astype(int) - square(head, SIZE)).mean() < 1


# Of each EXIF orientation from 1 to 8, what a viewer's turn undoes.
STORED = (
    None,
    "FLIP_LEFT_RIGHT",
    "ROTATE_180",
    "FLIP_TOP_BOTTOM",
    "TRANSPOSE",
    "ROTATE_90",
    "TRANSVERSE",
    "ROTATE_270",
)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_taken_the_way_round_a_viewer_shows_it(head, tmp_path, orientation):
    back = STORED[orientation - 1]
    head = head.copy()
    head[5:20, 10:25] = 255  # so that no way round looks like another
    turned = Image.fromarray(head) if back is None else Image.fromarray(head).transpose(Image.Transpose[back])
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned.save(tmp_path / "o.png", exif=exif)
    (picture,) = read(tmp_path / "o.png")
    assert np.array_equal(picture.image, square(head, SIZE))


def test_what_is_no_slice_of_a_head_is_noticed(head, tmp_path):
    rng = np.random.default_rng(0)
    colourful = np.stack([np.roll(head, 20 * k, axis=1) for k in range(3)], axis=-1)
    y, x = np.mgrid[:200, :200]
    page = np.where((y % 12 < 2) & (x % 9 < 6) & (rng.random((200, 200)) > 0.3), 20, 245).astype(np.uint8)
    for name, picture in {"colour": colourful, "page": page, "blank": np.full((90, 90), 7, np.uint8)}.items():
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    assert "photographs" in read(tmp_path / "colour.png")[0].strange[0]
    assert any("bright ground" in reason for reason in read(tmp_path / "page.png")[0].strange)
    assert read(tmp_path / "blank.png")[0].strange == ("show nothing",)


def test_what_is_no_image_is_one_line(tmp_path, head):
    (tmp_path / "empty.png").touch()
    (tmp_path / "letter.png").write_text("Dear all,\nthis is a letter.\n")
    whole = saved(head, tmp_path / "whole.png", "L").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    assert failure(tmp_path / "empty.png") == "an empty file"
    assert "not an image" in failure(tmp_path / "letter.png")
    assert failure(tmp_path / "cut.png")
    (tmp_path / "cut.nii.gz").write_bytes(b"\x1f\x8b\x08" + bytes(40))
    assert failure(tmp_path / "cut.nii.gz")


def test_slices_of_a_volume_are_those_of_a_store(small_volumes):
    from mri_transfer.datasets.slices.cut import cut
    from mri_transfer.datasets.volumes.volume import read_volume

    path = sorted(small_volumes.iterdir())[0]
    pictures = read(path)
    expected = cut(read_volume([path]), SIZE, 4.0)
    assert np.array_equal(np.stack([picture.image for picture in pictures]), expected.images)
    assert [picture.place["plane"] for picture in pictures] == list(expected.plane)
    assert {picture.file for picture in pictures} == {str(path)}
    (source,) = find_inputs([path], [])
    assert len(list(read_input(source, SIZE, 20.0))) < len(pictures)


def test_images_and_volumes_are_found_once_and_what_is_missing_is_named(small_volumes, head, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    image = saved(head, tmp_path / "a" / "b" / "1.png", "L")
    (tmp_path / "a" / "notes.txt").write_text("x")
    (tmp_path / "a" / ".hidden.png").write_bytes(image.read_bytes())
    volume = tmp_path / "a" / "sub-01_T1w.nii.gz"
    volume.write_bytes(sorted(small_volumes.iterdir())[0].read_bytes())
    inputs = find_inputs([tmp_path / "a", image, volume], [])
    assert [source.path.name for source in inputs] == ["1.png", "sub-01_T1w.nii.gz"]
    assert [source.name for source in inputs] == [str(image), str(volume)]
    with pytest.raises(UserError, match="no such file"):
        find_inputs([tmp_path / "b.png"], [])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no volumes .* and no images"):
        find_inputs([tmp_path / "empty"], [])


def test_a_scan_of_another_kind_says_of_which():
    pydicom = pytest.importorskip("pydicom")
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    skipped: list = []
    assert find_inputs([folder / "CT_small.dcm"], skipped) == []
    assert skipped.pop() == {"file": str(folder / "CT_small.dcm"), "reason": "modality CT, not MR"}
    assert find_inputs([folder / "MR_small.dcm"], skipped) == []
    assert "only 1 slice, not a volume" in skipped[0]["reason"]


def test_the_same_picture_as_training_reads(head, tmp_path):
    for name in ("head.jpg", "head.png"):
        path = saved(head, tmp_path / name, "RGB")
        assert np.array_equal(read(path)[0].image, square(read_grey(path), SIZE))


def test_a_folder_of_another_kind_or_of_nothing_is_one_skipped_line_among_others(head, tmp_path):
    """A folder of CT does not end everything, and is told without an option of another command."""
    pydicom = pytest.importorskip("pydicom")
    (tmp_path / "ct").mkdir()
    for number in range(3):
        dataset = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"))
        dataset.SOPInstanceUID = f"1.2.3.{number}"
        dataset.save_as(tmp_path / "ct" / f"{number}.dcm")
    (tmp_path / "empty").mkdir()
    image = saved(head, tmp_path / "head.png", "L")
    skipped: list = []
    inputs = find_inputs([tmp_path / "ct", tmp_path / "empty", image], skipped)
    assert [source.path.name for source in inputs] == ["head.png"]
    assert [entry["reason"] for entry in skipped] == [
        "modality CT, not MR (3 images)",
        "holds no volumes and no images",
    ]
    skipped.clear()
    assert find_inputs([tmp_path / "ct"], skipped) == []
    assert [entry["reason"] for entry in skipped] == ["modality CT, not MR (3 images)"]


def test_a_volume_that_is_no_scan_is_told_without_an_option(tmp_path):
    import nibabel

    labels = np.zeros((30, 30, 30), np.uint8)
    labels[5:25, 5:25, 5:25] = np.arange(20)[:, None, None] // 5 + 1
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), tmp_path / "x.nii.gz")
    assert failure(tmp_path / "x.nii.gz") == "a label map by its contents: large regions of one value"
