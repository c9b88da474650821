"""Guesses about people that paths can't settle are said; clear collections are left in peace."""

import unicodedata

import pytest

from mri_transfer.datasets.store.summary.doubts import doubts
from mri_transfer.datasets.store.summary.people_table import Scan, scans_of
from mri_transfer.datasets.volumes.find import find_volumes


def said(*scans, how="folder name"):
    """Sentences on scans, each (subject, path)."""
    return doubts({"d": [Scan("d", subject, "", "T1", f"d/{path}", how) for subject, path in scans]})


@pytest.fixture
def found(tmp_path):
    """Sentences on files at these paths, by whom they count as; nothing is opened."""

    def find(*paths):
        for path in paths:
            file = tmp_path / "d" / f"{path}.nii.gz"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"\x1f\x8b")
        sources = find_volumes([tmp_path / "d"]).sources
        scans = scans_of(sources)
        return {scan.name: scan.subject for scan in scans}, doubts({"d": scans})

    return find


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("train/10131", "test/10131"),
        ("sub-01", "Sub-01 (2)"),
        ("ds1/sub-07", "other/sub_7"),
        ("0012345", "12345"),
        ("Müller", unicodedata.normalize("NFD", "müller")),
    ],
)
def test_one_id_of_two_people(first, second):
    (line,) = said((first, "x/T1.nii"), (second, "y/T1.nii"), ("10132", "z/T1.nii"))
    assert line.startswith("one id names several people, such as ")
    assert first in line
    assert second in line
    assert "--subject or --table" in line


def test_other_ids_and_what_the_user_says_are_not_questioned():
    assert said(("10131", "a/T1.nii"), ("10113", "b/T1.nii"), ("P1", "c/T1.nii")) == []
    assert said(("train/1", "train/1/T1.nii"), ("test/1", "test/1/T1.nii"), how="by --subject") == []


@pytest.mark.parametrize("endings", [("A", "B"), ("pre", "post"), ("V1", "V2"), ("_bl", "_fu"), ("", "b")])
def test_ids_that_differ_by_a_visit_perhaps(endings):
    names = [f"P0{number}{ending}" for number in range(1, 4) for ending in endings]
    (line,) = said(*((name, f"{name}/T1.nii") for name in names))
    assert line.startswith(" and ".join(sorted(names[:2])) + " count as 2 people, and 2 more such ids")


def test_a_rare_letter_is_a_spelling():
    names = [*(f"P{number:02d}" for number in range(1, 20)), "P07B"]
    assert said(*((name, f"{name}/T1.nii") for name in names)) == []


def test_folders_of_two_people_each():
    scans = [
        (f"{folder}_V{visit}", f"{folder}/V{visit}/t1/I1")
        for folder in ("SUBJ0", "SUBJ1")
        for visit in (1, 2)
    ]
    lines = said(*scans, how="DICOM patient ID")
    assert any(
        "2 folders hold scans of several people each, such as d/SUBJ0: SUBJ0_V1 and SUBJ0_V2" in line
        for line in lines
    )
    site = [(f"{site}{n}", f"{site}/{site}{n}/T1.nii") for site in ("Oslo", "Bergen") for n in range(30)]
    assert not any("folders hold" in line for line in said(*site))


def test_padded_numbers_that_count_as_visits(found):
    paths = [f"trial/DE{site:02d}-00{n}/V1/T1" for site in range(1, 6) for n in range(1, 5)]
    subjects, lines = found(*paths)
    if len(set(subjects.values())) < len(paths):  # a site is taken for a person: then it is said
        assert any("DE01-001 and DE01-002" in line and "count as one person, DE01" in line for line in lines)


def test_numbers_of_dates_channels_and_slices_are_not_people(found):
    names = [f"P{n:02d}_2019{m:02d}01" for n in range(1, 4) for m in (1, 2)]
    names += [f"case_{n:03d}_000{channel}" for n in range(3) for channel in (0, 1)]
    assert not any("count as one person" in line for line in found(*names)[1])
    assert said(("00012", "00012_045.png"), ("00012", "00012_046.png")) == []


def test_a_patient_id_in_a_folder_with_another_persons_name():
    scans = [
        Scan("st", "84711234", "", "T1", "st/dicom/P001/t1/I1", "DICOM patient ID"),
        Scan("st", "P001", "", "T1", "st/nifti/P001/T1.nii", "folder name"),
    ]
    (line,) = doubts({"st": scans})
    assert line.startswith("PatientID 84711234 lies in a folder called P001, which names another person")


def test_numbers_below_years_may_begin_anew():
    scans = [("001", f"{year}/001/T1.nii") for year in (2018, 2019)] + [("002", "2018/002/T1.nii")]
    assert any(line.startswith("001 in 2018 and 2019 counts as one person;") for line in said(*scans))
    assert not any(
        "counts as" in line for line in said(("001", "001/2018/T1.nii"), ("001", "001/2019/T1.nii"))
    )


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (("BraTS-GLI-00005-000", "TCGA-02-0006"), "BraTS and TCGA have some people in common"),
        (("BraTS2021_00001", "BraTS-GLI-00001"), "BraTS2021 and BraTS-GLI have some people in common"),
        (("KKI2009-01", "KKI2009-25"), "KKI2009 numbers scans, two of each person"),
        (("IXI002", "OAS30001"), ""),
    ],
)
def test_collections_that_share_people(ids, words):
    lines = said(*((name, f"{name}/T1.nii") for name in ids))
    assert any(line.startswith(words) for line in lines) if words else lines == []


def test_radiotherapy_ids_of_brats(found):
    subjects, _ = found(
        "BraTS-MEN-RT-0001-1/BraTS-MEN-RT-0001-1_t1c",
        "BraTS-MEN-RT-0001-2/BraTS-MEN-RT-0001-2_t1c",
        "BraTS-MEN-RT-0002-1/BraTS-MEN-RT-0002-1_t1c",
    )
    assert sorted(subjects.values()) == ["BraTS-MEN-RT-0001", "BraTS-MEN-RT-0001", "BraTS-MEN-RT-0002"]


def test_downloads_from_loni_name_people_above_series(found):
    paths = [
        f"PPMI/{3000 + n}/MPRAGE_GRAPPA/201{visit}-02-25_10_01_33.0/S17{n:02d}{visit:02d}/"
        f"PPMI_{3000 + n}_MR_MPRAGE_GRAPPA_br_raw_201007281801_1_S8000{visit}_I17{n:02d}{visit:02d}"
        for n in range(8)
        for visit in (1, 2)
    ]
    assert sorted(set(found(*paths)[0].values())) == [f"PPMI_{3000 + n}" for n in range(8)]


def test_a_name_spelled_in_two_ways_is_one_person(found):
    subjects, lines = found(
        "T1/Müller", "T2/" + unicodedata.normalize("NFD", "Müller"), "T1/Maier", "T2/Maier"
    )
    assert len(set(subjects.values())) == 2
    assert lines == []
