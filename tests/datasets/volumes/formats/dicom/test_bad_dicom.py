"""DICOM whose tags lie, or do not fit together."""

from __future__ import annotations

import copy
import re

import numpy as np
import pydicom
import pytest


@pytest.fixture
def few(formats, head):
    """Few slices, where each is a file."""
    return formats.Scan(head((16, 18, 17))[:, :, 5:10].astype(np.int16), (1.0, 1.5, 2.0), "LPS")


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
    answer = formats.read(formats.dicom(few, tmp_path / "d", **tags))
    assert isinstance(answer, str)
    assert re.search(pattern, answer), answer


@pytest.mark.parametrize("value", ["nan", "inf", "1e999"])
@pytest.mark.parametrize("tag", ["ImagePositionPatient", "PixelSpacing", "RescaleSlope"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_dicom_numbers_that_are_none(formats, few, tmp_path, tag, value):
    count = {"ImagePositionPatient": 3, "PixelSpacing": 2, "RescaleSlope": 1}[tag]
    answer = formats.read(
        formats.dicom(few, tmp_path / "d", **{tag: [value] * count if count > 1 else value})
    )
    if tag == "RescaleSlope":  # taken as none, as in NIfTI
        np.testing.assert_array_equal(answer.voxels, formats.canonical(few))
    else:
        assert isinstance(answer, str)


def test_slices_of_different_sizes_and_types(formats, scan, tmp_path):
    def cropped(dataset, index):
        if index < 5:
            dataset.PixelData = dataset.pixel_array[:10].tobytes()
            dataset.Rows = 10
        return dataset

    volume = formats.read(formats.dicom(scan, tmp_path / "sizes", cropped))
    assert any("5 images of another" in note for note in volume.notes)

    def wider(dataset, index):
        if index == 3:
            dataset.PixelData = dataset.pixel_array.astype(np.int32).tobytes()
            dataset.BitsAllocated = dataset.BitsStored = 32
            dataset.HighBit = 31
        return dataset

    assert "different types" in formats.read(formats.dicom(scan, tmp_path / "types", wider))


def test_a_fan_of_orientations_is_given_up_soon(formats, few, tmp_path):
    def turned(dataset):
        item = dataset.PerFrameFunctionalGroupsSequence[0]
        angles = np.linspace(0, 3, 140)
        items = []
        for angle in angles:
            frame, plane = copy.deepcopy(item), pydicom.Dataset()
            plane.ImageOrientationPatient = [
                f"{np.cos(angle):.5f}",
                f"{np.sin(angle):.5f}",
                "0",
                "0",
                "0",
                "-1",
            ]
            frame.PlaneOrientationSequence = [plane]
            items.append(frame)
        dataset.PerFrameFunctionalGroupsSequence = items
        dataset.NumberOfFrames = len(items)

    assert "orientations mixed" in formats.read(formats.enhanced(few, tmp_path / "e.dcm", turned))
