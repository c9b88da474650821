"""NIfTI files as users have them: read, with a note on what was mended."""

from __future__ import annotations

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest

from mri_transfer.datasets.slices.cut import cut
from mri_transfer.datasets.volumes.volume import BadVolume, read_volume


@pytest.fixture
def voxels(head):
    return head((20, 24, 22)).astype(np.int16)


def write(path, voxels, affine=None, form=nib.Nifti1Image, change=None):
    image = form(voxels, np.diag([1.0, 1.5, 2.0, 1.0]) if affine is None else affine)
    if change:
        change(image.header)
    nib.save(image, path)
    return path


def patched(path, *changes):
    """Bytes replaced in a plain file: (offset, new)."""
    content = bytearray(path.read_bytes())
    for offset, new in changes:
        content[offset : offset + len(new)] = new
    path.write_bytes(content)
    return path


def noted(path, words):
    volume = read_volume([path])
    assert any(words in note for note in volume.notes), volume.notes
    return volume


@pytest.mark.parametrize("form", [nib.Nifti1Image, nib.Nifti2Image])
def test_two_dimensions_are_one_slice(tmp_path, head, form):
    middle = head((40, 48, 44))[:, :, 22].astype(np.int16)
    path = write(tmp_path / "flat.nii.gz", middle, form=form)
    volume = read_volume([path])
    np.testing.assert_array_equal(volume.voxels, middle[:, :, None])
    assert volume.zooms[:2] == (1.0, 1.5)
    assert cut(volume, 32).plane == ("axial",)


@pytest.mark.parametrize(("form", "at", "kind"), [(nib.Nifti1Image, 108, "<f"), (nib.Nifti2Image, 168, "<q")])
def test_a_voxel_offset_of_zero_in_a_single_file(tmp_path, voxels, form, at, kind):
    path = patched(write(tmp_path / "a.nii", voxels, form=form), (at, struct.pack(kind, 0)))
    volume = noted(path, "voxel offset of 0 in the header, taken as")
    np.testing.assert_array_equal(volume.voxels, voxels)
    packed = tmp_path / "b.nii.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(read_volume([packed]).voxels, voxels)


def test_a_voxel_offset_within_extensions_is_refused(tmp_path, voxels):
    def change(header):
        header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"made by hand"))

    path = patched(write(tmp_path / "a.nii", voxels, change=change), (108, struct.pack("<f", 0)))
    with pytest.raises(BadVolume, match="within the header"):
        read_volume([path])


@pytest.mark.parametrize("tail", [b"\0" * 512, b"<!-- served by proxy -->", b"\x1f", b"\x1f\x8b garbage"])
def test_bytes_behind_the_gzip_stream(tmp_path, voxels, tail):
    path = write(tmp_path / "a.nii.gz", voxels)
    path.write_bytes(path.read_bytes() + tail)
    volume = read_volume([path])
    np.testing.assert_array_equal(volume.voxels, voxels)
    assert [note for note in volume.notes if "behind the compressed data" in note] == (
        [f"{len(tail)} bytes behind the compressed data ignored"] if tail.strip(b"\0") else []
    )


def test_several_gzip_members_are_one_file(tmp_path, voxels):
    """As pigz and bgzip write it."""
    content = gzip.decompress(write(tmp_path / "a.nii.gz", voxels).read_bytes())
    pieces = [content[at : at + 5000] for at in range(0, len(content), 5000)]
    (tmp_path / "b.nii.gz").write_bytes(b"".join(map(gzip.compress, pieces)))
    volume = read_volume([tmp_path / "b.nii.gz"])
    np.testing.assert_array_equal(volume.voxels, voxels)
    assert volume.notes == ()


def test_a_wrong_checksum_is_damage_also_with_bytes_behind(tmp_path, voxels):
    path = write(tmp_path / "a.nii.gz", voxels)
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content + b"trailing")
    with pytest.raises(BadVolume, match="damaged"):
        read_volume([path])


def test_negative_voxel_sizes_are_taken_as_positive(tmp_path, voxels):
    no_form = (252, struct.pack("<2h", 0, 0))
    path = patched(write(tmp_path / "a.nii", voxels), (76, struct.pack("<4f", 1, 1, -1.5, 2)), no_form)
    volume = noted(path, "voxel size of 1 x -1.5 x 2 mm in the header, taken as positive")
    assert volume.zooms == pytest.approx((1.0, 1.5, 2.0))


