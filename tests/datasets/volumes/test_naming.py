"""Names as collections write them."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from mri_transfer.datasets.volumes.naming import identify, sequence_of


@pytest.mark.parametrize(
    ("path", "subject", "session", "sequence"),
    [
        ("IXI-T1/IXI013-HH-1212_T1.nii.gz", "IXI013", "", "T1"),
        ("d/ixi_IXI013-HH-1212-PD.nii.gz", "IXI013", "", "PD"),
        ("d/TCGA_CS_4941_19960909_FLAIR.nii.gz", "TCGA_CS_4941", "19960909", "FLAIR"),
        ("d/lgg_TCGA_CS_4941_19960909_T1c.nii.gz", "TCGA_CS_4941", "19960909", "T1c"),
        ("d/OAS1_0001_MR1_mpr-1_anon.img", "OAS1_0001", "MR1", "T1"),
        ("d/ADNI_002_S_0413_MR_MPRAGE.nii", "002_S_0413", "", "T1"),
        ("d/BraTS20_Training_001_t1ce.nii.gz", "BraTS20_Training_001", "", "T1c"),
        ("d/BraTS20_Training_001_t2.nii.gz", "BraTS20_Training_001", "", "T2"),
        ("d/BraTS-GLI-00005-100-t2f.nii.gz", "BraTS-GLI-00005-100", "", "FLAIR"),
        ("ds/sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz", "sub-01", "2", "T1"),
        ("ds/sub-01/anat/sub-01_ce-gadolinium_T1w.nii.gz", "sub-01", "", "T1c"),
        ("ds/sub-01/anat/sub-01_acq-space_T2w.nii.gz", "sub-01", "", "T2"),
        ("ds/sub-01/ses-b/anat/brain.nii.gz", "sub-01", "b", "unknown"),
        ("d/nvr_stroke_T2.nii.gz", "nvr_stroke", "", "T2"),
        ("d/patient7/T2_FLAIR.nii.gz", "patient7", "", "FLAIR"),
        ("d/patient7/T1_post_Gd.nii.gz", "patient7", "", "T1c"),
        ("d/FLAIR/anna.nii", "anna", "", "FLAIR"),
        ("d/001/T1.nii", "001", "", "T1"),
        ("d/001.nii", "d/001", "", "unknown"),
        ("d/e/001.nii", "e/001", "", "unknown"),
        ("d/anna/scan_2.nii", "anna", "", "unknown"),
        ("d/Müller Köpf T1.nii", "Müller Köpf", "", "T1"),
        ("d/T1_anna_20010203.nii", "anna", "20010203", "T1"),
        ("d/19630401_anna_20010203_T2_left.nii", "anna_left", "20010203", "T2"),
    ],
)
def test_whose_and_what(path, subject, session, sequence):
    identity = identify(PurePosixPath(path))
    assert (identity.subject, identity.session, identity.sequence) == (subject, session, sequence)


def test_a_bids_subject_belongs_to_its_dataset():
    path = PurePosixPath("x/sub-01/anat/sub-01_T1w.nii.gz")
    assert identify(path, "ds000001").subject == "ds000001/sub-01"


@pytest.mark.parametrize(
    ("name", "site"),
    [("IXI002-Guys-0828-T1.nii.gz", "Guys"), ("IXI013-HH-1212_T1.nii", "HH"), ("IXI2_T1.nii", "")],
)
def test_ixi_names_tell_the_site(name, site):
    assert identify(PurePosixPath(name)).site == site


@pytest.mark.parametrize(
    ("name", "sequence"),
    [
        ("sub-01_inplaneT2", "T2"),
        ("3DFLAIR", "FLAIR"),
        ("AXT1", "T1"),
        ("t2wSag", "T2"),
        ("rT1", "T1"),
        ("brainT1Gd", "T1c"),
        ("T2_T1_Gd", "T1c"),
        ("MP-RAGE", "T1"),
        ("t2_tirm_tra_dark-fluid", "FLAIR"),
        ("T1_axial_FS", "T1"),
        ("T1 weighted post contrast", "T1c"),
        ("t1fs", "T1"),
    ],
)
def test_sequences_however_they_are_written(name, sequence):
    assert sequence_of(name) == sequence


@pytest.mark.parametrize(
    "name",
    [
        "T1Rho",
        "T2Star",
        "T1map",
        "part1",
        "inplane",
        "unitless",
        "apt2x",
        "dwi",
        "T2star",
        "T2starw",
        "angio",
        "heart1",
        "t1rho",
    ],
)
def test_other_sequences_are_not_guessed(name):
    assert sequence_of(name) is None


def test_no_name_leaves_the_subject_empty():
    for name in ("T1.nii", "t1/T1.nii.gz", "1/2/3.nii", "_.nii", "T1/scan1.nii", ".nii"):
        assert identify(PurePosixPath(name)).subject
