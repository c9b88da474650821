"""JSON beside NIfTI files, as dcm2niix and BIDS write it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mri_transfer.datasets.volumes.find import find_volumes
from mri_transfer.errors import UserError

# As dcm2niix writes it for a Siemens MPRAGE.
MPRAGE = {
    "Modality": "MR",
    "Manufacturer": "Siemens",
    "SeriesDescription": "sag iso",
    "ProtocolName": "sag iso",
    "ScanningSequence": "GR\\IR",
    "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "NORM"],
    "EchoTime": 0.00298,
    "RepetitionTime": 2.3,
    "InversionTime": 0.9,
}


@pytest.fixture
def found(tmp_path, save, head):
    def look(fields, name="d/x_7.nii.gz", include=()):
        path = save(tmp_path / name, head((12, 14, 10)), dtype=np.int16)
        text = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
        (path.parent / f"{path.name.removesuffix('.gz').removesuffix('.nii')}.json").write_bytes(text)
        return find_volumes([tmp_path / "d"], include=include)

    return look


@pytest.mark.parametrize(
    ("fields", "name", "sequence"),
    [
        ({}, "x_7", "T1"),  # by timing
        ({"EchoTime": 2.98, "RepetitionTime": 2300, "InversionTime": 900}, "x_7", "T1"),  # in milliseconds
        ({"SeriesDescription": "t2_tse_tra"}, "x_7", "T2"),
        ({"SeriesDescription": "AX T1 SE", "ContrastBolusAgent": "Gadovist"}, "x_7", "T1c"),
        ({"ContrastBolusAgent": "Gadovist"}, "x_T1w", "T1c"),
        ({"ContrastBolusAgent": "NONE"}, "x_T1w", "T1"),
        ({"SeriesDescription": "t2_tse_tra"}, "x_T1w", "T1"),  # whoever named the file saw it
        ({"EchoTime": 0}, "x_7", "unknown"),
        (
            {"Manufacturer": "GE", "ProtocolName": "BRAIN T2 DTI", "SeriesDescription": "Ax T1 FSE"},
            "x_7",
            "T1",
        ),
    ],
)
def test_the_sequence(found, fields, name, sequence):
    (source,) = found({**MPRAGE, **fields}, f"d/{name}.nii.gz").sources
    assert source.identity.sequence == sequence


@pytest.mark.parametrize(
    ("fields", "words", "kind"),
    [
        ({"Modality": "CT"}, "CT by the JSON beside it", "ct"),
        ({"Modality": "PT"}, "PET by the JSON", "pet"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "phase by the JSON", "fmap"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "I", "ND"]}, "imaginary part by the JSON", "fmap"),
        ({"ComplexImageComponent": "REAL"}, "real part by the JSON", "fmap"),
        ({"Units": "rad"}, "phase", "fmap"),
        ({"SeriesDescription": "ep2d_bold"}, "functional", "func"),
        ({"SeriesDescription": "ax", "ScanningSequence": "EP"}, "echo-planar", "func"),
        ({"SeriesDescription": "ADC map"}, "diffusion", "dwi"),
    ],
)
def test_what_is_no_anatomy(found, fields, words, kind):
    with pytest.raises(UserError, match=f"{words}.*see --include {kind}"):
        found({**MPRAGE, **fields})
    assert len(found({**MPRAGE, **fields}, include=(kind,)).sources) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"ImageType": ["DERIVED", "PRIMARY", "M", "NORM"]},  # a reformatted or defaced scan
        {"ScanningSequence": "EP", "SeriesDescription": "T2 fast"},
        {"ImageType": None, "SeriesDescription": 7, "EchoTime": "x", "Modality": ["MR"]},
        [],
        b"not json",
        b"\xff\xfe\x00",
        b"[" * 100000,
    ],
)
def test_what_stays_in(found, fields):
    assert len(found({**MPRAGE, **fields} if isinstance(fields, dict) else fields).sources) == 1
