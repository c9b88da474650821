"""What a series shows: protocols that belong to an examination, parts of complex images, echo-planar series, copies."""

from __future__ import annotations

import copy

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, generate_uid

from mri_transfer.datasets.volumes.find import find_volumes
from mri_transfer.datasets.volumes.volume import read_volume
from mri_transfer.errors import UserError


@pytest.fixture
def scan(formats, head):
    return formats.Scan(head((20, 24, 10)).astype(np.int16), (1.0, 1.5, 2.0), "LPS")


def reasons(inventory):
    return [skip.reason for skip in inventory.skipped]


@pytest.mark.parametrize(
    ("tags", "sequence"),
    [
        ({"ProtocolName": "BRAIN W WO + DTI PERFUSION", "SeriesDescription": "Ax T1 FSE"}, "T1"),
        (
            {"ProtocolName": "BRAIN DTI", "SeriesDescription": "Ax", "Manufacturer": "GE MEDICAL SYSTEMS"},
            "T1",
        ),
        ({"ProtocolName": "T2 FLAIR", "SeriesDescription": "", "Manufacturer": "GE MEDICAL SYSTEMS"}, "T1"),
        ({"ProtocolName": "t2_tse", "SeriesDescription": "ND"}, "T2"),
    ],
)
def test_the_protocol_of_an_examination_classifies_no_series(formats, scan, tmp_path, tags, sequence):
    formats.dicom(scan, tmp_path / "d", **tags)
    (source,) = find_volumes([tmp_path / "d"]).sources
    assert source.identity.sequence == sequence


def test_the_protocol_of_a_series_does(formats, scan, tmp_path):
    formats.dicom(scan, tmp_path / "d", SeriesDescription="MoCoSeries", ProtocolName="ep2d_bold_rest")
    with pytest.raises(UserError, match="functional; see --include func"):
        find_volumes([tmp_path / "d"])


@pytest.mark.parametrize(
    ("kinds", "what"),
    [
        (["ORIGINAL", "PRIMARY", "P"], "phase"),
        (["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"], "phase"),
        (["ORIGINAL", "PRIMARY", "R_IR", "R", "IR"], "real part"),
        (["ORIGINAL", "PRIMARY", "I", "ND"], "imaginary part"),
    ],
)
def test_parts_of_complex_images(formats, scan, tmp_path, kinds, what):
    formats.dicom(scan, tmp_path / "d", ImageType=kinds)
    with pytest.raises(UserError, match=f"{what}; see --include fmap"):
        find_volumes([tmp_path / "d"])
    assert len(find_volumes([tmp_path / "d"], include=("fmap",)).sources) == 1


def typed(whole, types):
    """A multi-frame file in which each frame has its own type and complex component."""
    for group, (kinds, component) in zip(whole.PerFrameFunctionalGroupsSequence, types, strict=True):
        item = Dataset()
        item.FrameType, item.ComplexImageComponent = kinds, component
        group.MRImageFrameTypeSequence = Sequence([item])


PLAIN = (["ORIGINAL", "PRIMARY", "M", "NONE"], "MAGNITUDE")
PHASE = (["ORIGINAL", "PRIMARY", "P", "NONE"], "PHASE")
ADC = (["DERIVED", "PRIMARY", "M", "NONE"], "MAGNITUDE")


def doubled(other, first):
    """Every position twice: a magnitude, and another kind with other numbers."""

    def change(whole):
        groups = list(whole.PerFrameFunctionalGroupsSequence)
        count = len(groups)
        pixels = whole.PixelData
        strange = (4000 - np.frombuffer(pixels, np.int16)).astype(np.int16).tobytes()
        whole.PixelData = strange + pixels if first else pixels + strange
        whole.NumberOfFrames = 2 * count
        whole.PerFrameFunctionalGroupsSequence = Sequence([*groups, *map(copy.deepcopy, groups)])
        whole.ImageType = (
            ["ORIGINAL", "PRIMARY", "P", "MIXED"] if first else ["ORIGINAL", "PRIMARY", "M", "MIXED"]
        )
        typed(whole, [other] * count + [PLAIN] * count if first else [PLAIN] * count + [other] * count)

    return change


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("other", [PHASE, ADC, (PHASE[0], "IMAGINARY"), (PLAIN[0], "REAL")])
def test_the_magnitude_of_a_multi_frame_file_wherever_it_stands(formats, scan, tmp_path, other, first):
    (tmp_path / "d").mkdir()
    formats.enhanced(scan, tmp_path / "d" / "e.dcm", doubled(other, first))
    (source,) = find_volumes([tmp_path / "d"]).sources
    volume = read_volume(source.files)
    np.testing.assert_array_equal(volume.voxels, formats.canonical(scan))
    assert any("10 frames that are not magnitude images" in note for note in volume.notes)


