"""Which DICOM files make a series, whose it is, what it shows, and what is left out."""

from __future__ import annotations

import copy

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from mri_transfer.datasets.volumes import find as find_module
from mri_transfer.datasets.volumes.find import find_volumes
from mri_transfer.datasets.volumes.volume import read_volume
from mri_transfer.errors import UserError


@pytest.fixture
def few(formats, head):
    return formats.Scan(head((20, 24, 22))[:, :, 9:13].astype(np.int16), (1.0, 1.5, 2.0), "LPS")


def reasons(inventory):
    return [skip.reason for skip in inventory.skipped]


@pytest.mark.parametrize(
    "name", ["IM{:04d}", "{:d}.dcm", "1.3.12.2.1107.5.2.{:d}", "MR.{:d}", "{:d}.IMA", "{:d}.img"]
)
def test_a_series_is_found_by_content_whatever_its_files_are_called(formats, scan, canonical, tmp_path, name):
    formats.dicom(scan, tmp_path / "d" / "st1" / "se3", name=name)
    (tmp_path / "d" / "st1" / "se3" / "README").write_text("not a picture")
    (tmp_path / "d" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    inventory = find_volumes([tmp_path / "d"])
    assert [source.name for source in inventory.sources] == ["d/st1/se3/series 3 t1_mpr_sag_iso"]
    identity = inventory.sources[0].identity
    assert (identity.subject, identity.session, identity.sequence) == ("P-017", "20190412", "T1")
    assert len(inventory.sources[0].files) == 22
    np.testing.assert_array_equal(read_volume(inventory.sources[0].files).voxels, canonical)
    named = find_volumes(sorted((tmp_path / "d" / "st1" / "se3").iterdir())[:-1])  # as `slices se3/*` does
    assert len(named.sources) == 1


def test_copies_of_a_file_count_once(formats, scan, canonical, tmp_path):
    for file in formats.dicom(scan, tmp_path / "d"):
        (tmp_path / "d" / f"copy of {file.name}").write_bytes(file.read_bytes())
    inventory = find_volumes([tmp_path / "d"])
    assert reasons(inventory) == ["a copy of another file of its series (22 images)"]
    np.testing.assert_array_equal(read_volume(inventory.sources[0].files).voxels, canonical)


def test_two_echoes_are_two_volumes(formats, scan, canonical, tmp_path):
    tags = {
        "ScanningSequence": "SE",
        "InversionTime": None,
        "SeriesDescription": "double echo",
        "RepetitionTime": 2500,
    }

    def second(dataset, index):
        echo = copy.deepcopy(dataset)
        echo.SOPInstanceUID = echo.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        echo.EchoTime, echo.EchoNumbers = 92.0, 2
        echo.PixelData = (echo.pixel_array // 3).tobytes()
        echo.save_as(tmp_path / "d" / f"L{index:03d}", enforce_file_format=True)
        return dataset

    (tmp_path / "d").mkdir()
    formats.dicom(scan, tmp_path / "d", second, EchoTime=15.0, **tags)
    inventory = find_volumes([tmp_path / "d"])
    assert {source.identity.sequence for source in inventory.sources} == {"PD", "T2"}
    voxels = {source.identity.sequence: read_volume(source.files).voxels for source in inventory.sources}
    np.testing.assert_array_equal(voxels["PD"], canonical)
    np.testing.assert_array_equal(voxels["T2"], canonical // 3)


def test_two_series_in_one_folder_and_one_series_in_two(formats, scan, head, tmp_path):
    formats.dicom(scan, tmp_path / "d")
    other = formats.Scan(head((20, 24, 22), seed=3).astype(np.int16), (1.0, 1.5, 2.0), "ASL")
    files = formats.dicom(
        other, tmp_path / "d", name="OTHER{}", SeriesNumber=4, SeriesDescription="t2 flair tra"
    )
    (tmp_path / "d" / "more").mkdir()
    for file in files[::2]:
        file.rename(tmp_path / "d" / "more" / file.name)
    inventory = find_volumes([tmp_path / "d"])
    assert [(source.identity.sequence, len(source.files)) for source in inventory.sources] == [
        ("T1", 22),
        ("FLAIR", len(files)),
    ]
    assert inventory.skipped == []


def test_a_localiser_and_stray_orientations_are_left_out(formats, head, scan, tmp_path):
    voxels = head((20, 24, 22)).astype(np.int16)
    uids = generate_uid(), generate_uid()
    (tmp_path / "d").mkdir()
    for number, axes in enumerate(("LPS", "PIL", "LIP")):  # three planes through the middle, as a scout has
        for index in (5, 7, 9):
            localiser = formats.dicom_slice(
                formats.Scan(voxels, (1.0, 1.5, 2.0), axes), index, uids, SeriesDescription="x"
            )
            localiser.save_as(tmp_path / "d" / f"L{number}{index}", enforce_file_format=True)
    formats.dicom(scan, tmp_path / "d")
    series = pydicom.dcmread(next((tmp_path / "d").glob("IM*"))).SeriesInstanceUID
    stray = formats.dicom_slice(formats.Scan(voxels, (1.0, 1.5, 2.0), "PIL"), 3, ("1.2", series))
    stray.StudyInstanceUID = pydicom.dcmread(next((tmp_path / "d").glob("IM*"))).StudyInstanceUID
    stray.save_as(tmp_path / "d" / "STRAY", enforce_file_format=True)
    inventory = find_volumes([tmp_path / "d"])
    assert len(inventory.sources) == 1
    assert len(inventory.sources[0].files) == 22
    assert sorted(reasons(inventory)) == [
        "3 orientations mixed, as in a localiser (9 images)",
        "of another orientation than the rest of its series",
    ]


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localiser"),
        ({"SeriesDescription": "3-plane scout"}, "a localiser"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary capture"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "--include derived"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]}, "a mosaic"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "Modality": "CT"}, "--include ct"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.128", "Modality": "PT"}, "modality PT, not MR"),
        ({"DiffusionBValue": 1000.0}, "--include dwi"),
        ({"SeriesDescription": "ep2d_diff_3scan_trace_ADC"}, "--include dwi"),
        ({"SeriesDescription": "ep2d_bold_moco"}, "--include func"),
        ({"SeriesDescription": "pCASL perf"}, "--include perf"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "--include fmap"),
        ({"SeriesDescription": "gre_field_mapping"}, "--include fmap"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour pixels"),
        ({"ImagePositionPatient": None}, "no ImagePositionPatient"),
        ({"ImageOrientationPatient": None}, "no ImagePositionPatient, ImageOrientationPatient"),
        ({"ImageOrientationPatient": ["1", "0", "0"]}, "no ImagePositionPatient, ImageOrientationPatient"),
        ({"PixelSpacing": None}, "PixelSpacing in its tags"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_is_no_anatomical_image_is_left_out_with_its_reason(formats, few, tmp_path, tags, reason):
    formats.dicom(few, tmp_path / "d", **tags)
    with pytest.raises(UserError, match=rf"no volumes .*{reason}.* \(4 images\)"):
        find_volumes([tmp_path / "d"])


@pytest.mark.parametrize(
    ("tags", "include"),
    [
        ({"ImageType": ["DERIVED", "SECONDARY"]}, "derived"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "Modality": "CT"}, "ct"),
        ({"SeriesDescription": "DWI b0"}, "dwi"),
    ],
)
def test_what_is_asked_for_is_taken(formats, scan, canonical, tmp_path, tags, include):
    formats.dicom(scan, tmp_path / "d", **tags)
    inventory = find_volumes([tmp_path / "d"], include=(include,))
    np.testing.assert_array_equal(read_volume(inventory.sources[0].files).voxels, canonical)


@pytest.mark.parametrize(
    ("tags", "sequence"),
    [
        ({"SeriesDescription": "AX T1 SE"}, "T1"),
        ({"SeriesDescription": "AX T1 SE", "ContrastBolusAgent": "Gadovist"}, "T1c"),
        ({"SeriesDescription": "AX T1 SE", "ContrastBolusAgent": "NONE"}, "T1"),
        ({"SeriesDescription": "T1 post Gd"}, "T1c"),
        ({"SeriesDescription": "t2_tirm_tra_dark-fluid", "InversionTime": 2500, "EchoTime": 81}, "FLAIR"),
        ({"SeriesDescription": "t2_stir_cor", "InversionTime": 150, "EchoTime": 60}, "T2"),
        ({"SeriesDescription": "pd+t2_tse_tra", "RepetitionTime": 3000, "EchoTime": 15}, "PD"),
        ({"SeriesDescription": "pd+t2_tse_tra", "RepetitionTime": 3000, "EchoTime": 95}, "T2"),
        (
            {"SeriesDescription": "tra", "ScanningSequence": "IR", "InversionTime": 2500, "EchoTime": 90},
            "FLAIR",
        ),
        ({"SeriesDescription": "tra", "ScanningSequence": "SE", "RepetitionTime": 500, "EchoTime": 12}, "T1"),
        (
            {"SeriesDescription": "tra", "ScanningSequence": "SE", "RepetitionTime": 4500, "EchoTime": 100},
            "T2",
        ),
        (
            {"SeriesDescription": "tra", "ScanningSequence": "SE", "RepetitionTime": 2500, "EchoTime": 20},
            "PD",
        ),
        ({"SeriesDescription": "tra", "ScanningSequence": "GR", "RepetitionTime": 30, "EchoTime": 4}, "T1"),
        (
            {"SeriesDescription": "TOF 3D", "ScanningSequence": "GR", "RepetitionTime": 25, "EchoTime": 4},
            "unknown",
        ),
        (
            {"SeriesDescription": "SWI", "ScanningSequence": "GR", "RepetitionTime": 28, "EchoTime": 20},
            "unknown",
        ),
        ({"SeriesDescription": "", "ScanningSequence": None, "RepetitionTime": None}, "unknown"),
        ({"SeriesDescription": "", "ProtocolName": "FLAIR cor"}, "FLAIR"),
    ],
)
def test_the_sequence_by_tags(formats, head, tmp_path, tags, sequence):
    timing = {"ScanningSequence": "SE", "InversionTime": None, "RepetitionTime": 600, "EchoTime": 14}
    small = formats.Scan(head((8, 9, 4)).astype(np.int16), (1.0, 1.0, 1.0), "LPS")
    formats.dicom(small, tmp_path / "d", **{**timing, **tags})
    assert find_volumes([tmp_path / "d"]).sources[0].identity.sequence == sequence


@pytest.mark.parametrize("patient", ["", "0000", "Anonymous", "anon_1", "unknown"])
def test_a_patient_id_that_says_nothing_leaves_it_to_the_folder(formats, few, tmp_path, patient):
    formats.dicom(few, tmp_path / "study" / "Müller 7" / "series", PatientID=patient)
    assert find_volumes([tmp_path / "study"]).sources[0].identity.subject == "Müller 7"


def test_bids_folders_tell_whose_and_what_dicom_is_wanted(formats, few, tmp_path):
    (tmp_path / "ds").mkdir()
    (tmp_path / "ds" / "dataset_description.json").write_text("{}")
    formats.dicom(few, tmp_path / "ds" / "sourcedata" / "sub-03" / "ses-2" / "T1")
    with pytest.raises(UserError, match=r"in sourcedata/.*\(4 DICOM files\)"):
        find_volumes([tmp_path / "ds"])
    (source,) = find_volumes([tmp_path / "ds"], include=("sourcedata",)).sources
    assert (source.identity.subject, source.identity.session) == ("ds/sub-03", "2")


def test_a_table_names_a_series_by_its_folder(formats, few, tmp_path):
    formats.dicom(few, tmp_path / "d" / "a")
    formats.dicom(few, tmp_path / "d" / "b")
    table = tmp_path / "t.csv"
    table.write_text("file,subject,sequence\nd/a,anna,PD\nd/b/series 3 t1_mpr_sag_iso,berta,\n")
    inventory = find_volumes([tmp_path / "d"], table)
    assert [(source.identity.subject, source.identity.sequence) for source in inventory.sources] == [
        ("anna", "PD"),
        ("berta", "T1"),
    ]


def test_without_pydicom_one_line_names_the_extra(formats, scan, tmp_path, monkeypatch, save, head):
    formats.dicom(scan, tmp_path / "d")
    real = find_module.importlib.util.find_spec
    monkeypatch.setattr(
        find_module.importlib.util, "find_spec", lambda name: None if name == "pydicom" else real(name)
    )
    with pytest.raises(UserError, match=r"pip install 'mri-transfer\[dicom\]'") as error:
        find_volumes([tmp_path / "d"])
    assert "\n" not in str(error.value)
    save(tmp_path / "d" / "x_T1.nii.gz", head((8, 8, 8)))
    inventory = find_volumes([tmp_path / "d"])
    assert len(inventory.sources) == 1
    assert [skip.broken for skip in inventory.skipped] == [True]
    assert "22 files of DICOM" in inventory.skipped[0].reason


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_endless_patient_id_of_many_lines_becomes_a_short_one(formats, few, tmp_path):
    formats.dicom(
        few, tmp_path / "d", PatientID="P\n7\x07" + "x" * 5000, SeriesDescription="T1 " + "y" * 5000
    )
    (source,) = find_volumes([tmp_path / "d"]).sources
    assert source.identity.subject == "P7" + "x" * 62
    assert len(source.name) < 100
