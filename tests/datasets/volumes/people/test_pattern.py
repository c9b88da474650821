"""Where the user says the person stands."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from mri_transfer.datasets.volumes.find import find_volumes
from mri_transfer.datasets.volumes.naming import stem_of
from mri_transfer.datasets.volumes.people.pattern import subject_pattern, ways_to_write
from mri_transfer.errors import UserError


def read(pattern: str, path: str) -> dict[str, str]:
    name = PurePosixPath("given", path)
    return dict(subject_pattern(pattern).match(ways_to_write(name, stem_of(name.name), False)))


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("{subject}/*/T1", "anna/v1/T1.nii.gz", {"subject": "anna"}),
        ("{subject}/*/T1", "anna/v1/T1.nii", {"subject": "anna"}),
        ("{subject}/*/T1", "anna/T1.nii", {}),
        ("{subject}/*/T1", "anna/v1/x/T1.nii", {}),
        ("{subject}/**", "anna/v1/x/T1.nii", {"subject": "anna"}),
        ("**/{subject}/T1", "anna/T1.nii", {"subject": "anna"}),
        ("**/{subject}/T1", "a/b/anna/T1.nii", {"subject": "anna"}),
        ("{subject}_*", "anna_T1_brain.nii", {"subject": "anna"}),
        ("{subject}_{sequence}", "anna_T2.nii", {"subject": "anna", "sequence": "T2"}),
        (
            "{dataset}/{session}/p{subject}.nii.gz",
            "A/2/p7.nii.gz",
            {"dataset": "A", "session": "2", "subject": "7"},
        ),
        ("{subject}/{subject}_T1", "x/x_T1.nii", {"subject": "x"}),
        ("{subject}/{subject}_T1", "x/y_T1.nii", {}),
        ("given/{subject}", "p.nii", {}),
        ("a+(b).{subject}", "a+(b).p.nii", {"subject": "p"}),
        ("s?{subject}", "s-1.nii", {"subject": "1"}),
    ],
)
def test_what_a_pattern_reads(pattern, path, expected):
    assert read(pattern, path) == expected


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("*/T1", "where the person stands"),
        ("{person}/T1", "{person} is not a known field"),
        ("{subject", "{ is not part of a field"),
    ],
)
def test_patterns_that_say_nothing(pattern, words):
    with pytest.raises(ValueError, match=words):
        subject_pattern(pattern)


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def identities(inventory):
    return [
        (source.identity.subject, source.identity.session, source.identity.sequence)
        for source in inventory.sources
    ]


def test_a_pattern_wins_over_everything_but_a_table(tmp_path):
    touch(
        tmp_path / "d",
        "2019/one/sub-01_T1w.nii",
        "2020/one/sub-02_T2w.nii",
        "2020/two/IXI013_T1.nii",
        "x.nii",
    )
    pattern = subject_pattern("{session}/{subject}/*")
    inventory = find_volumes([tmp_path / "d"], subject=pattern)
    assert identities(inventory)[1:] == [("one", "2019", "T1"), ("one", "2020", "T2"), ("two", "2020", "T1")]
    (remark,) = inventory.remarks
    assert remark.startswith("--subject {session}/{subject}/* doesn't match 1 of 4 paths (such as d/x.nii);")
    table = tmp_path / "t.csv"
    table.write_text("file,subject\nIXI013_T1.nii,three\n")
    inventory = find_volumes([tmp_path / "d"], table, subject=pattern)
    assert [source.identity.how for source in inventory.sources][1:] == [
        "by --subject",
        "by --subject",
        "by --table",
    ]
    assert inventory.sources[3].identity.subject == "three"


def test_a_pattern_that_matches_nothing_says_so(tmp_path):
    touch(tmp_path / "d", "a/b/T1.nii")
    with pytest.raises(UserError, match=r"matches none of the 1 paths, such as a/b/T1.nii; \* is one level"):
        find_volumes([tmp_path / "d"], subject=subject_pattern("{subject}/T1"))


def test_the_same_id_below_two_given_folders_is_two_people(tmp_path):
    touch(tmp_path / "a", "1/T1.nii")
    touch(tmp_path / "b", "1/T1.nii")
    inventory = find_volumes([tmp_path / "a", tmp_path / "b"], subject=subject_pattern("{subject}/T1"))
    assert len({source.identity.subject for source in inventory.sources}) == 2
