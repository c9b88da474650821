"""Image folders as people have them: damaged files, odd ones, and odd places. Nothing broken is trusted, nothing good
is lost, and everything left out is listed with a reason of one line."""

import io
import json
import os
import resource
import struct
import subprocess
import sys
import tempfile
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from mri_transfer.datasets.audit.measure import measure
from mri_transfer.datasets.image_files import open_image, read_grey
from mri_transfer.datasets.tumors.images import decode, list_images
from mri_transfer.datasets.tumors.tumors import load_tumors
from mri_transfer.datasets.volumes.formats.stored import quiet_libraries
from mri_transfer.errors import UserError


def picture(seed: int = 0, height: int = 120, width: int = 100) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 255, (9, 8), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def encoded(image: np.ndarray | Image.Image, kind: str, **options) -> bytes:
    content = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(content, kind, **options)
    return content.getvalue()


JPEG = encoded(picture(), "JPEG", quality=90)
PNG = encoded(picture(), "PNG")


@pytest.fixture
def folder(tmp_path):
    """Two classes with two good images each."""
    for number, name in enumerate(("healthy", "tumour")):
        (tmp_path / name).mkdir()
        for copy in range(2):
            Image.fromarray(picture(10 + 2 * number + copy)).save(tmp_path / name / f"good ({copy}).png")
    return tmp_path


def outcome(folder: Path, bad: Path) -> str:
    """The reason why `bad` was left out; all four good images must have been read, by both passes."""
    files, _ = list_images(folder)
    decoded = decode(folder, files, 32)
    name = bad.relative_to(folder).as_posix()
    assert [entry["file"] for entry in decoded.skipped] == [name]
    reason = decoded.skipped[0]["reason"]
    assert reason
    assert "\n" not in reason
    assert " at 0x" not in reason  # no object's address, as of a stream in memory
    assert len(decoded.rows) == 4
    readable = measure(folder, files).readable
    assert [file.path for file, good in zip(files, readable, strict=True) if not good] == [name]
    return reason


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_claiming(width: int, height: int) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


