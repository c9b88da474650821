"""DICOM series as scanners, archives and people leave them, read."""

from __future__ import annotations

import copy
import struct
import zlib

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, generate_uid

from mri_transfer.cli import main
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.datasets.volumes.find import find_volumes
from mri_transfer.datasets.volumes.volume import BadVolume, read_volume


def test_order_is_by_position_and_not_by_number_or_name(formats, scan, canonical, tmp_path):
    def renumber(dataset, index):
        dataset.InstanceNumber = (index * 5) % 22
        return dataset

    files = formats.dicom(scan, tmp_path / "d", renumber)
    for order in (files, files[::-1], files[1::2] + files[::2]):
        np.testing.assert_array_equal(read_volume(order).voxels, canonical)


def test_a_scale_of_each_slice_is_honoured_and_one_of_all_left_out(formats, scan, canonical, tmp_path):
    def scaled(dataset, index):
        dataset.RescaleSlope, dataset.RescaleIntercept = f"{1 + index % 3}", f"{10 * index}"
        stored = (dataset.pixel_array.astype(float) - 10 * index) / (1 + index % 3)
        dataset.PixelData = np.round(stored).astype(np.int16).tobytes()
        return dataset

    volume = read_volume(formats.dicom(scan, tmp_path / "each", scaled))
    assert volume.voxels.dtype == np.float32
    np.testing.assert_allclose(volume.voxels, canonical, atol=1.5)
    same = formats.dicom(scan, tmp_path / "all", RescaleSlope="2.5", RescaleIntercept="-7")
    np.testing.assert_array_equal(read_volume(same).voxels, canonical)


@pytest.mark.parametrize("tags", [{"PhotometricInterpretation": "MONOCHROME1"}, {"RescaleSlope": "-1"}])
def test_dark_and_bright_are_told_apart(formats, scan, canonical, tmp_path, tags):
    volume = read_volume(formats.dicom(scan, tmp_path / "d", **tags))
    np.testing.assert_array_equal(volume.voxels, -canonical.astype(float))


def without(*indices):
    return lambda dataset, index: None if index in indices else dataset


def test_one_missing_slice_is_reported_and_the_rest_stays_in_place(formats, scan, canonical, tmp_path):
    volume = read_volume(formats.dicom(scan, tmp_path / "d", without(7)))
    assert len(volume.notes) == 1
    assert "1 slice missing, at" in volume.notes[0]
    assert volume.voxels.shape == canonical.shape
    present = np.arange(22) != 7
    np.testing.assert_array_equal(volume.voxels[:, :, present], canonical[:, :, present])
    between = (canonical[:, :, 6].astype(float) + canonical[:, :, 8]) / 2
    np.testing.assert_allclose(volume.voxels[:, :, 7], between, atol=0.5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without(3, 4, 5, 9, 15), "5 of 22 slices missing"),
        (without(*range(2, 22)), "only 2 slices"),
        (lambda dataset, index: _moved(dataset, 0.4 * (index % 2)), "unevenly spaced"),
        (lambda dataset, index: _moved(dataset, 0, aside=9.0 * (index % 2)), "behind one another"),
    ],
)
def test_stacks_that_are_no_volume(formats, scan, tmp_path, change, reason):
    files = formats.dicom(scan, tmp_path / "d", change)
    with pytest.raises(BadVolume, match=reason):
        read_volume(files)


def _moved(dataset, up, aside=0.0):
    x, y, z = dataset.ImagePositionPatient
    dataset.ImagePositionPatient = [x + aside, y, z + 2 * up]
    return dataset


