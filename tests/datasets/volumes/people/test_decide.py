"""Names, sessions, evidence, and who wins over whom."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mri_transfer.datasets.volumes.people.decide import decide
from tests.datasets.volumes.people.trees import file_of, whose


def subjects(*paths, **more):
    return [person.subject for person in whose(paths, **more)]


def test_an_id_stands_alone_where_no_other_person_has_it():
    assert subjects("d/siteA/1/T1", "d/siteB/2/T1") == ["1", "2"]
    assert subjects("d/siteA/1/T1", "d/siteB/1/T1") == ["siteA/1", "siteB/1"]
    assert subjects("one/mine|7/T1", "two/mine|7/T1") == ["one/mine/7", "two/mine/7"]
    assert subjects("x/a|7/T1", "y/b|7/T1") == ["a/7", "b/7"]


def test_bids_ids_belong_to_their_data_set():
    first = file_of("d/ds1/sub-01/anat/sub-01_T1w", dataset="/data/d/ds1")
    second = file_of("d/ds2/sub-01/anat/sub-01_T1w", dataset="/data/d/ds2")
    same_name = file_of("e/ds1/sub-01/anat/sub-01_T1w", dataset="/data/e/ds1")
    assert [person.subject for person in decide([first, second])] == ["ds1/sub-01", "ds2/sub-01"]
    assert [person.subject for person in decide([first, same_name])] == ["d/ds1/sub-01", "e/ds1/sub-01"]
    assert subjects("d/ds000011_sub-01_T1w") == ["ds000011/sub-01"]  # as in a tree of that data set
    assert subjects("x/T1|sub-01_T1w", "x/T2|sub-01_T2w") == ["sub-01", "sub-01"]


def test_what_is_made_of_scans_belongs_to_the_same_people():
    names = subjects("d/raw/sub-01/anat/sub-01_T1w", "d/derivatives/blorp/sub-01/anat/sub-01_desc-x_T1w")
    assert names[0] == names[1]
    names = subjects("d/derivatives/blorp/P01/T1", "d/P01/T1", "d/P02/T1")
    assert names == ["P01", "P01", "P02"]


@pytest.mark.parametrize(
    ("path", "session"),
    [
        ("d/sub-01/ses-b/anat/sub-01_ses-b_T1w", "b"),
        ("d/P01/session_1/anat_1/mprage", "session_1"),
        ("d/P01_V2_T1", "V2"),
        ("d/V1/P01/T1", "V1"),
        ("d/P01/2019-03-04/T1", "2019-03-04"),
        ("d/P01/2/T1", "2"),
        ("d/P01/t1_mprage_20200102101112_3", "20200102101112"),
        ("d/OAS1_0001_MR2/x", "MR2"),
        ("d/BraTS-GLI-00005-100/BraTS-GLI-00005-100-t1n", "100"),
        ("d/TCGA_CS_4941_19960909_FLAIR", "19960909"),
        ("d/P01/T1", ""),
        ("d/P01/T1_post", ""),
    ],
)
def test_sessions(path, session):
    assert whose([path])[0].session == session


def test_dicom_is_asked_after_bids_and_before_names():
    file = file_of("d/P07/t1", patient="H-4711", study="20200102", sequence="T1c", is_folder=True)
    (person,) = decide([file])
    assert (person.subject, person.session, person.sequence, person.how) == (
        "H-4711",
        "20200102",
        "T1c",
        "DICOM patient ID",
    )
    (person,) = decide([replace(file, parts=("d", "sub-7", "t1"))])
    assert (person.subject, person.how) == ("sub-7", "BIDS name")
    (person,) = decide([replace(file, told=(("subject", "me"), ("session", "2")))])
    assert (person.subject, person.session, person.how) == ("me", "2", "by --subject")


def test_a_patient_id_in_several_peoples_folders_is_none():
    files = [file_of(f"d/case0{n}/t1", patient="REMOVED", is_folder=True) for n in (1, 2, 3)]
    assert [person.subject for person in decide(files)] == ["case01", "case02", "case03"]
    files = [file_of(f"d/{n}/t1", patient="H-4711", is_folder=True) for n in (1, 2, 3)]  # series, perhaps
    assert [person.subject for person in decide(files)] == ["H-4711"] * 3


def test_short_patient_ids_belong_to_the_folder_that_was_given_and_long_ones_to_the_hospital():
    for patient, people in (("12", 2), ("H-471128", 1)):
        files = [file_of(f"{top}/x|s/t1", patient=patient, is_folder=True) for top in ("a", "b")]
        assert len({person.key for person in decide(files)}) == people


def test_nothing_to_go_by():
    for path in ("d/T1", "T1/t1/T1", "d/_", "T1/scan1", "d/visit1/T1"):
        (person,) = whose([path])
        assert person.subject
    assert len({person.subject for person in whose(["d/session_1/T1", "d/session_2/T1"])}) == 1
    assert decide([]) == []


def test_the_evidence_is_named():
    paths = ["d/IXI013-HH-1212-T1", "d/x/P01/T1", "d/anna_T1", "d/T1", "d/sub-01_T1w"]
    assert [person.how for person in whose(paths)] == [
        "IXI name",
        "folder name",
        "file name",
        "the folder given",
        "BIDS name",
    ]
    assert whose(["d/IXI013-HH-1212-T1"])[0].site == "HH"


@pytest.mark.parametrize(
    ("name", "beside", "sequence"),
    [
        ("s1_scan", "T2", "T2"),
        ("s1_T1", "T1c", "T1c"),
        ("s1_T1", "T2", "T1"),
        ("s1_T1", "unknown", "T1"),
        ("s1", "unknown", "unknown"),
    ],
)
def test_a_json_file_beside_says_what_a_name_does_not(name, beside, sequence):
    assert decide([file_of(f"d/{name}", beside=beside)])[0].sequence == sequence