def test_an_sform_of_zeros_beside_a_qform(tmp_path, voxels):
    affine = np.array([[0, 0, 2.0, 5], [-1.0, 0, 0, 6], [0, 1.5, 0, 7], [0, 0, 0, 1]])

    path = write(tmp_path / "a.nii", voxels, affine, change=forms(affine, affine))
    patched(path, (280, bytes(48)))
    volume = noted(path, "sform of zeros, the qform taken")
    expected = nib.as_closest_canonical(nib.Nifti1Image(voxels, affine))
    np.testing.assert_array_equal(volume.voxels, np.asanyarray(expected.dataobj))


def forms(sform, qform, codes=(1, 1)):
    def change(header):
        header.set_sform(sform, code=codes[0])
        header.set_qform(qform, code=codes[1])

    return change


PLAIN = np.diag([1.0, 1.5, 2.0, 1.0])
FLIPPED = np.array([[-1.0, 0, 0, 19], [0, 1.5, 0, 0], [0, 0, 2.0, 0], [0, 0, 0, 1]])
MOVED = PLAIN + np.array([[0, 0, 0, 30], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


@pytest.mark.parametrize(
    ("qform", "codes", "words"),
    [
        (FLIPPED, (1, 1), "axes RAS and LAS"),
        (FLIPPED, (4, 1), "axes RAS and LAS"),
        (np.diag([1.0, 1.5, 3.0, 1.0]), (1, 1), "voxels of 1 x 1.5 x 2 and 1 x 1.5 x 3 mm"),
        (MOVED, (1, 1), "up to 30 mm apart"),
        (MOVED, (4, 1), None),  # an atlas's space and the scanner's
        (PLAIN, (1, 1), None),
    ],
)
def test_sform_and_qform_that_contradict_are_noted_and_the_sform_counts(
    tmp_path, voxels, qform, codes, words
):
    path = write(tmp_path / "a.nii", voxels, change=forms(PLAIN, qform, codes))
    if codes == (1, 1) and words and words.startswith("voxels"):
        patched(path, (76, struct.pack("<4f", 1, 1, 1.5, 3)))
    volume = read_volume([path])
    np.testing.assert_array_equal(volume.voxels, voxels)
    assert volume.zooms == pytest.approx((1.0, 1.5, 2.0))
    assert [note for note in volume.notes if "contradict" in note] == (
        [] if words is None else [f"sform and qform contradict each other ({words}), the sform taken"]
    )


@pytest.mark.parametrize(
    ("unit", "scale", "words"),
    [
        ("meter", 0.001, "in metres, brought to mm"),
        ("micron", 1000.0, "in microns, brought to mm"),
        ("meter", 1.0, "in metres by the header, taken as mm"),
        ("micron", 1.0, "in microns by the header, taken as mm"),
        ("mm", 1.0, None),
    ],
)
def test_metres_and_microns(tmp_path, voxels, unit, scale, words):
    affine = np.diag([*(scale * np.array([1.0, 1.5, 2.0])), 1.0])
    path = write(tmp_path / "a.nii", voxels, affine, change=lambda header: header.set_xyzt_units(unit))
    volume = read_volume([path])
    assert volume.zooms == pytest.approx((1.0, 1.5, 2.0), rel=1e-5)
    assert [note for note in volume.notes if "voxel sizes" in note] == (
        [] if words is None else [f"voxel sizes {words}"]
    )


@pytest.mark.parametrize(
    ("padding", "dtype"), [(-32768, np.int16), (-9999.0, np.float32), (-3e38, np.float32)]
)
def test_padding_outside_the_field_of_view_is_background(tmp_path, head, padding, dtype):
    """The slices are those of the scan with a dark corner there."""
    voxels = head((40, 48, 44)).astype(dtype)
    x, y = np.meshgrid(np.linspace(-1, 1, 40), np.linspace(-1, 1, 48), indexing="ij")
    outside = np.broadcast_to((x**2 + y**2 > 1.3)[..., None], voxels.shape)
    plain = write(tmp_path / "plain.nii", np.where(outside, voxels.min(), voxels))
    padded = write(tmp_path / "padded.nii", np.where(outside, np.array(padding, dtype), voxels))
    noted(padded, "far below all others, taken as background")
    np.testing.assert_array_equal(cut(read_volume([padded]), 32).images, cut(read_volume([plain]), 32).images)


def test_negative_values_of_a_scan_are_no_padding(tmp_path, voxels):
    for shifted in (voxels - 1024, -voxels, (voxels - voxels.mean()).astype(np.float32)):
        path = write(tmp_path / "a.nii", shifted)
        volume = read_volume([path])
        np.testing.assert_array_equal(volume.voxels, shifted)
        assert volume.notes == ()
