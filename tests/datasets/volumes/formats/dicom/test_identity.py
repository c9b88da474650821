"""PatientIDs that name people, and placeholders that an anonymiser gave to all of them."""

from __future__ import annotations

import numpy as np
import pytest

from mri_transfer.datasets.volumes.find import find_volumes


@pytest.fixture
def make(formats, head, tmp_path):
    """Series in folders; each study of another person's scan."""
    few = formats.Scan(head((20, 24, 22))[:, :, 9:13].astype(np.int16), (1.0, 1.5, 2.0), "LPS")

    def write(folder, **tags):
        formats.dicom(few, tmp_path / "d" / folder, **tags)

    return write


def subjects(tmp_path):
    return {
        source.name.split("/", 1)[1].rsplit("/", 1)[0]: source.identity.subject
        for source in find_volumes([tmp_path / "d"]).sources
    }


@pytest.mark.parametrize(
    "patient", ["REMOVED", "DE-IDENTIFIED", "Anonymous Patient", "Subject", "PROJ-7", "X17"]
)
def test_one_id_in_folders_that_look_like_people(make, tmp_path, patient):
    for case in ("case01", "case02", "case03"):
        make(f"{case}/t1", PatientID=patient)
    assert subjects(tmp_path) == {f"case{n:02d}/t1": f"case{n:02d}" for n in (1, 2, 3)}


@pytest.mark.parametrize(
    "folders",
    [
        ("visit1/t1", "visit2/t1"),
        ("2019-04-12/t1", "2020-05-13/t1"),
        ("20190412/t1", "20200513/t1"),
        ("baseline/t1", "followup/t1"),
        ("pre op/t1", "post op/t1"),
        ("study_1/AX_T1", "study_2/AX_T1"),
        ("AX_T1_FSE", "SAG_T1_SE"),
        ("1/t1", "2/t1"),
    ],
)
def test_one_person_in_several_visits(make, tmp_path, folders):
    for folder in folders:
        make(folder, PatientID="P-017")
    make("other/t1", PatientID="P-018")
    subject_of = subjects(tmp_path)
    assert {subject_of[folder] for folder in folders} == {"P-017"}
    assert subject_of["other/t1"] == "P-018"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"PatientBirthDate": "19500101"}, {"PatientBirthDate": "19610203"}),
        ({"PatientSex": "F"}, {"PatientSex": "M"}),
        ({"PatientSize": "1.62"}, {"PatientSize": "1.88"}),
    ],
)
def test_one_id_with_two_bodies(make, tmp_path, first, second):
    """Their folders tell whose they are; where all lie in one, numbers do."""
    make("visit1/t1", PatientID="42", **first)
    make("visit2/t1", PatientID="42", **second)
    subject_of = subjects(tmp_path)
    assert len(set(subject_of.values())) == 2 or "42" not in subject_of.values()
    make("mixed", PatientID="43", **first)
    make("mixed", PatientID="43", name="Z{:04d}", **second)
    mixed = {source.identity.subject for source in find_volumes([tmp_path / "d" / "mixed"]).sources}
    assert mixed == {"43 (1)", "43 (2)"}


@pytest.mark.parametrize("code", ["S{:05d}", "E1{:04d}", "ACC1047{:02d}", "MRT_Kopf_20{:02d}"])
def test_examinations_with_codes_are_of_the_people_that_the_ids_name(make, tmp_path, code):
    people = ["84711234", "84711234", "84719999", "84719999", "84713333"]
    folders = [f"{code.format(number)}/t1" for number in range(11, 16)]
    for folder, patient in zip(folders, people, strict=True):
        make(folder, PatientID=patient)
    assert subjects(tmp_path) == dict(zip(folders, people, strict=True))
    # One id for six of them, beside another's: an anonymiser's.
    for number in range(20, 26):
        make(f"{code.format(number)}/t1", PatientID="STUDY-001")
    inventory = find_volumes([tmp_path / "d"])
    assert len({source.identity.subject for source in inventory.sources}) == 9
    assert any(
        line.startswith("PatientID STUDY-001 (6 scans) seems to be several people's")
        for line in inventory.remarks
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"PatientSize": "1.10"}, {"PatientSize": "1.42"}),  # a child grows
        ({"PatientSize": "1.70"}, {"PatientSize": "170"}),
        ({"PatientBirthDate": "19620714"}, {"PatientBirthDate": "19620101"}),  # only the year was left
    ],
)
def test_one_body_written_in_two_ways(make, tmp_path, first, second):
    make("dump/S00001/t1", PatientID="84711234", **first)
    make("dump/S00002/t1", PatientID="84711234", **second)
    make("dump/S00003/t1", PatientID="84719999")
    assert set(subjects(tmp_path).values()) == {"84711234", "84719999"}


def test_one_person_on_scanners_of_two_makers(make, tmp_path):
    for number, root in enumerate(("1.2.840.113619.2", "1.3.12.2.1107.5")):

        def change(dataset, index, root=root):
            dataset.StudyInstanceUID = f"{root}.1.2.3.4"
            return dataset

        make(f"ST00000{number}/t1", PatientID="84711234", change=change)
    make("ST000002/t1", PatientID="84719999")
    assert set(subjects(tmp_path).values()) == {"84711234", "84719999"}


def test_what_one_person_may_well_have(make, tmp_path):
    make("visit1/t1", PatientID="42", PatientSex="F", PatientBirthDate="19500101", PatientSize="1.70")
    make("visit2/t1", PatientID="42", PatientSex="", PatientBirthDate="19500101", PatientSize="1.68")
    make("visit3/t1", PatientID="42", PatientSex="O")
    assert set(subjects(tmp_path).values()) == {"42"}


def test_studies_numbered_by_two_organisations(make, tmp_path):
    def change(root):
        def study(dataset, index):
            dataset.StudyInstanceUID = f"{root}.1.2.3.4"
            return dataset

        return study

    make("case A/t1", PatientID="1", change=change("1.2.840.113619.2"))
    make("case B/t1", PatientID="1", change=change("1.3.12.2.1107.5"))
    assert subjects(tmp_path) == {"case A/t1": "case A", "case B/t1": "case B"}