BAD = {
    "empty": (b"", "jpg", "empty file"),
    "of zeros": (bytes(5000), "jpg", "empty file"),
    "a text file": (b"404 not found\n" * 40, "jpg", "not an image"),
    "a web page": (b"<!DOCTYPE html><html><body>Log in</body></html>", "png", "not an image"),
    "a PDF": (b"%PDF-1.4\n" + bytes(2000), "jpg", "not an image"),
    "PostScript, which Pillow would run": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\nshowpage\n",
        "jpg",
        "not an image",
    ),
    "JPEG cut within its magic": (JPEG[:3], "jpg", "damaged JPEG"),
    "JPEG cut within its header": (JPEG[:100], "jpg", "runcated"),
    "JPEG cut before its pixels": (JPEG[: JPEG.index(b"\xff\xda")], "jpg", ""),
    "JPEG cut at a quarter": (JPEG[: len(JPEG) // 4], "jpg", ""),
    "JPEG cut at half": (JPEG[: len(JPEG) // 2], "jpg", "truncated"),
    "JPEG cut near its end": (JPEG[:-200], "jpg", "truncated"),
    "PNG cut within its header": (PNG[:20], "png", ""),
    "PNG cut within its pixels": (PNG[: len(PNG) // 2], "png", ""),
    "PNG with a damaged byte": (PNG[:60] + bytes([PNG[60] ^ 255]) + PNG[61:], "png", ""),
    "PNG of 4 thousand million pixels": (png_claiming(1 << 16, 1 << 16), "png", "pixels"),
    "PNG of 2^62 pixels": (png_claiming((1 << 31) - 1, (1 << 31) - 1), "png", "pixels"),
    "PNG of 100 million pixels": (png_claiming(10_000, 10_000), "png", "10000x10000 pixels"),
    "PNG of no pixels": (png_claiming(0, 0), "png", ""),
    "PNG whose pixels are missing": (png_claiming(500, 500), "png", ""),
    "PNG with a text that unpacks to 100 MB": (
        PNG[:33] + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100_000_000), 9)) + PNG[33:],
        "png",
        "",
    ),
    "GIF cut off": (encoded(picture(), "GIF")[:400], "gif", ""),
    "TIFF cut off": (encoded(picture(), "TIFF")[:300], "tif", ""),
    "BMP cut off": (encoded(picture(), "BMP")[:900], "bmp", ""),
    "WEBP cut off": (encoded(picture(), "WEBP")[:300], "webp", ""),
}


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_file_is_listed_and_the_rest_is_read(folder, name):
    content, suffix, words = BAD[name]
    bad = folder / "tumour" / f"bad.{suffix}"
    bad.write_bytes(content)
    assert words in outcome(folder, bad)


def test_a_bomb_takes_no_memory(folder):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number, name in enumerate(name for name in BAD if "million" in name or "2^62" in name):
        (folder / "tumour" / f"bomb{number}.png").write_bytes(BAD[name][0])
    files, _ = list_images(folder)
    assert len(decode(folder, files, 32).skipped) == 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


PEAK = """
import sys
from pathlib import Path
from mri_transfer.datasets.image_files import open_image, read_grey

def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])

before = peak()
read_grey(Path(sys.argv[1]))
print((peak() - before) * 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux how much memory was taken")
@pytest.mark.parametrize("mode", ["I;16", "RGBA"])
def test_a_large_picture_takes_a_few_bytes_a_pixel(tmp_path, mode):
    Image.new(mode, (4000, 4000)).save(tmp_path / "large.png")
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path / "large.png")], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 10 * 4000**2


def test_large_pictures_are_read_one_at_a_time(folder):
    content = encoded(Image.new("L", (2500, 2000)), "PNG")
    reader = threading.Thread(target=lambda: read_in(content))

    def read_in(content):
        with open_image(io.BytesIO(content)):
            pass

    with open_image(io.BytesIO(content)):
        reader.start()
        read_in(PNG)  # a small one needn't wait
        reader.join(0.2)
        assert reader.is_alive()
    reader.join(10)
    assert not reader.is_alive()


def test_a_picture_read_by_bands_is_the_picture(tmp_path):
    rng = np.random.default_rng(0)
    deep = rng.integers(500, 40_000, (1700, 1300), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    low, high = deep.min(), deep.max()
    np.testing.assert_array_equal(
        read_grey(tmp_path / "deep.png"), np.round((deep - float(low)) * (255 / (high - float(low))))
    )
    clear = Image.fromarray(rng.integers(0, 256, (1700, 1300, 4), dtype=np.uint8))
    clear.save(tmp_path / "clear.png")
    on_black = Image.alpha_composite(Image.new("RGBA", clear.size, (0, 0, 0, 255)), clear).convert("L")
    np.testing.assert_array_equal(read_grey(tmp_path / "clear.png"), np.asarray(on_black))


def test_a_huge_file_is_refused_before_it_is_read(folder):
    bad = folder / "tumour" / "bad.jpg"
    with bad.open("wb") as file:
        file.write(JPEG)
        file.truncate(1 << 40)  # sparse: takes no space
    assert "no picture has so many" in outcome(folder, bad)


@settings(max_examples=60)
@given(st.integers(0, 1), st.data())
def test_a_file_with_a_changed_stretch_is_read_or_refused_and_nothing_else(which, data):
    content = bytearray((JPEG, PNG)[which])
    start = data.draw(st.integers(0, len(content) - 1))
    content[start : start + 8] = data.draw(st.binary(min_size=1, max_size=8))
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "x.png")
        path.write_bytes(content)
        (Path(place) / "a").mkdir()
        path.rename(path.with_name("a") / "x.png")
        Path(place, "b").mkdir()
        Path(place, "b", "y.png").write_bytes(PNG)
        files, _ = list_images(Path(place))
        decoded = decode(Path(place), files, 16)
        assert len(decoded.rows) + len(decoded.skipped) == 2
        assert measure(Path(place), files).readable.sum() == len(decoded.rows)


@pytest.mark.parametrize("cut", range(8))
def test_a_jpeg_is_whole_or_refused_wherever_it_was_cut(folder, cut):
    bad = folder / "tumour" / "bad.jpg"
    bad.write_bytes(JPEG[: 2 + (len(JPEG) - 60) * cut // 8])
    assert outcome(folder, bad)


def saved(path: Path, image: Image.Image, **options) -> np.ndarray:
    image.save(path, **options)
    return read_grey(path)


def test_cmyk_jpeg(tmp_path):
    colour = Image.fromarray(np.dstack([picture(1), picture(2), picture(3)]))
    pixels = saved(tmp_path / "a.jpg", colour.convert("CMYK"), quality=95)
    assert np.abs(pixels.astype(int) - np.asarray(colour.convert("L"))).mean() < 4


def test_palette_with_transparency(tmp_path):
    indexed = Image.fromarray(picture() // 64, "P")
    indexed.putpalette([0, 0, 0, 80, 80, 80, 160, 160, 160, 240, 240, 240])
    pixels = saved(tmp_path / "a.png", indexed, transparency=3)
    assert np.array_equal(pixels, np.array([0, 80, 160, 0])[picture() // 64])
    pixels = saved(tmp_path / "b.png", indexed, transparency=bytes([255, 255, 0, 255]))
    assert np.array_equal(pixels, np.array([0, 80, 0, 240])[picture() // 64])


def test_an_animation_counts_as_its_first_picture(tmp_path):
    frames = [Image.fromarray(picture(seed)) for seed in range(3)]
    for name in ("a.gif", "a.png", "a.webp", "a.tif"):
        options = {"lossless": True} if name == "a.webp" else {}
        pixels = saved(tmp_path / name, frames[0], save_all=True, append_images=frames[1:], **options)
        assert np.abs(pixels.astype(int) - picture(0)).max() <= 2, name


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_jpeg_is_read_as_a_viewer_shows_it(tmp_path, orientation):
    undo = [lambda x: x, np.fliplr, lambda x: np.rot90(x, 2), np.flipud]
    undo += [np.transpose, lambda x: np.rot90(x, 1), lambda x: np.rot90(x, 2).T, lambda x: np.rot90(x, -1)]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation - 1](picture())))
    pixels = saved(tmp_path / "a.jpg", stored, exif=exif, quality=95)
    assert pixels.shape == picture().shape
    assert np.abs(pixels.astype(int) - picture()).max() < 12


@settings(max_examples=40)
@given(st.binary(max_size=80))
def test_broken_exif_costs_no_picture(noise):
    exif = b"Exif\0\0" + b"II*\0\x08\0\0\0\x02\0" + noise
    for content in (encoded(picture(), "JPEG", exif=exif), encoded(picture(), "PNG", exif=exif)):
        with tempfile.TemporaryDirectory() as place:
            path = Path(place, "x")
            path.write_bytes(content)
            with quiet_libraries():
                pixels = read_grey(path)
            assert sorted(pixels.shape) == sorted(picture().shape)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (2, 2)])
@pytest.mark.parametrize("value", [0, 255])
def test_tiny_and_flat_pictures_are_read_and_measured(folder, shape, value):
    for name in ("healthy", "tumour"):
        Image.fromarray(np.full(shape, value, np.uint8)).save(folder / name / "flat.png")
    files, _ = list_images(folder)
    measurements = measure(folder, files)
    assert measurements.readable.all()
    flat = [row for row, file in enumerate(files) if file.path.endswith("flat.png")]
    assert measurements.mean[flat].tolist() == [value, value]
    assert all(
        np.isfinite(getattr(measurements, name)).all()
        for name in ("border", "sharpness", "entropy", "offset_x")
    )
    assert load_tumors(folder, 32).audit["distinct"] == 5  # the two of one value are copies


def test_sixteen_bits_and_floats_are_stretched(tmp_path):
    deep = saved(tmp_path / "a.png", Image.fromarray(picture().astype(np.uint16) * 257))
    real = saved(tmp_path / "a.tif", Image.fromarray(picture().astype(np.float32) / 1000))
    assert np.array_equal(deep, real)
    assert (deep.min(), deep.max()) == (0, 255)
    odd = picture().astype(np.float32)
    odd[0, 0], odd[0, 1] = np.nan, np.inf
    assert np.isfinite(saved(tmp_path / "b.tif", Image.fromarray(odd))).all()


NAMES = [
    "脑部 扫描 (3).png",
    "опухоль 12.PNG",
    "صورة.png",
    "brain 🧠 7.png",
    " leading and trailing .png",
    "new\nline 4.png",
    "tab\t5.png",
    "quote\"s' & <b>.png",
    "-rf 6.png",
    "..png.png",
    "e\u0301 decomposed.png",
]


def test_names_in_any_script_and_with_any_character(folder):
    for name in NAMES:
        (folder / "tumour" / name).write_bytes(PNG)
    files, _ = list_images(folder)
    decoded = decode(folder, files, 32, cache=folder.parent / "cache")
    assert decoded.skipped == []
    assert {Path(file.path).name for file in files} >= {name for name in NAMES if not name.startswith(".")}
    numbers = {Path(file.path).name: file.number for file in files}
    assert numbers["脑部 扫描 (3).png"] == 3
    assert numbers["new\nline 4.png"] == 4


def test_a_name_that_is_no_text_is_read_and_written(folder, tmp_path_factory, cli):
    raw = os.fsencode(folder / "tumour") + b"/caf\xe9 3.png"
    try:
        with open(raw, "wb") as file:  # noqa: PTH123
            file.write(PNG)
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    out = tmp_path_factory.mktemp("out") / "audit"
    done = cli("audit", folder, "--out", out, "--json", out.with_suffix(".json"))
    assert done.returncode == 0, done.stderr
    assert "5 files" in done.stdout
    summary = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert summary["readable"] == 5
    listed = (out / "groups.csv").read_text(encoding="utf-8", errors="surrogateescape")
    assert os.fsdecode(b"tumour/caf\xe9 3.png") in listed


def test_nested_folders_are_part_of_their_class(folder):
    for patient in ("p1", "p2"):
        (folder / "tumour" / "batch" / patient).mkdir(parents=True)
        for number in (10, 9):
            Image.fromarray(picture(hash_of(patient) + number)).save(
                folder / "tumour" / "batch" / patient / f"{number}.png"
            )
    (folder / "tumour" / ".thumbnails").mkdir()
    (folder / "tumour" / ".thumbnails" / "x.png").write_bytes(PNG)
    files, classes = list_images(folder)
    assert classes == ("healthy", "tumour")
    nested = [file for file in files if "batch" in file.path]
    assert [file.path for file in nested] == [
        f"tumour/batch/{patient}/{number}.png" for patient in ("p1", "p2") for number in (9, 10)
    ]
    assert {file.prefix for file in nested} == {"batch/p1/", "batch/p2/"}
    assert not any(".thumbnails" in file.path for file in files)
    assert len(decode(folder, files, 32).rows) == 8


def hash_of(text: str) -> int:
    return zlib.crc32(text.encode()) % 1000


def test_links_are_followed_to_files_and_never_in_circles(folder):
    (folder / "tumour" / "itself.png").symlink_to("itself.png")
    (folder / "tumour" / "back").symlink_to("..")
    (folder / "tumour" / "linked.png").symlink_to(folder / "healthy" / "good (0).png")
    files, _ = list_images(folder)
    assert {file.path for file in files if file.path.startswith("tumour")} == {
        f"tumour/{name}.png" for name in ("good (0)", "good (1)", "itself", "linked")
    }
    decoded = decode(folder, files, 32, cache=folder.parent / "cache")
    assert [(entry["file"], entry["reason"]) for entry in decoded.skipped] == [
        ("tumour/itself.png", "a broken link")
    ]
    assert measure(folder, files).readable.sum() == 5
    (folder / "loop").symlink_to("loop")
    with pytest.raises(UserError, match="no such folder"):
        list_images(folder / "loop")


@pytest.mark.parametrize("kind", ["broken link", "pipe", "folder of that name", "link to a pipe"])
def test_things_that_are_no_files(folder, kind):
    bad = folder / "tumour" / "bad.png"
    if kind == "broken link":
        bad.symlink_to("nowhere.png")
    elif kind == "pipe":
        os.mkfifo(bad)
    elif kind == "link to a pipe":
        os.mkfifo(folder / "pipe")
        bad.symlink_to("../pipe")
    else:
        bad.mkdir()
        (bad / "inside.png").write_bytes(PNG)
        files, _ = list_images(folder)
        assert "tumour/bad.png/inside.png" in [file.path for file in files]
        return
    assert outcome(folder, bad) in ("a broken link", "not a regular file")


def test_a_class_folder_that_is_a_file(tmp_path, folder):
    (folder / "Training").mkdir()
    for name in ("healthy", "tumour"):
        (folder / name).rename(folder / "Training" / name)
    (folder / "Testing" / "healthy").mkdir(parents=True)
    (folder / "Testing" / "healthy" / "1.png").write_bytes(PNG)
    (folder / "Testing" / "tumour").write_bytes(PNG)
    with pytest.raises(UserError, match=r"Testing/tumour: a file, not a folder"):
        list_images(folder)
    with pytest.raises(UserError, match="no such folder"):
        list_images(folder / "Testing" / "tumour")


AS_NOBODY = """
import os, sys
from pathlib import Path
from mri_transfer.datasets.volumes.formats.stored import quiet_libraries
from mri_transfer.datasets.tumors.images import decode, list_images
from mri_transfer.errors import UserError
from PIL import Image
Image.init()  # its readers are imported when first needed, which another user may not be allowed to do
folder = Path(sys.argv[1])
(folder / "tumour" / "locked.png").chmod(0)
if os.geteuid() == 0:  # permissions do not bind root
    os.setegid(65534)
    os.seteuid(65534)
files, _ = list_images(folder)
print(decode(folder, files, 32).skipped)
if os.getuid() == 0:
    os.seteuid(0)
(folder / "tumour").chmod(0)
if os.getuid() == 0:
    os.seteuid(65534)
try:
    list_images(folder)
except UserError as error:
    print(error)
"""


def test_a_file_and_a_folder_without_permission_to_read():
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are closed to others
        Path(place).chmod(0o755)
        for name in ("healthy", "tumour"):
            Path(place, name).mkdir()
            Path(place, name, "1.png").write_bytes(PNG)
        Path(place, "tumour", "locked.png").write_bytes(PNG)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, place], capture_output=True, text=True, timeout=300
        )
        Path(place, "tumour").chmod(0o755)
    assert done.returncode == 0, done.stderr
    skipped, refused = done.stdout.strip().splitlines()
    assert skipped == "[{'file': 'tumour/locked.png', 'reason': 'Permission denied'}]"
    assert "tumour: can't be listed (Permission denied)" in refused


def test_comments_and_profiles_do_not_matter(tmp_path):
    notes = PngImagePlugin.PngInfo()
    notes.add_text("comment", "x" * 5000, zip=True)
    assert np.array_equal(saved(tmp_path / "a.png", Image.fromarray(picture()), pnginfo=notes), picture())
    assert np.array_equal(
        saved(tmp_path / "b.png", Image.fromarray(picture()), icc_profile=b"not a profile"), picture()
    )
