"""Every way a file can be broken, for every format: a reason in few words, soon, and no room for what is not there."""

from __future__ import annotations

import gzip
import os
import re
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mri_transfer.datasets.volumes import BadVolume, read_volume

LIMIT = 1 << 22  # bytes of voxels; the good files have 10 KB
MOST_MEMORY = 100 << 20  # the limit, the margin behind it, and what libraries take
FORMATS = (
    *("nifti1", "nifti1-gz", "nifti2", "nifti1-pair", "nifti1-pair-gz", "mgh", "mgz", "minc1", "minc1-gz"),
    *("minc2", "nrrd", "nrrd-raw", "nhdr", "dicom", "dicom-enhanced"),
)


@pytest.fixture
def scan(formats, head):
    return formats.Scan(head((16, 18, 17)).astype(np.int16), (1.0, 1.5, 2.0), "LPS")


@pytest.fixture
def few(formats, head):
    """Few slices, where each is a file."""
    return formats.Scan(head((16, 18, 17))[:, :, 5:10].astype(np.int16), (1.0, 1.5, 2.0), "LPS")


def read(files: list[Path], limit: int = LIMIT):
    """The volume or the reason; fails if it takes long or much memory."""
    began = time.monotonic()
    tracemalloc.start()
    try:
        return read_volume(files, limit)
    except BadVolume as error:
        reason = str(error)
        assert 0 < len(reason) < 200
        assert "\n" not in reason
        assert "more memory than there is" not in reason
        return reason
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MOST_MEMORY
        assert time.monotonic() - began < 30


def cut_to(share: float):
    return lambda content: content[: int(len(content) * share)]


def with_bytes(offset: int, new: bytes):
    return lambda content: content[:offset] + new + content[offset + len(new) :]


# What happens to the file that holds the header. The pattern says which reasons are acceptable; None: also a volume.
ANY_FORMAT = {
    "an empty file": (lambda content: b"", "empty|truncated"),
    "its first byte": (lambda content: content[:1], "truncated|not a |damaged"),
    "its first ninety bytes": (lambda content: content[:90], "."),
    "a tenth of it": (cut_to(0.1), "."),
    "half of it": (cut_to(0.5), None),  # the header of a pair is whole by then, and has but its end missing
    "nine tenths of it": (cut_to(0.9), None),
    "all but its last byte": (lambda content: content[:-1], None),
    "zeros": (lambda content: bytes(len(content)), "not a "),
    "its length in noise": (lambda content: np.random.default_rng(1).bytes(len(content)), "not a "),
    "notes": (lambda content: b"these are my notes\n" * 200, "not a "),
    "a login page": (
        lambda content: b"<!DOCTYPE html><html><body>Please log in</body></html>\n" * 40,
        "not a ",
    ),
    "another magic": (
        lambda content: b"\0" * 8 + content[8:132] + b"NONE" + content[136:344] + b"nope" + content[348:],
        None,
    ),
    "a gzip of nothing": (lambda content: gzip.compress(b""), "truncated|not a "),
    "a gzip in a gzip": (lambda content: gzip.compress(gzip.compress(content)), "not a "),
    "itself twice": (lambda content: content + content, None),
    "noise behind its middle": (
        lambda content: content[: len(content) // 2] + np.random.default_rng(2).bytes(len(content) // 2),
        None,
    ),
}


@pytest.mark.parametrize("case", ANY_FORMAT)
@pytest.mark.parametrize("name", FORMATS)
def test_a_file_replaced_by(formats, scan, tmp_path, name, case):
    files = formats.WRITERS[name](scan, tmp_path)
    change, pattern = ANY_FORMAT[case]
    files[0].write_bytes(change(files[0].read_bytes()))
    found = read(files)
    if isinstance(found, str):
        assert re.search(pattern or ".", found), found
    else:
        assert pattern is None
        assert found.voxels.shape == (16, 18, 17)
        if case in ("itself twice", "all but its last byte") and name in ("nifti1", "mgh", "nrrd-raw"):
            np.testing.assert_array_equal(found.voxels, scan_of(scan))


def scan_of(scan):
    import nibabel as nib

    return np.asanyarray(nib.as_closest_canonical(nib.Nifti1Image(scan.voxels, scan.affine)).dataobj)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.999])
