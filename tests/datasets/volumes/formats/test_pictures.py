"""Folders of pictures: each is one slice, of the subject that its folder names."""

from __future__ import annotations

import io
import json
import os
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from mri_transfer.cli import main
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.datasets.volumes.find import find_volumes
from mri_transfer.datasets.volumes.formats.pictures import read_picture
from mri_transfer.datasets.volumes.volume import BadVolume
from mri_transfer.errors import UserError

OPTIONS = ("--images", "--size", "32", "--workers", "1", "--max-correlation", "1", "--quiet")


def picture(seed: int, shape=(40, 30)) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    noise = np.random.default_rng(seed).random(shape)
    return ((x**2 + y**2 < 0.7) * (80 + 150 * noise)).astype(np.uint8)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    top = tmp_path / "heads"
    for at, subject in enumerate(("anna", "berta 2", "Цезарь")):
        for number in range(3):
            save(top / subject / f"IMG_{number:03d}.png", picture(10 * at + number))
    save(top / "anna" / "FLAIR" / "a.jpg", picture(50))
    save(top / "anna" / "anna_mask.png", picture(60))
    (top / "anna" / "notes.txt").write_text("x")
    return top


def test_subject_and_sequence_come_from_folders(folder):
    inventory = find_volumes([folder], pictures=True)
    assert [(source.identity.subject, source.identity.sequence) for source in inventory.sources] == [
        *[("anna", "unknown")] * 3,
        ("anna", "FLAIR"),
        *[("berta 2", "unknown")] * 3,
        *[("Цезарь", "unknown")] * 3,
    ]
    assert {source.plane for source in inventory.sources} == {"unknown"}
    assert [skip.name for skip in inventory.skipped] == ["heads/anna/anna_mask.png"]


def test_the_command_makes_a_store_that_pretraining_can_read(folder, tmp_path):
    from mri_transfer.pretrain.pairs.positives import PairSampler

    table = tmp_path / "t.csv"
    table.write_text(
        "file,plane,sequence\nheads/anna/IMG_000.png,coronal,T2\nheads/anna/IMG_001.png,axial,\n"
    )
    out = tmp_path / "store"
    assert main(["slices", str(folder), "--out", str(out), "--table", str(table), *OPTIONS]) == 0
    store = SliceStore.open(out)
    assert len(store) == 10
    assert set(store.table["subject"]) == {"anna", "berta 2", "Цезарь"}
    assert sorted(store.table["plane"]) == ["axial", "coronal", *["unknown"] * 8]
    row = int(np.flatnonzero(store.table["plane"] == "coronal")[0])
    assert store.table["sequence"][row] == "T2"
    image = store.images([row])[0]
    assert image[:, :3].max() == image[:, -3:].max() == 0  # padded to a square, upright
    assert image[16, 16] > 60
    summary = json.loads((out / "summary.json").read_text())
    assert summary["by_plane"] == {"axial": 1, "coronal": 1, "unknown": 8}
    sheet = Image.open(out / "contact_sheet.png")
    assert sheet.height > 3 * 160  # a row each for the two planes and for what is unknown
    batch = PairSampler(store, positives="adjacent", max_mm=6.0, batch=8, seed=0)(0)
    np.testing.assert_array_equal(batch["a"], batch["b"])  # no neighbour of a picture is known
    before = (out / "slices.csv").read_bytes()
    assert main(["slices", str(folder), "--out", str(out), "--table", str(table), *OPTIONS]) == 0
    assert (out / "slices.csv").read_bytes() == before


def test_copies_and_unwanted_planes_are_left_out(folder, tmp_path):
    Image.open(folder / "anna" / "IMG_000.png").save(folder / "anna" / "IMG_copy.bmp")
    table = tmp_path / "t.csv"
    table.write_text("file,plane\nIMG_002.png,\nheads/anna/IMG_001.png,sagittal\n")
    out = tmp_path / "store"
    arguments = [
        "slices",
        str(folder),
        "--out",
        str(out),
        "--table",
        str(table),
        "--planes",
        "axial",
        *OPTIONS,
    ]
    assert main(arguments) == 0
    skipped = {skip["file"]: skip["reason"] for skip in SliceStore.open(out).manifest["skipped"]}
    assert skipped["heads/anna/IMG_copy.bmp"] == "the same scan as heads/anna/IMG_000.png"
    assert "--planes" in skipped["heads/anna/IMG_001.png"]


def test_pictures_and_volumes_are_not_mistaken_for_each_other(folder, tmp_path, refuses):
    refuses("slices", folder, "--out", tmp_path / "s", words=("no volumes",))
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "a.nii").write_bytes(b"x")
    refuses("slices", tmp_path / "v", "--images", "--out", tmp_path / "s", words=("no pictures", ".png"))
    refuses("slices", tmp_path / "v" / "a.nii", "--images", "--out", tmp_path / "s", words=("not a picture",))