@pytest.mark.parametrize(
    ("kind", "words"), [(PHASE, "phase; see --include fmap"), (ADC, "--include derived")]
)
def test_a_multi_frame_file_without_magnitudes(formats, scan, tmp_path, kind, words):
    (tmp_path / "d").mkdir()
    formats.enhanced(scan, tmp_path / "d" / "e.dcm", lambda whole: typed(whole, [kind] * 10))
    with pytest.raises(UserError, match=words):
        find_volumes([tmp_path / "d"])


def test_frames_count_more_than_the_file(formats, scan, tmp_path):
    def change(whole):
        whole.ImageType = ["ORIGINAL", "PRIMARY", "P", "NONE"]
        typed(whole, [PLAIN] * 10)

    (tmp_path / "d").mkdir()
    formats.enhanced(scan, tmp_path / "d" / "e.dcm", change)
    assert len(find_volumes([tmp_path / "d"]).sources) == 1


PLANAR = {"ScanningSequence": ["EP", "GR"], "InversionTime": None}


def time_points(folder):
    """Writes every slice a second time, as the next time point."""

    def change(dataset, index):
        duplicate = copy.deepcopy(dataset)
        duplicate.SOPInstanceUID = duplicate.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        duplicate.AcquisitionNumber = 2
        duplicate.save_as(folder / f"L{index:03d}", enforce_file_format=True)
        return dataset

    folder.mkdir(exist_ok=True)
    return change


@pytest.mark.parametrize("description", [None, "", "ax", "T2 star"])
def test_echo_planar_time_series(formats, scan, tmp_path, description):
    formats.dicom(
        scan,
        tmp_path / "d",
        time_points(tmp_path / "d"),
        SeriesDescription=description,
        ProtocolName=None,
        **PLANAR,
    )
    with pytest.raises(UserError, match=r"echo-planar.*see --include func"):
        find_volumes([tmp_path / "d"])
    assert len(find_volumes([tmp_path / "d"], include=("func",)).sources) == 1


def test_a_fast_scan_that_says_what_it_shows_stays(formats, scan, tmp_path):
    """A T2 by an echo-planar readout: its contrast is named, and no position is repeated."""
    formats.dicom(scan, tmp_path / "d", SeriesDescription="T2 fast", **PLANAR)
    assert len(find_volumes([tmp_path / "d"]).sources) == 1


def test_repeats_of_an_ordinary_scan_stay(formats, scan, tmp_path):
    formats.dicom(scan, tmp_path / "d", time_points(tmp_path / "d"))
    assert len(find_volumes([tmp_path / "d"]).sources) == 1


def test_an_echo_time_of_zero_says_nothing(formats, scan, tmp_path):
    tags = {
        "SeriesDescription": "tra",
        "ScanningSequence": "SE",
        "RepetitionTime": 500,
        "InversionTime": None,
    }
    formats.dicom(scan, tmp_path / "d", EchoTime=0, **tags)
    assert find_volumes([tmp_path / "d"]).sources[0].identity.sequence == "unknown"


def test_a_copy_in_another_byte_order_does_not_cost_the_series(formats, scan, tmp_path):
    files = formats.dicom(scan, tmp_path / "d" / "volume")
    dataset = pydicom.dcmread(files[3])
    dataset.PixelData = dataset.pixel_array.astype(">i2").tobytes()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    pydicom.dcmwrite(tmp_path / "d" / "a_copy.dcm", dataset, implicit_vr=False, little_endian=False)
    inventory = find_volumes([tmp_path / "d"])
    assert [(skip.path.name, skip.reason) for skip in inventory.skipped] == [
        ("a_copy.dcm", "a copy of another file of its series")
    ]
    np.testing.assert_array_equal(read_volume(inventory.sources[0].files).voxels, formats.canonical(scan))
    files[3].unlink()  # now the other one is needed
    (source,) = find_volumes([tmp_path / "d"]).sources
    np.testing.assert_array_equal(read_volume(source.files).voxels, formats.canonical(scan))


def test_one_instance_number_for_all_is_named_as_the_cause(formats, scan, tmp_path):
    def change(dataset, index):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
        return dataset

    formats.dicom(scan, tmp_path / "d", change)
    with pytest.raises(UserError) as error:
        find_volumes([tmp_path / "d"])
    assert "SOPInstanceUID" in str(error.value)
    explanations = [entry["reason"] for entry in error.value.details["skipped"]]
    assert explanations[0].startswith("only 1 slice, not a volume: 9 other files repeat a SOPInstanceUID")
    assert "repeats the SOPInstanceUID of another file at another position (9 images)" in explanations