@pytest.mark.parametrize("name", ["nifti1-pair", "nifti1-pair-gz", "nhdr"])
def test_the_image_of_a_pair_cut_off(formats, scan, tmp_path, name, share):
    files = formats.WRITERS[name](scan, tmp_path)
    files[1].write_bytes(files[1].read_bytes()[: int(files[1].stat().st_size * share)])
    assert re.search("truncated|damaged", read(files))


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
@pytest.mark.parametrize(
    "name", sorted({"nifti1", "nifti1-gz", "mgh", "mgz", "minc1", "minc1-gz", "minc2", "nrrd"})
)
def test_voxels_cut_off_are_never_made_up(formats, scan, tmp_path, name, share):
    (file,) = formats.WRITERS[name](scan, tmp_path)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    assert re.search("truncated|damaged", read([file]))


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_is_gone_a_folder_and_a_huge_file(formats, scan, tmp_path, name):
    files = formats.WRITERS[name](scan, tmp_path)
    with files[0].open("r+b") as file:
        file.truncate(1 << 40)  # a sparse terabyte: nothing may read it
    assert "1.1 TB, more than --max-mb allows" in read(files)
    files[0].unlink()
    assert read(files) == "no such file or directory"
    files[0].mkdir()
    assert read(files) == "is a directory"