def test_later_time_points_at_the_same_positions_are_left_out(formats, scan, canonical, tmp_path):
    def twice(dataset, index):
        duplicate = copy.deepcopy(dataset)
        duplicate.SOPInstanceUID = duplicate.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        duplicate.AcquisitionNumber, duplicate.InstanceNumber = 2, 1  # comes first by number and by name
        duplicate.PixelData = (duplicate.pixel_array // 2).tobytes()
        duplicate.save_as(tmp_path / "d" / f"A{index:03d}", enforce_file_format=True)
        return dataset

    (tmp_path / "d").mkdir()
    formats.dicom(scan, tmp_path / "d", twice)
    volume = read_volume(find_volumes([tmp_path / "d"]).sources[0].files)
    np.testing.assert_array_equal(volume.voxels, canonical)
    assert any("22 images at positions already taken" in note for note in volume.notes)


ENCODINGS = {
    "implicit VR": ImplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
    "RLE": pydicom.uid.RLELossless,
    "deflated": pydicom.uid.DeflatedExplicitVRLittleEndian,
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_transfer_syntaxes(formats, scan, canonical, tmp_path, encoding):
    files = formats.dicom(scan, tmp_path / "d")
    for file in files:
        dataset = pydicom.dcmread(file)
        if encoding == "RLE":
            dataset.compress(ENCODINGS[encoding], generate_instance_uid=False)
        else:
            if encoding == "big endian":
                dataset.PixelData = dataset.pixel_array.astype(">i2").tobytes()
            dataset.file_meta.TransferSyntaxUID = ENCODINGS[encoding]
        little, implicit = encoding != "big endian", encoding == "implicit VR"
        pydicom.dcmwrite(file, dataset, little_endian=little, implicit_vr=implicit)
    inventory = find_volumes([tmp_path / "d"])
    np.testing.assert_array_equal(read_volume(inventory.sources[0].files).voxels, canonical)


def test_files_without_preamble_are_taken_by_their_suffix(formats, scan, canonical, tmp_path):
    for file in formats.dicom(scan, tmp_path / "d", name="{}.dcm"):
        dataset = pydicom.dcmread(file)
        meta = dataset.file_meta
        del dataset.file_meta
        dataset.preamble = None
        assert meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
        pydicom.dcmwrite(file, dataset, implicit_vr=True, little_endian=True, force_encoding=True)
        assert file.read_bytes()[128:132] != b"DICM"
    inventory = find_volumes([tmp_path / "d"])
    files = inventory.sources[0].files
    with pytest.raises(BadVolume, match="known format"):  # nothing in a single file's content says what it is
        read_volume([files[0].rename(tmp_path / "nameless")])
    files[0].parent.joinpath(files[0].name).write_bytes((tmp_path / "nameless").read_bytes())
    np.testing.assert_array_equal(read_volume(files).voxels, canonical)


@pytest.mark.parametrize(
    "name",
    [
        "MR_small.dcm",
        "MR_small_implicit.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
    ],
)
def test_a_scanners_real_slices_in_each_transfer_syntax(tmp_path, name):
    """pydicom's sample of a Toshiba scanner, one slice, stacked under itself with falling intensity offsets."""
    original = get_testdata_file(name, download=False)
    if original is None:
        pytest.skip(f"pydicom has no {name} here")
    for index in range(4):
        dataset = pydicom.dcmread(original)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, z + 3 * index]
        dataset.save_as(tmp_path / f"{index}.dcm")
    inventory = find_volumes([tmp_path], include=("derived",))
    volume = read_volume(inventory.sources[0].files)
    pixels = pydicom.dcmread(get_testdata_file("MR_small.dcm", download=False)).pixel_array
    assert volume.voxels.shape == (64, 64, 4)
    assert sorted(volume.voxels[:, :, 2].ravel()) == sorted(pixels.ravel())


def test_a_compression_without_a_decoder_names_the_remedy(tmp_path):
    original = get_testdata_file("MR_small_jpeg_ls_lossless.dcm", download=False)
    if original is None:
        pytest.skip("pydicom has no JPEG-LS sample here")
    for module in ("pylibjpeg", "jpeg_ls", "gdcm"):
        try:
            __import__(module)
        except ImportError:
            continue
        pytest.skip(f"{module} is installed, and decodes it")
    for index in range(4):
        dataset = pydicom.dcmread(original)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, z + 3 * index]
        dataset.save_as(tmp_path / f"{index}.dcm")
    (source,) = find_volumes([tmp_path], include=("derived",)).sources
    with pytest.raises(BadVolume, match=r"compressed as JPEG-LS.*pip install .pylibjpeg"):
        read_volume(source.files)


