"""People of a store: they stay who they are while it grows, and are shown."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mri_transfer.datasets.extraction.extract import SlicesConfig, extract
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.datasets.store.subjects import outdated
from mri_transfer.datasets.store.summary.people_table import Scan, overview, table_lines
from mri_transfer.datasets.volumes.people.pattern import subject_pattern
from mri_transfer.errors import UserError

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def put(tmp_path, head, save):
    """Writes volumes, each another head."""
    seeds = iter(range(10_000))

    def write(*names):
        for name in names:
            save(tmp_path / f"{name}.nii.gz", head((16, 18, 17), seed=next(seeds)), zooms=(8.0, 8.0, 8.0))

    return write


@pytest.fixture
def run(tmp_path):
    """The command on folders below the temporary one; returns the subject of each file of the store."""

    def extract_it(*folders, **options):
        paths = tuple(tmp_path / folder for folder in folders)
        extract(
            SlicesConfig(
                paths, tmp_path / "store", size=32, spacing=30.0, workers=1, max_correlation=1.0, **options
            )
        )
        volumes = SliceStore.open(tmp_path / "store").volumes
        return {volume["source"].removesuffix(".nii.gz"): volume["subject"] for volume in volumes}

    return extract_it


def test_a_new_site_that_counts_from_one_adds_people(put, run):
    put("a/Oslo/1/T1", "a/Oslo/2/T1")
    assert run("a") == {"a/Oslo/1/T1": "1", "a/Oslo/2/T1": "2"}
    put("a/Bergen/1/T1", "a/Oslo/2/FLAIR")
    subjects = run("a")
    assert subjects["a/Oslo/1/T1"] == "1"
    assert subjects["a/Oslo/2/FLAIR"] == subjects["a/Oslo/2/T1"] == "2"
    assert subjects["a/Bergen/1/T1"] not in ("1", "2")
    # Another folder, given without the first: its people are others, whatever they are called.
    put("b/1/T1", "b/2/T1")
    subjects = run("b")
    assert len(set(subjects.values())) == 5
    put("b/1/T2")
    subjects = run("b")
    assert subjects["b/1/T2"] == subjects["b/1/T1"]
    assert run("a", "b") == subjects


def test_known_people_are_the_same_in_every_folder(put, run):
    put("a/IXI013-HH-1212-T1", "a/sub-01_T1w")
    run("a")
    put("b/IXI013-HH-1212-T2", "b/sub-01_T2w")
    subjects = run("b")
    assert subjects["b/IXI013-HH-1212-T2"] == "IXI013"
    assert subjects["b/sub-01_T2w"] != subjects["a/sub-01_T1w"] == "sub-01"


def test_one_persons_folder_after_another(put, run):
    put("d/0001/T1", "d/0001/T2")
    run("d/0001")
    put("d/0002/T1")
    run("d/0002")
    put("d/0002/T2")
    subjects = run("d/0001", "d/0002")
    assert subjects["0001/T1"] == subjects["0001/T2"] == "0001"
    assert subjects["0002/T1"] == subjects["0002/T2"] == "0002"


def test_files_that_show_the_people_to_be_others_are_refused(put, run, tmp_path):
    put("a/x/scan_1", "a/x/scan_2")
    assert len(set(run("a").values())) == 2  # a flat folder of numbered scans
    put("a/y/scan_1", "a/y/scan_2", "a/z/scan_1")
    with pytest.raises(UserError, match=r"with these files, 2 of 2 volumes would belong to other people now"):
        run("a")
    with pytest.raises(UserError, match=r"such as a/x/scan_1.nii.gz: scan_1 before, x now"):
        run("a", dry_run=True)
    subjects = run("a", subject=subject_pattern("*/{subject}"))  # the user says that they were right
    assert subjects["a/x/scan_1"] == "scan_1"


def test_a_store_from_before_is_recognised(put, run, tmp_path):
    put("d/s1/anat/mprage_defaced", "d/s2/anat/mprage_defaced", "d/s3/anat/mprage_defaced")
    run("d")
    journal = tmp_path / "store" / "volumes.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:
        del line["crc32"]
    for line in lines[1:]:
        for key in ("evidence", "dataset", "how"):
            del line[key]
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert set(run("d").values()) == {"s1", "s2", "s3"}  # told apart as they are now: it may grow
    for line in lines[1:]:
        line["subject"] = "mprage_defaced"
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(
        UserError, match=r"single file names, 3 of 3 volumes would belong.*another --out"
    ) as error:
        run("d")
    assert "mprage_defaced before, s1 now" in str(error.value)
    assert "\n" not in str(error.value)


def test_what_a_store_says_against_itself():
    paths = [f"d/s{number}/anat/mprage_defaced.nii.gz" for number in range(3)]
    assert outdated([{"source": path, "subject": path.split("/")[1]} for path in paths]) == ""
    notice = outdated([{"source": path, "subject": "mprage_defaced"} for path in paths])
    assert notice.startswith("3 of 3 volumes seem to be filed under other people")
    assert outdated([{"source": "d/x/series 3 T1", "subject": "PAT1"}]) == ""


def scans(dataset, *rows):
    return [
        Scan(dataset, subject, session, sequence, f"{dataset}/{name}", "folder name")
        for subject, session, sequence, name in rows
    ]


def test_the_table_counts_people_and_names_what_is_odd():
    table = overview(
        [
            *scans("a", *((f"p{n}", "", "T1", f"p{n}/T1.nii") for n in range(4))),
            *scans("b", *(("mprage", str(n), "T1", f"{n}/mprage.nii") for n in range(5))),
            *scans("c", *(("p0" if n < 4 else f"q{n}", str(n), "T1", f"{n}.nii") for n in range(6))),
            *scans(
                "e", *((f"q{n}", "", "T1", f"q{n}.nii") for n in range(10, 13)), ("q13", "", "T1", "q14.nii")
            ),
        ]
    )
    assert [(row["dataset"], row["people"], row["sessions"], row["scans"]) for row in table["rows"]] == [
        ("a", 4, 4, 4),
        ("b", 1, 5, 5),
        ("c", 3, 6, 6),
        ("e", 4, 4, 4),
    ]
    assert table["rows"][2]["scans_a_person"] == [1, 1, 4]
    assert table["odd"] == [
        "b: all 5 scans count as one person, mprage",
        "c: 4 of 6 scans count as one person, p0",
        "one person is in more than one data set, such as p0 in a and c",
    ]
    lines = table_lines(table)
    assert lines[0].split("  ")[0] == "data set"
    assert lines[3].split() == ["c", "3", "6", "6", "1", "to", "4"]
    assert "a/p0/T1.nii: p0 (folder name)" in lines


def test_as_many_people_as_scans_are_odd_where_folders_hold_several_of_them():
    def odd(*rows):
        return overview(scans("d", *((subject, "", sequence, name) for subject, sequence, name in rows)))[
            "odd"
        ]

    # A folder for each person with one scan, below sites or not, whatever the sequence.
    assert odd(*((f"P0{n}", "T1", f"P0{n}/T1.nii") for n in range(5))) == []
    assert odd(*((f"P0{n}", "T1" if n % 2 else "T2", f"x/P0{n}/scan/image.nii") for n in range(5))) == []
    assert odd(*((f"P0{n}", "T1", f"site{n % 2}/P0{n}/T1.nii") for n in range(5))) == []
    # Folders of several scans each, all of other people.
    assert odd(*((f"{n}", "T1", f"{'anna' if n % 2 else 'bert'}/{n}/T1.nii") for n in range(5))) == [
        "d: as many people as scans (5), though 5 are called T1; does each show a different person?",
        "2 folders hold scans of several people each, such as d/anna: 1 and 3; if each folder is a person's, say so "
        "with --subject or --table",
    ]
    assert odd(*((f"x{n}", f"T{1 + n % 2}", f"x{n}.nii") for n in range(5))) == [
        "d: as many people as scans (5), though they are T1, T2; does each show a different person?"
    ]


def test_the_dry_run_begins_with_it(put, run, tmp_path, capfd):
    put("d/P01/visit1/T1", "d/P01/visit2/T1", "d/P02/visit1/T1")
    with pytest.raises(UserError, match="no such folder"):  # nothing was written
        run("d", dry_run=True)
    lines = capfd.readouterr().err.splitlines()
    assert lines[0].startswith("dry run, nothing is written; who was scanned")
    assert lines[1].split() == ["data", "set", "people", "sessions", "scans", "scans", "per", "person"]
    assert lines[2].split() == ["d", "2", "3", "3", "1", "to", "2"]
    assert lines[3].strip() == "d/P01/visit1/T1.nii.gz: P01 (folder name)"


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 36), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize(
    ("names", "people"),
    [
        (["p1/images/000", "p1/images/001", "p2/images/000"], ["p1", "p1", "p2"]),
        (["P01_slice_001", "P01_slice_002", "P02_slice_001"], ["P01", "P01", "P02"]),
        (["anna_01", "anna_02", "bert_01"], ["anna", "anna", "bert"]),
        (["case7-T1-012", "case7-T1-013", "case9-T1-012"], ["case7", "case7", "case9"]),
        (["1/a_003", "1/a_004", "2/a_003"], ["1", "1", "2"]),
        (["TCGA_CS_4941_19960909_1", "TCGA_CS_4941_19960909_2"], ["TCGA_CS_4941", "TCGA_CS_4941"]),
        (["patient1", "patient2"], ["patient1", "patient2"]),
        (["12_003", "12_004", "14_003"], ["12", "12", "14"]),
        (["T1/p1/001", "T2/p1/001", "T1/p2/001"], ["p1", "p1", "p2"]),
    ],
)
def test_whose_pictures_are(names, people, tmp_path):
    from mri_transfer.datasets.volumes.find import find_volumes

    for number, name in enumerate(names):
        picture(tmp_path / "d" / f"{name}.png", number)
    sources = find_volumes([tmp_path / "d"], pictures=True).sources
    subjects = {source.name: source.identity.subject for source in sources}
    assert [subjects[f"d/{name}.png"] for name in names] == people


@pytest.mark.parametrize("separator", ["_", "-", "__", "."])
def test_the_real_volumes_are_285_people_in_folders_and_flat(tmp_path, separator):
    from mri_transfer.datasets.volumes.find import find_volumes

    data = os.environ.get("MRI_TRANSFER_DATA")
    if not data or not (Path(data) / "open").is_dir():
        pytest.skip("MRI_TRANSFER_DATA does not name a folder with volumes/ and open/")
    sources = find_volumes([Path(data) / "volumes", Path(data) / "open"]).sources
    (tmp_path / "flat").mkdir()
    for source in sources:
        dataset = next(
            folder for folder in source.name.split("/")[-2::-1] if not folder.startswith(("sub-", "anat"))
        )
        (tmp_path / "flat" / f"{dataset}{separator}{source.path.name}").symlink_to(source.path)
    flat = find_volumes([tmp_path / "flat"]).sources
    assert len(sources) == len(flat) == 401
    assert len({scan.identity.subject for scan in sources}) == 285
    assert len({scan.identity.subject for scan in flat}) == 285
    sequences = {scan.path.resolve(): scan.identity.sequence for scan in flat}
    names = {scan.path.resolve(): scan.identity.subject for scan in flat}
    for scan in sources:
        assert scan.identity.sequence == sequences[scan.path.resolve()] != "unknown"
        if scan.identity.subject.startswith(("IXI", "TCGA", "ds")):
            assert names[scan.path.resolve()] == scan.identity.subject