def test_turned_deep_and_transparent_pictures(tmp_path):
    pixels = picture(1)
    upright = read_picture(save(tmp_path / "a.png", pixels), 64)[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: to be shown a quarter turn clockwise
    turned = save(tmp_path / "b.jpg", np.rot90(pixels), quality=100, subsampling=0, exif=exif)
    assert np.abs(read_picture(turned, 64)[0].astype(int) - upright).max() < 25
    deep = save(tmp_path / "c.png", pixels.astype(np.uint16) * 256)
    assert np.abs(read_picture(deep, 64)[0].astype(int) - upright).max() < 30
    assert read_picture(tmp_path / "a.png", 64)[2] == read_picture(save(tmp_path / "d.bmp", pixels), 64)[2]


def png(width: int, height: int) -> bytes:
    """A PNG whose header promises any size."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(999)))
        + chunk(b"IEND", b"")
    )


def stack() -> bytes:
    file = io.BytesIO()
    pages = [Image.fromarray(picture(seed)) for seed in range(3)]
    pages[0].save(file, format="TIFF", save_all=True, append_images=pages[1:])
    return file.getvalue()


def longer_chunk() -> bytes:
    """A PNG whose pixels' chunk promises two gigabytes more; found by fuzzing, as Pillow reads them all at once."""
    content = bytearray(encoded(picture(0), "PNG"))
    at = content.index(b"IDAT") - 4
    content[at : at + 2] = b"\x80\x00"
    return bytes(content)


def encoded(pixels: np.ndarray, form: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format=form)
    return file.getvalue()


BAD = {
    "an empty file": (b"", "empty"),
    "notes": (b"my notes\n" * 99, "not an image"),
    "a login page": (b"<!DOCTYPE html><html>", "not an image"),
    "half a PNG": (encoded(picture(0), "PNG")[:300], "truncated|broken"),
    "half a JPEG": (encoded(picture(0), "JPEG")[:300], "damaged|truncated|broken|Truncated"),
    "a PostScript file": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    "a thousand million pixels": (png(40000, 25000), "more than 40 million"),
    "twenty million pixels": (png(5000, 4000), "more than --max-mb"),
    "pixels that are not there": (png(900, 900), "truncated|broken"),
    "one grey": (encoded(np.full((40, 40), 9, np.uint8), "PNG"), "same value, 9"),
    "three pixels": (encoded(picture(0)[20:23, 15:16], "PNG"), "1 x 3 pixels"),
    "several pages": (stack(), "3 pictures in one file"),
    "a chunk of two gigabytes": (longer_chunk(), None),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_picture(tmp_path, case):
    content, pattern = BAD[case]
    path = tmp_path / "a.png"
    path.write_bytes(content)
    tracemalloc.start()
    if pattern is None:
        assert read_picture(path, 32, 1 << 24)[0].any()
    else:
        with pytest.raises(BadVolume, match=pattern):
            read_picture(path, 32, 1 << 24)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 26


def test_a_huge_file_and_a_pipe_are_not_read(tmp_path):
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BadVolume, match="no picture has so many"):
        read_picture(tmp_path / "huge.png", 32)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(BadVolume, match="not a regular file"):
        read_picture(tmp_path / "pipe.png", 32)


def test_a_table_with_a_plane_that_is_none(folder, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("file,plane\nIMG_000.png,oblique\n")
    with pytest.raises(UserError, match="plane 'oblique' is not one of axial, coronal, sagittal, unknown"):
        find_volumes([folder], table, pictures=True)


def sequences(folder, **options):
    """Three contrasts of one slice, of which the third one is a copy of the second, as the TCGA-LGG pictures have."""
    first, second = picture(1, (60, 60)), 255 - picture(2, (60, 60))
    second[first == 0] = 0
    save(folder / "three.tif", np.stack([first, second, picture(3, (60, 60)) // 2], axis=-1), **options)
    save(folder / "two.tif", np.stack([first, second, second], axis=-1), **options)
    save(folder / "same.png", np.stack([first, second, first], axis=-1))  # a picture of colours, as ever
    return first, second


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}])
def test_channels_of_a_tiff_that_are_sequences_are_pictures_of_their_own(tmp_path, options):
    first, second = sequences(tmp_path / "d" / "anna", **options)
    three, _, _ = read_picture(tmp_path / "d" / "anna" / "three.tif", 60)
    two, _, _ = read_picture(tmp_path / "d" / "anna" / "two.tif", 60)
    assert three.shape == (3, 60, 60)
    np.testing.assert_array_equal(three[0], first)
    np.testing.assert_array_equal(two, [first, second])
    assert read_picture(tmp_path / "d" / "anna" / "same.png", 60)[0].shape == (1, 60, 60)
    out = tmp_path / "store"
    assert main(["slices", str(tmp_path / "d"), "--out", str(out), *OPTIONS]) == 0
    assert len(SliceStore.open(out)) == 6


def test_grey_tinted_and_marked_tiffs_are_one_picture(tmp_path):
    grey = picture(1, (60, 60))
    marked = np.repeat(grey[..., None], 3, axis=-1)
    marked[10:14, 10:40] = (255, 0, 0)
    tinted = np.stack([grey, grey * 0.8, grey * 0.5], axis=-1).astype(np.uint8)
    for name, pixels in (
        ("grey", grey),
        ("rgb", np.repeat(grey[..., None], 3, -1)),
        ("m", marked),
        ("t", tinted),
    ):
        assert len(read_picture(save(tmp_path / f"{name}.tif", pixels), 60)[0]) == 1
