"""Every way a file can be broken, for every format: a reason in few words, soon, and no room for what is not there."""

from __future__ import annotations

import gzip
import re
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

FORMATS = (
    *("nifti1", "nifti1-gz", "nifti2", "nifti1-pair", "nifti1-pair-gz", "mgh", "mgz", "minc1", "minc1-gz"),
    *("minc2", "nrrd", "nrrd-raw", "nhdr", "dicom", "dicom-enhanced", "mha", "mha-packed", "mhd"),
)


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
    answer = formats.read(files)
    if isinstance(answer, str):
        assert re.search(pattern or ".", answer), answer
    else:
        assert pattern is None
        assert answer.voxels.shape == (16, 18, 17)
        if case in ("itself twice", "all but its last byte") and name in ("nifti1", "mgh", "nrrd-raw"):
            np.testing.assert_array_equal(answer.voxels, formats.canonical(scan))


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.999])
@pytest.mark.parametrize("name", ["nifti1-pair", "nifti1-pair-gz", "nhdr"])
def test_the_image_of_a_pair_cut_off(formats, scan, tmp_path, name, share):
    files = formats.WRITERS[name](scan, tmp_path)
    files[1].write_bytes(files[1].read_bytes()[: int(files[1].stat().st_size * share)])
    assert re.search("truncated|damaged", formats.read(files))


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
@pytest.mark.parametrize(
    "name", sorted({"nifti1", "nifti1-gz", "mgh", "mgz", "minc1", "minc1-gz", "minc2", "nrrd"})
)
def test_voxels_cut_off_are_never_made_up(formats, scan, tmp_path, name, share):
    (file,) = formats.WRITERS[name](scan, tmp_path)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    assert re.search("truncated|damaged", formats.read([file]))


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_is_gone_a_folder_and_a_huge_file(formats, scan, tmp_path, name):
    files = formats.WRITERS[name](scan, tmp_path)
    with files[0].open("r+b") as file:
        file.truncate(1 << 40)  # a sparse terabyte: nothing may read it
    assert "1.1 TB, more than --max-mb allows" in formats.read(files)
    files[0].unlink()
    assert formats.read(files) == "no such file or directory"
    files[0].mkdir()
    assert formats.read(files) == "is a directory"


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
    assert "decompresses to" in formats.read(files)


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
    answer = formats.read([file])
    if pattern is None:
        assert not isinstance(answer, str), answer
    else:
        assert isinstance(answer, str)
        assert re.search(pattern, answer), answer


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
    volume = formats.read(formats.WRITERS[name](formats.Scan(voxels, (1.0, 1.0, 1.0), "RAS"), tmp_path))
    np.testing.assert_array_equal(volume.voxels, voxels)


@pytest.mark.parametrize("name", ["nifti1", "nifti2", "nifti1-pair-gz", "mgz", "nrrd", "nhdr", "nrrd-itk"])
def test_floats_that_are_no_numbers_become_background_and_huge_ones_stay(formats, head, tmp_path, name):
    voxels = head((16, 18, 17))
    voxels[3, 3, 3], voxels[4, 4, 4], voxels[5, 5, 5], voxels[6, 6, 6] = np.nan, np.inf, -np.inf, 1e30
    volume = formats.read(formats.WRITERS[name](formats.Scan(voxels, (1.0, 1.0, 1.0), "RAS"), tmp_path))
    assert volume.voxels[6, 6, 6] == np.float32(1e30)
    assert volume.voxels[3, 3, 3] == volume.voxels[4, 4, 4] == volume.voxels[5, 5, 5] == volume.voxels.min()
    assert any("3 voxels not finite" in note for note in volume.notes)


@pytest.mark.parametrize("name", ["nifti1", "mgz", "minc1", "minc2", "nrrd", "dicom"])
@pytest.mark.parametrize(("value", "pattern"), [(0, "all voxels are zero|same value"), (7, "same value")])
def test_volumes_of_one_value(formats, tmp_path, name, value, pattern):
    flat = np.full((8, 9, 7), value, np.int16)
    answer = formats.read(formats.WRITERS[name](formats.Scan(flat, (1.0, 1.0, 1.0), "RAS"), tmp_path))
    assert isinstance(answer, str)
    assert re.search(pattern, answer), answer


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
    answer = formats.read(files)
    if not isinstance(answer, str):
        assert answer.voxels.ndim == 3
        assert np.isfinite(answer.zooms).all()
        assert min(answer.zooms) > 0
        assert np.isfinite(answer.voxels).all()
        assert answer.voxels.min() < answer.voxels.max()
