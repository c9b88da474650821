"""Persons come out as they are, in trees of every kind: those people have, and those nobody has."""

from __future__ import annotations

import csv
import os
import random
from collections import defaultdict
from pathlib import Path, PurePosixPath

import pytest

from mri_transfer.datasets.volumes.naming import stem_of
from mri_transfer.datasets.volumes.people.decide import decide
from mri_transfer.datasets.volumes.people.evidence import File
from tests.datasets.volumes.people.made_up import make
from tests.datasets.volumes.people.trees import kinds, mixed_up, whose


@pytest.mark.parametrize("case", kinds())
def test_kinds_of_trees(case):
    rows = kinds()[case]
    assert mixed_up([person for person, _ in rows], whose([path for _, path in rows])) == {}


@pytest.mark.parametrize("case", kinds())
def test_the_order_of_files_does_not_matter(case):
    rows = kinds()[case]
    random.Random(case).shuffle(rows)
    persons = whose([path for _, path in rows])
    assert mixed_up([person for person, _ in rows], persons) == {}
    subjects = {path: person.subject for (_, path), person in zip(rows, persons, strict=True)}
    first = kinds()[case]
    assert [person.subject for person in whose([path for _, path in first])] == [
        subjects[path] for _, path in first
    ]


def test_trees_that_nobody_has():
    wrong = {}
    for number in range(1200):
        tree = make(number)
        persons = decide([File(("d", *path.split("/")), "/data/d") for path in tree.paths])
        if mistakes := mixed_up(tree.people, persons):
            wrong[number] = (tree.about, tree.paths[:4], mistakes)
    assert wrong == {}


@pytest.mark.slow
def test_many_more_trees_that_nobody_has():
    wrong = []
    for number in range(10_000, 30_000):
        tree = make(number)
        persons = decide([File(("d", *path.split("/")), "/data/d") for path in tree.paths])
        if mixed_up(tree.people, persons):
            wrong.append(number)
    assert wrong == []


def collections() -> dict[str, list[dict[str, str]]]:
    """The trees of `cases/collections.tsv` beside the folder that MRI_TRANSFER_DATA names."""
    folder = os.environ.get("MRI_TRANSFER_DATA")
    table = Path(folder or "").parent / "cases" / "collections.tsv"
    if not folder or not table.is_file():
        pytest.skip("beside the folder that MRI_TRANSFER_DATA names there is no cases/collections.tsv")
    cases: dict[str, list[dict[str, str]]] = defaultdict(list)
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if row["fate"] == "used":
                cases[row["case"]].append(row)
    return cases


def test_collections_come_out_as_they_say():
    for case, rows in collections().items():
        files, people = [], []
        for row in rows:
            path = PurePosixPath(row["path"].split(" (")[0])
            is_folder = path.name == "*.dcm"
            # Where the ID is real, it is the first part of the path.
            patient = path.parts[0] if row["person"] == "PatientID" else ""
            parts = path.parts[:-1] if is_folder else (*path.parts[:-1], stem_of(path.name))
            files.append(
                File(
                    ("d", *parts), "/data/d", patient=patient, picture="--images" in case, is_folder=is_folder
                )
            )
            people.append(patient or row["person"])
        persons = decide(files)
        assert mixed_up(people, persons) == {}, case
        for row, person in zip(rows, persons, strict=True):
            if not is_folder:
                assert person.sequence in row["sequence"].split(" or "), (case, row["path"])
            if "any name" not in row["person"] and row["person"] != "PatientID":
                assert person.subject == row["person"], case