def test_a_multi_frame_file_with_a_frame_of_another_orientation(formats, scan, canonical, tmp_path):
    def turn(dataset):
        item = pydicom.Dataset()
        item.ImageOrientationPatient = ["0", "1", "0", "0", "0", "-1"]
        dataset.PerFrameFunctionalGroupsSequence[0].PlaneOrientationSequence = [item]

    formats.enhanced(scan, tmp_path / "e.dcm", turn)
    (source,) = find_volumes([tmp_path / "e.dcm"]).sources
    volume = read_volume(source.files)
    assert volume.voxels.shape == (20, 24, 21)
    assert any("1 images of another orientation" in note for note in volume.notes)


def test_frames_without_functional_groups_are_refused(formats, scan, tmp_path):
    def strip(dataset):
        del dataset.PerFrameFunctionalGroupsSequence

    formats.enhanced(scan, tmp_path / "e.dcm", strip)
    with pytest.raises(BadVolume, match=r"without functional groups|no ImagePositionPatient"):
        read_volume([tmp_path / "e.dcm"])


def test_header_lengths_that_lie_make_no_room_for_what_is_not_there(formats, scan, tmp_path):
    import tracemalloc

    files = formats.dicom(scan, tmp_path / "d")
    content = files[0].read_bytes()
    # Pixel data of 4 GB less two bytes, and a description of the same.
    at = content.index(b"\xe0\x7f\x10\x00OW\0\0")
    files[0].write_bytes(content[: at + 8] + struct.pack("<I", 0xFFFFFFF0) + content[at + 12 :])
    at = content.index(b"\x10\x00\x20\x00LO")  # PatientID, made a long text that ends beyond the file
    files[1].write_bytes(content[: at + 4] + b"UT\0\0" + struct.pack("<I", 0xFFFFFFF0) + content[at + 8 :])
    tracemalloc.start()
    inventory = find_volumes([tmp_path / "d"])
    for source in inventory.sources:
        read_volume(source.files)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30_000_000


def test_a_deflated_bomb_is_refused(formats, scan, tmp_path):
    files = formats.dicom(scan, tmp_path / "d")
    dataset = pydicom.dcmread(files[0])
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    pydicom.dcmwrite(files[0], dataset)
    content = files[0].read_bytes()
    length = struct.unpack_from("<I", content, 140)[0]
    start = 144 + length
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    inner = zlib.decompress(content[start:], -15)
    bomb = (
        packer.compress(inner) + b"".join(packer.compress(bytes(1 << 22)) for _ in range(24)) + packer.flush()
    )
    files[0].write_bytes(content[:start] + bomb)
    with pytest.raises(BadVolume, match="decompresses to more"):
        read_volume(files, max_bytes=1 << 20)


def test_the_command_makes_a_store_of_it(formats, scan, tmp_path):
    formats.dicom(scan, tmp_path / "d" / "one", without(7))
    formats.dicom_by_gdcm(scan, tmp_path / "d" / "two")
    (tmp_path / "d" / "one" / "broken").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 300)
    out = tmp_path / "store"
    assert (
        main(["slices", str(tmp_path / "d"), "--out", str(out), "--size", "32", "--workers", "2", "--quiet"])
        == 0
    )
    store = SliceStore.open(out)
    assert {volume["subject"] for volume in store.volumes} == {"P-017", "itk7"}
    assert any("slice missing" in note["note"] for note in store.manifest["notes"])
    assert [skip["file"] for skip in store.manifest["skipped"]] == ["d/one/broken"]
