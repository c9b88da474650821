"""Files as they come: every one is either read correctly or refused with a reason."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mri_transfer.datasets.slices.content import scan_digest
from mri_transfer.datasets.volumes.volume import BadVolume, read_volume


@pytest.fixture
def good(tmp_path, head, save):
    return save(tmp_path / "good.nii.gz", head((20, 24, 22)))


def patched(path, changes):
    """A copy of a NIfTI-1 file, uncompressed, with header bytes replaced: {offset: bytes}."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    for offset, new in changes.items():
        content[offset : offset + len(new)] = new
    copy = path.with_name("patched.nii")
    copy.write_bytes(content)
    return copy


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i2", "<u2", "<i4", ">f4", "<f4", "<f8", "<i8"])
def test_number_formats(tmp_path, head, dtype):
    voxels = (head((20, 24, 22)) / 2).astype(dtype)
    header = nib.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_dtype(np.dtype(dtype))
    path = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(voxels, np.eye(4), header, dtype=np.dtype(dtype)), path)
    array = read_volume([path]).voxels
    np.testing.assert_allclose(array, voxels.astype(np.float64), rtol=1e-6)
    assert array.dtype.isnative
    assert array.dtype.itemsize <= max(4, np.dtype(dtype).itemsize if np.dtype(dtype).kind != "f" else 4)


def test_big_endian_analyze_pair(tmp_path, head):
    voxels = head((20, 24, 22)).astype(">i2")
    header = nib.AnalyzeHeader(endianness=">")
    header.set_data_dtype(np.dtype(">i2"))
    header.set_data_shape(voxels.shape)
    header.set_zooms((1.0, 1.5, 2.0))
    nib.AnalyzeImage(voxels, None, header).to_filename(tmp_path / "OAS1_0001_MR1.img")
    files = [tmp_path / "OAS1_0001_MR1.hdr", tmp_path / "OAS1_0001_MR1.img"]
    assert files[0].read_bytes()[:4] == struct.pack(">i", 348)
    volume = read_volume(files)
    reference = nib.as_closest_canonical(nib.load(files[1]))
    np.testing.assert_array_equal(volume.voxels, np.asanyarray(reference.dataobj))
    assert volume.zooms == pytest.approx((1.0, 1.5, 2.0))
    assert volume.sha256 == hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def test_the_content_is_the_same_under_another_name_and_compression(tmp_path, good):
    plain = tmp_path / "other.nii"
    plain.write_bytes(gzip.decompress(good.read_bytes()))
    first, second = read_volume([good]), read_volume([plain])
    assert scan_digest(first.voxels) == scan_digest(second.voxels)
    assert first.sha256 != second.sha256
    assert second.sha256 == hashlib.sha256(plain.read_bytes()).hexdigest()


def test_trailing_axes_of_length_one_are_dropped(tmp_path, head):
    path = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(head((20, 24, 22))[..., None, None], np.eye(4)), path)
    assert read_volume([path]).voxels.shape == (20, 24, 22)


def short(*values):
    return struct.pack(f"<{len(values)}h", *values)


def real(*values):
    return struct.pack(f"<{len(values)}f", *values)