def bomb(content: bytes, megabytes: int = 110) -> bytes:
    """Gzip of `content` and of so many megabytes of zeros behind it, in some hundred kilobytes."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    zeros = bytes(1 << 20)
    packed = [packer.compress(content), *(packer.compress(zeros) for _ in range(megabytes)), packer.flush()]
    return b"".join(packed)


@pytest.mark.parametrize("name", ["nifti1-gz", "nifti1-pair-gz", "mgz", "minc1-gz", "nrrd", "nhdr"])
def test_a_gzip_bomb(formats, scan, tmp_path, name):
    files = formats.WRITERS[name](scan, tmp_path)
    content = files[-1].read_bytes()
    start = content.index(b"\x1f\x8b")  # in an .nrrd it is behind the header
    files[-1].write_bytes(content[:start] + bomb(gzip.decompress(content[start:])))
    assert "decompresses to" in read(files)


def dims(form: str, offset: int):
    """Changes the lengths of the three axes at an offset."""
    return lambda *lengths: with_bytes(offset, struct.pack(form, *lengths))


mgh_dims, mgh_floats = (
    dims(">4i", 4),
    lambda at, *values: with_bytes(at, struct.pack(f">{len(values)}f", *values)),
)
nifti2_dims = dims("<4q", 16)
PATCHED = {
    # MGH: version, four lengths, type, degrees of freedom, goodRAS; from byte 30 zooms, directions, centre
    "mgh: terabytes": ("mgh", mgh_dims(2**31 - 1, 2**31 - 1, 64, 1), "promises"),
    "mgh: more voxels than there are": ("mgh", mgh_dims(100, 100, 100, 1), "truncated"),
    "mgh: an empty axis": ("mgh", mgh_dims(16, 0, 17, 1), "length 0"),
    "mgh: a negative axis": ("mgh", mgh_dims(16, -18, 17, 1), "length -18"),
    "mgh: a series": ("mgh", mgh_dims(16, 18, 1, 17), "4-D series"),
    "mgh: an unknown type": ("mgh", with_bytes(20, struct.pack(">i", 9)), "unknown type"),
    "mgh: another version": ("mgh", with_bytes(0, struct.pack(">i", 7)), "not a "),
    "mgh: a zoom of zero": ("mgh", mgh_floats(30, 0.0), "singular"),
    "mgh: a zoom that is no number": ("mgh", mgh_floats(34, float("nan")), "not finite"),
    "mgh: a zoom in other units": ("mgh", mgh_floats(30, 1e6), "voxel size"),
    "mgh: directions of no length": ("mgh", mgh_floats(42, *[0.0] * 9), "singular"),
    "mgh: an infinite centre": ("mgh", mgh_floats(78, float("inf")), "not finite"),
    "mgh: orientation not stated": ("mgh", with_bytes(28, b"\0\0"), None),
    "nifti2: terabytes": ("nifti2", nifti2_dims(3, 10**6, 10**6, 10**3), "promises"),
    "nifti2: beyond 64 bits": ("nifti2", nifti2_dims(3, 2**62, 2**62, 2**62), "promises"),
    "nifti2: an empty axis": ("nifti2", nifti2_dims(3, 16, 0, 17), "length 0"),
    "nifti2: seven axes": (
        "nifti2",
        with_bytes(16, struct.pack("<8q", 7, 2, 2, 2, 2, 2, 2, 2)),
        "7-D series",
    ),
    "nifti2: a negative offset": ("nifti2", with_bytes(168, struct.pack("<q", -9)), "."),
    "nifti2: an offset behind the end": ("nifti2", with_bytes(168, struct.pack("<q", 2**60)), "truncated"),
    "nifti2: complex voxels": ("nifti2", with_bytes(12, struct.pack("<2h", 1792, 128)), "complex128"),
    "nifti2: a quaternion that is none": (
        "nifti2",
        lambda content: with_bytes(344, struct.pack("<2i3d", 1, 0, 3.0, 4.0, 5.0))(content),
        ".",
    ),
    # netCDF: magic, number of records; dimensions as name and length
    "minc1: terabytes": (
        "minc1",
        lambda content: _minc1_length(content, 2**31 - 1),
        "truncated|promises|damaged",
    ),
    "minc1: an empty axis": ("minc1", lambda content: _minc1_length(content, 0), "."),
    "minc1: more records than there are": ("minc1", with_bytes(4, b"\x7f\xff\xff\xff"), None),
    "minc1: an endless list of dimensions": (
        "minc1",
        with_bytes(12, b"\x7f\xff\xff\xff"),
        "damaged|truncated",
    ),
}


def _minc1_length(content: bytes, length: int) -> bytes:
    at = content.index(b"zspace\0\0") + 8
    return content[:at] + struct.pack(">I", length) + content[at + 4 :]


@pytest.mark.parametrize("case", PATCHED)
def test_a_header_with(formats, scan, tmp_path, case):
    name, change, pattern = PATCHED[case]
    (file,) = formats.WRITERS[name](scan, tmp_path)
    file.write_bytes(change(file.read_bytes()))
    found = read([file])
    if pattern is None:
        assert not isinstance(found, str), found
    else:
        assert isinstance(found, str)
        assert re.search(pattern, found), found


NRRD = {
    "terabytes": ({"sizes": "100000 100000 1000"}, "promises 20 TB"),
    "beyond 64 bits": ({"sizes": "9999999999 9999999999 9999999999"}, "promises|not understood"),
    "a number no integer holds": ({"sizes": "99999999999999999999999 1 1"}, "not understood|length -"),
    "an empty axis": ({"sizes": "16 0 17"}, "length 0"),
    "a negative axis": ({"sizes": "16 -18 17"}, "length -18"),
    "two axes": (
        {"dimension": "2", "sizes": "16 306", "space directions": "(1,0,0) (0,1,0)", "kinds": ""},
        "2-D",
    ),
    "fewer sizes than dimensions": ({"sizes": "16 18"}, "2 sizes for 3 dimensions"),
    "a list of values in each voxel": (
        {
            "dimension": "4",
            "sizes": "2 16 18 17",
            "space directions": "none (1,0,0) (0,1,0) (0,0,1)",
            "kinds": "list domain domain domain",
        },
        "4-D series",
    ),
    "colour": (
        {
            "dimension": "4",
            "sizes": "3 16 18 17",
            "space directions": "none (1,0,0) (0,1,0) (0,0,1)",
            "kinds": "RGB-color domain domain domain",
        },
        "colour",
    ),
    "blocks of bytes": ({"type": "block"}, "block voxels"),
    "an unknown type": ({"type": "quaternion"}, "quaternion voxels"),
    "no byte order": ({"endian": None}, "byte order"),
    "no type": ({"type": None}, "lacks type"),
    "no encoding": ({"encoding": None}, "lacks encoding"),
    "hexadecimal": ({"encoding": "hex"}, "hex encoding"),
    "directions of no length": ({"space directions": "(0,0,0) (0,1,0) (0,0,1)"}, "singular"),
    "directions in one line": ({"space directions": "(1,0,0) (2,0,0) (0,0,1)"}, "singular"),
    "directions that are no numbers": ({"space directions": "(nan,0,0) (0,1,0) (0,0,1)"}, "."),
    "an origin of two numbers": ({"space origin": "(1,2)"}, "origin"),
    "a negative skip": ({"byte skip": "-7"}, "negative"),
    "a skip behind the end": ({"byte skip": "99999999"}, "truncated"),
    "no space": (
        {"space": None, "space directions": None, "space origin": None, "spacings": "1 1.5 2"},
        None,
    ),
    "a newer version": ({"NRRD0005": "NRRD0009"}, "not understood"),
}


@pytest.mark.parametrize("case", NRRD)
def test_an_nrrd_header_with(formats, scan, tmp_path, case):
    fields, pattern = NRRD[case]
    (file,) = formats.nrrd(scan, tmp_path / "a.nrrd", encoding="raw")
    header, data = file.read_bytes().split(b"\n\n", 1)
    lines = [line for line in header.decode().splitlines() if line.split(":")[0] not in fields]
    lines += [
        f"{key}: {value}"
        for key, value in fields.items()
        if value is not None and not key.startswith("NRRD0")
    ]
    if "NRRD0005" in fields:
        lines[0] = fields["NRRD0005"]
    file.write_bytes("\n".join(lines).encode() + b"\n\n" + data)
    found = read([file])
    if pattern is None:
        assert found.voxels.shape == (16, 18, 17)
        assert found.zooms == pytest.approx((1.0, 1.5, 2.0))
        assert any("left-posterior-superior" in note for note in found.notes)
    else:
        assert isinstance(found, str)
        assert re.search(pattern, found), found


@pytest.mark.parametrize(
    "named",
    [
        "/etc/hostname",
        "../secret.raw",
        "a/../../secret.raw",
        "C:\\secret.raw",
        "gone.raw",
        "LIST",
        "s%02d.raw 1 9 1",
    ],
)
def test_a_detached_header_that_leads_elsewhere(formats, scan, tmp_path, named):
    from mri_transfer.datasets.find import find_volumes
    from mri_transfer.errors import UserError

    (tmp_path / "d" / "a").mkdir(parents=True)
    (tmp_path / "secret.raw").write_bytes(bytes(20000))
    header, data = formats.nrrd(scan, tmp_path / "d" / "x.nhdr", encoding="raw")
    header.write_bytes(header.read_bytes().replace(data.name.encode(), named.encode()))
    with pytest.raises(UserError, match=r"out of its folder|is missing|several files"):
        find_volumes([tmp_path / "d"])


@pytest.fixture
def minc(formats, scan, tmp_path):
    """A MINC2 file, opened to be changed: minc(change) -> its path."""
    import h5py

    def make(change, **storage):
        (file,) = formats.minc2(scan, tmp_path / "a.mnc", **storage)
        with h5py.File(file, "r+") as opened:
            change(opened)
        return file

    return make


IMAGE = "minc-2.0/image/0/image"


def _replace(file, name, **storage):
    old = dict(file[name].attrs)
    del file[name]
    new = file.create_dataset(name, **storage)
    new.attrs.update(old)
    return new


def _soft(file):
    import h5py

    file.move(IMAGE, "elsewhere")
    file[IMAGE] = h5py.SoftLink("/elsewhere")


def _external(file):
    import h5py

    del file[IMAGE]
    file[IMAGE] = h5py.ExternalLink("/tmp/other.mnc", "/image")


def _virtual(file):
    import h5py

    layout = h5py.VirtualLayout((17, 18, 16), "i2")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "x", (17, 18, 16))
    attrs = dict(file[IMAGE].attrs)
    del file[IMAGE]
    file.create_virtual_dataset(IMAGE, layout).attrs.update(attrs)


def _raw_outside(file):
    attrs = dict(file[IMAGE].attrs)
    del file[IMAGE]
    external = [("/etc/hostname", 0, 17 * 18 * 16 * 2)]
    file.create_dataset(IMAGE, (17, 18, 16), "i2", external=external).attrs.update(attrs)


def _chunk_bomb(file):
    image = _replace(file, IMAGE, shape=(17, 18, 16), dtype="i2", chunks=(17, 18, 16), compression="gzip")
    image[:] = 1
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(1 << 22)) for _ in range(40)) + packer.flush()
    image.id.write_direct_chunk((0, 0, 0), packed)


def _attribute(name, key, value):
    def change(file):
        file[name].attrs[key] = value

    return change


DIM = "minc-2.0/dimensions/xspace"
MINC2 = {
    "terabytes": (
        lambda f: _replace(f, IMAGE, shape=(10**5, 10**5, 10**3), dtype="i2", chunks=(1, 100, 100)),
        "promises",
    ),
    "an image never written": (
        lambda f: _replace(f, IMAGE, shape=(17, 18, 16), dtype="i2", chunks=True),
        "truncated",
    ),
    "an image without room": (lambda f: _replace(f, IMAGE, shape=(17, 18, 16), dtype="i2"), "truncated"),
    "an empty axis": (lambda f: _replace(f, IMAGE, shape=(17, 0, 16), dtype="i2"), "length 0"),
    "a chunk that is a bomb": (_chunk_bomb, "more than its header says"),
    "chunks far larger than the image": (
        lambda f: _replace(
            f, IMAGE, shape=(17, 18, 16), maxshape=(None,) * 3, dtype="i2", chunks=(4096, 128, 128)
        ),
        "far larger",
    ),
    "a million chunks": (
        lambda f: _replace(f, IMAGE, shape=(128, 128, 128), dtype="i2", chunks=(1, 1, 2)),
        "too many pieces",
    ),
    "a compression that is not MINC's": (
        lambda f: _replace(f, IMAGE, data=np.ones((17, 18, 16), "i2"), chunks=True, compression="lzf"),
        "not MINC's",
    ),
    "a soft link": (_soft, "is a link"),
    "a link to another file": (_external, "is a link"),
    "voxels in another file": (_raw_outside, "another file"),
    "a virtual image": (_virtual, "another file"),
    "complex voxels": (
        lambda f: _replace(f, IMAGE, data=np.ones((17, 18, 16), "c8")),
        "not real intensities",
    ),
    "text for voxels": (
        lambda f: _replace(f, IMAGE, data=np.full((17, 18, 16), b"abc")),
        "not real intensities",
    ),
    "no image": (lambda f: f.pop(IMAGE), "it has no"),
    "no ranges": (lambda f: f.pop("minc-2.0/image/0/image-max"), "it has no"),
    "a group for an image": (lambda f: (f.pop(IMAGE), f.create_group(IMAGE)), "MINC"),
    "a series": (
        lambda f: (
            _replace(f, IMAGE, data=np.ones((2, 17, 18, 16), "i2")),
            _attribute(IMAGE, "dimorder", np.bytes_("time,zspace,yspace,xspace"))(f),
        ),
        "MINC|4-D series",
    ),
    "irregular spacing": (_attribute(DIM, "spacing", np.bytes_("irregular")), "MINC|rregular"),
    "a step of zero": (_attribute(DIM, "step", 0.0), "singular"),
    "a step that is no number": (_attribute(DIM, "step", float("nan")), "not finite"),
    "directions in one line": (_attribute(DIM, "direction_cosines", [0.0, 1.0, 0.0]), "singular"),
    "a valid range upside down": (_attribute(IMAGE, "valid_range", [5.0, -5.0]), "valid range"),
    "a valid range of other numbers": (_attribute(IMAGE, "valid_range", [0.0, 1e9]), "valid range"),
    "ranges that are no numbers": (
        lambda f: f["minc-2.0/image/0/image-max"].write_direct(np.full(17, np.nan)),
        "not finite",
    ),
    "axes of no name": (_attribute(IMAGE, "dimorder", np.bytes_("a,b,c")), "MINC|0-D"),
}


@pytest.mark.parametrize("case", MINC2)
def test_a_minc2_file_with(minc, case):
    change, pattern = MINC2[case]
    found = read([minc(change)])
    assert isinstance(found, str)
    assert re.search(pattern, found), found


@pytest.mark.parametrize(
    "storage",
    [
        {"chunks": (4, 5, 16), "compression": "gzip", "shuffle": True, "fletcher32": True},
        {"chunks": (17, 18, 16), "compression": "gzip", "fletcher32": True},
        {"chunks": (5, 7, 3), "shuffle": True},
        {"chunks": None},
    ],
    ids=str,
)
def test_every_storage_of_hdf5_that_minc_may_have_reads_the_same(minc, scan, storage):
    found = read([minc(lambda file: None, **storage)])
    np.testing.assert_allclose(found.voxels, scan_of(scan), atol=1e-2)


DICOM = {
    "rows and columns of billions": ({"Rows": 65535, "Columns": 65535, "BitsAllocated": 32}, "promises"),
    "rows that are not there": ({"Rows": 100, "Columns": 100}, "truncated|decoded"),
    "no rows": ({"Rows": 0}, "length 0"),
    "one bit a pixel": ({"BitsAllocated": 1, "BitsStored": 1}, "1 bits a pixel"),
    "twelve bits a pixel": ({"BitsAllocated": 12}, "12 bits a pixel"),
    "colour": ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colour"),
    "two billion frames": ({"NumberOfFrames": 2**31 - 1}, "frames"),
    "no pixels": ({"PixelData": None}, "no pixel data"),
    "fewer pixels than promised": ({"PixelData": b"\0\0" * 8}, "truncated"),
    "directions that are not perpendicular": (
        {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
        "perpendicular",
    ),
    "directions of no length": ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, "perpendicular"),
    "pixels of no size": ({"PixelSpacing": [0, 0]}, "singular"),
    "pixels in other units": ({"PixelSpacing": [90000, 90000]}, "voxel size"),
    "all slices in one place": ({"ImagePositionPatient": [0, 0, 0]}, "only 1 slice"),
    "an unknown photometry": ({"PhotometricInterpretation": "YBR_FULL"}, "YBR_FULL"),
}


@pytest.mark.parametrize("case", DICOM)
def test_a_dicom_series_with(formats, few, tmp_path, case):
    tags, pattern = DICOM[case]
    found = read(formats.dicom(few, tmp_path / "d", **tags))
    assert isinstance(found, str)
    assert re.search(pattern, found), found


@pytest.mark.parametrize("value", ["nan", "inf", "1e999"])
@pytest.mark.parametrize("tag", ["ImagePositionPatient", "PixelSpacing", "RescaleSlope"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_dicom_numbers_that_are_none(formats, few, tmp_path, tag, value):
    count = {"ImagePositionPatient": 3, "PixelSpacing": 2, "RescaleSlope": 1}[tag]
    found = read(formats.dicom(few, tmp_path / "d", **{tag: [value] * count if count > 1 else value}))
    if tag == "RescaleSlope":  # taken as none, as in NIfTI
        np.testing.assert_array_equal(found.voxels, scan_of(few))
    else:
        assert isinstance(found, str)


def test_slices_of_different_sizes_and_types(formats, scan, tmp_path):
    def cropped(dataset, index):
        if index < 5:
            dataset.PixelData = dataset.pixel_array[:10].tobytes()
            dataset.Rows = 10
        return dataset

    found = read(formats.dicom(scan, tmp_path / "sizes", cropped))
    assert any("5 images of another" in note for note in found.notes)

    def wider(dataset, index):
        if index == 3:
            dataset.PixelData = dataset.pixel_array.astype(np.int32).tobytes()
            dataset.BitsAllocated = dataset.BitsStored = 32
            dataset.HighBit = 31
        return dataset

    assert "different types" in read(formats.dicom(scan, tmp_path / "types", wider))


EXACT = (
    "nifti1",
    "nifti1-gz",
    "nifti2",
    "nifti1-pair",
    "mgh",
    "mgz",
    "nrrd",
    "nhdr",
    "minc2-one-scale",
    "dicom",
)


@pytest.mark.parametrize("name", EXACT)
def test_negative_values_and_huge_outliers_are_kept(formats, head, tmp_path, name):
    voxels = (head((16, 18, 17)) - 100).astype(np.int16)
    voxels[0, 0, 0], voxels[1, 1, 1] = 32767, -32768
    found = read(formats.WRITERS[name](formats.Scan(voxels, (1.0, 1.0, 1.0), "RAS"), tmp_path))
    np.testing.assert_array_equal(found.voxels, voxels)


@pytest.mark.parametrize("name", ["nifti1", "nifti2", "nifti1-pair-gz", "mgz", "nrrd", "nhdr", "nrrd-itk"])
def test_floats_that_are_no_numbers_become_background_and_huge_ones_stay(formats, head, tmp_path, name):
    voxels = head((16, 18, 17))
    voxels[3, 3, 3], voxels[4, 4, 4], voxels[5, 5, 5], voxels[6, 6, 6] = np.nan, np.inf, -np.inf, 1e30
    found = read(formats.WRITERS[name](formats.Scan(voxels, (1.0, 1.0, 1.0), "RAS"), tmp_path))
    assert found.voxels[6, 6, 6] == np.float32(1e30)
    assert found.voxels[3, 3, 3] == found.voxels[4, 4, 4] == found.voxels[5, 5, 5] == found.voxels.min()
    assert any("3 voxels not finite" in note for note in found.notes)


@pytest.mark.parametrize("name", ["nifti1", "mgz", "minc1", "minc2", "nrrd", "dicom"])
@pytest.mark.parametrize(("value", "pattern"), [(0, "all voxels are zero|same value"), (7, "same value")])
def test_volumes_of_one_value(formats, tmp_path, name, value, pattern):
    flat = np.full((8, 9, 7), value, np.int16)
    found = read(formats.WRITERS[name](formats.Scan(flat, (1.0, 1.0, 1.0), "RAS"), tmp_path))
    assert isinstance(found, str)
    assert re.search(pattern, found), found


NAMES = [
    "größe 1.nii.gz",
    "脳 スキャン.nii.gz",
    "мозг (1).mgz",
    "دماغ.nrrd",
    "  two  spaces .nii.gz",
    "a'b\"c;$(x).mnc",
    "x\ny.nii.gz",
]


@pytest.mark.parametrize("file_name", NAMES)
def test_names_in_other_scripts_and_with_spaces(formats, scan, tmp_path, file_name):
    from mri_transfer.datasets.find import find_volumes

    kind = {".mgz": "mgz", ".mnc": "minc2-one-scale", "rrd": "nrrd"}.get(
        file_name[-4:].lstrip("n"), "nifti1-gz"
    )
    kind = "nrrd" if file_name.endswith(".nrrd") else kind
    (file,) = formats.WRITERS[kind](scan, tmp_path)
    (tmp_path / "d ö").mkdir()
    file.rename(tmp_path / "d ö" / file_name)
    (source,) = find_volumes([tmp_path / "d ö"]).sources
    assert source.name == f"d ö/{file_name}"
    assert source.identity.subject
    np.testing.assert_allclose(read(list(source.files)).voxels, scan_of(scan), atol=1e-2)


def test_a_name_that_is_no_text_a_pipe_and_a_loop_of_links(formats, scan, tmp_path):
    from mri_transfer.datasets.find import find_volumes

    folder = tmp_path / "d"
    folder.mkdir()
    (file,) = formats.nifti(scan, tmp_path / "a.nii.gz")
    file.rename(folder / os.fsdecode(b"caf\xe9_T1.nii.gz"))
    os.mkfifo(folder / "pipe.nii")
    os.mkfifo(folder / "pipe")  # asked whether it is DICOM, it would wait for ever
    (folder / "loop.nii").symlink_to("loop.nii")
    (folder / "again").symlink_to(folder, target_is_directory=True)
    found = find_volumes([folder])
    assert [source.name for source in found.sources] == ["d/caf\ufffd_T1.nii.gz"]
    assert {skip.name: skip.broken for skip in found.skipped} == {"d/pipe.nii": True, "d/loop.nii": True}


def test_folders_and_files_that_may_not_be_read(formats, scan, tmp_path):
    from mri_transfer.datasets.find import find_volumes

    (tmp_path / "d" / "closed").mkdir(parents=True)
    (file,) = formats.nifti(scan, tmp_path / "d" / "a.nii.gz")
    (shut,) = formats.nifti(scan, tmp_path / "d" / "b.nii.gz")
    (tmp_path / "d" / "closed").chmod(0)
    shut.chmod(0)
    if os.access(shut, os.R_OK):
        pytest.skip("this user, probably the superuser, may read everything")
    found = find_volumes([tmp_path / "d"])
    assert [(skip.name, skip.broken) for skip in found.skipped] == [("d/closed", True)]
    assert "permission denied" in read([shut])
    assert not isinstance(read([file]), str)
    (tmp_path / "d" / "closed").chmod(0o700)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(FORMATS),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    cut=st.one_of(st.none(), st.floats(0, 1)),
    inside=st.booleans(),
    which=st.integers(0, 20),
)
@example(name="dicom-enhanced", flips=[], cut=0.8, inside=False, which=0)
def test_random_damage_gives_a_reason_or_a_volume(
    formats, scan, tmp_path_factory, name, flips, cut, inside, which
):
    files = formats.WRITERS[name](scan, tmp_path_factory.mktemp("damage"))
    file = files[which % len(files)]
    content = file.read_bytes()
    inside = inside and content[:2] == b"\x1f\x8b"
    data = bytearray(gzip.decompress(content) if inside else content)
    for place, value in flips:
        data[int(place * place * len(data))] = value  # squared: headers are where the decisions are
    if cut is not None:
        del data[int(cut * len(data)) :]
    file.write_bytes(gzip.compress(data, 1) if inside else data)
    found = read(files)
    if not isinstance(found, str):
        assert found.voxels.ndim == 3
        assert np.isfinite(found.zooms).all()
        assert min(found.zooms) > 0
        assert np.isfinite(found.voxels).all()
        assert found.voxels.min() < found.voxels.max()