NAN, NO_FORM = float("nan"), short(0, 0)  # qform_code, sform_code at byte 252; pixdim at 76; srow_x at 280
BAD_HEADERS = {
    "a series": ({40: short(4, 20, 24, 11, 2)}, "4-D series"),
    "one dimension": ({40: short(1, 20)}, "not a 3-D volume"),
    "an axis of no length": ({40: short(3, 20, 0, 22)}, "length 0"),
    "an axis of negative length": ({40: short(3, 20, -24, 22)}, "."),
    "colour": ({70: short(128, 24)}, "RGB"),
    "complex numbers": ({70: short(32, 64)}, "complex64"),
    "an unknown number format": ({70: short(77, 16)}, "not understood"),
    "more voxels than the file has": ({40: short(3, 200, 240, 220)}, "truncated"),
    "terabytes": ({40: short(3, 30000, 30000, 30000)}, r"promises 54 TB.*--max-mb"),
    "a voxel size of zero": ({76: real(1, 0, 1, 1), 252: NO_FORM}, "voxel size of 0 x 1 x 1 mm"),
    "a voxel size that is no number": ({76: real(1, 1, NAN, 1), 252: NO_FORM}, "voxel size|finite"),
    "a voxel size in other units": ({280: real(9e6, 0, 0, 0), 252: short(0, 1)}, "voxel size of 9e"),
    "an affine that is no number": ({280: real(NAN, 0, 0, 0), 252: short(0, 1)}, "not finite"),
    "an affine without volume": ({280: real(0, 1, 0, 0), 252: short(0, 1)}, "singular"),
    "another magic": ({344: b"nope", 0: struct.pack("<i", 999)}, "not a volume"),
    "an infinite voxel offset": ({108: real(float("inf"))}, "."),
}


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_headers_that_lie(good, case):
    changes, reason = BAD_HEADERS[case]
    path = patched(good, changes)
    with pytest.raises(BadVolume, match=reason):
        read_volume([path])
    packed = path.with_suffix(".nii.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(BadVolume, match=reason):
        read_volume([packed])


@pytest.mark.parametrize(("slope", "inter"), [(0.0, 5.0), (NAN, 0.0)])
def test_a_scale_factor_that_means_none(good, slope, inter):
    volume = read_volume([patched(good, {112: real(slope, inter)})])
    np.testing.assert_array_equal(volume.voxels, read_volume([good]).voxels)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.3, 0.9, 0.999])
def test_a_compressed_file_cut_off_anywhere(good, share):
    content = good.read_bytes()
    good.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BadVolume, match=r"truncated|damaged|empty|not a volume"):
        read_volume([good])


def test_a_flipped_byte_in_a_compressed_file(good):
    content = bytearray(good.read_bytes())
    content[-8] ^= 1  # in the checksum: decompression itself does not notice
    good.write_bytes(content)
    with pytest.raises(BadVolume, match="damaged"):
        read_volume([good])


def test_text_and_empty_files(tmp_path):
    for content, reason in ((b"these are my notes\n" * 50, "not a volume"), (b"", "empty")):
        path = tmp_path / "notes.nii"
        path.write_bytes(content)
        with pytest.raises(BadVolume, match=reason):
            read_volume([path])


@pytest.mark.parametrize(
    ("value", "reason"), [(0.0, "all voxels are zero"), (7.0, "same value, 7"), (NAN, "no finite voxel")]
)
def test_volumes_without_content(tmp_path, save, value, reason):
    path = save(tmp_path / "a.nii", np.full((20, 24, 22), value), dtype=np.float32)
    with pytest.raises(BadVolume, match=reason):
        read_volume([path])


def test_a_decompression_bomb_is_not_swallowed(tmp_path, good):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = packer.compress(gzip.decompress(good.read_bytes()))
    bomb += b"".join(packer.compress(bytes(1 << 22)) for _ in range(20)) + packer.flush()
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(bomb)
    with pytest.raises(BadVolume, match="far more than its header says"):
        read_volume([path])


def test_the_limit_on_size(good):
    with pytest.raises(BadVolume, match="--max-mb"):
        read_volume([good], max_bytes=20 * 24 * 22 * 2 - 1)
    read_volume([good], max_bytes=20 * 24 * 22 * 2)


def test_a_missing_file(tmp_path):
    with pytest.raises(BadVolume, match="no such file"):
        read_volume([tmp_path / "gone.nii"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(offset=st.integers(0, 351), value=st.integers(0, 255))
def test_any_byte_of_the_header_may_be_wrong(good, offset, value):
    path = patched(good, {offset: bytes([value])})
    try:
        volume = read_volume([path], max_bytes=1 << 24)
    except BadVolume:
        return
    assert volume.voxels.ndim == 3
    assert np.isfinite(volume.zooms).all()
    assert min(volume.zooms) > 0
    assert volume.voxels.min() < volume.voxels.max()
