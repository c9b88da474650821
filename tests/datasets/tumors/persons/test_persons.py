"""Known persons are the groups: nobody is parted or mixed, in no fold, and no guess or table changes that."""

import csv
import dataclasses
import functools
import itertools
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mri_transfer.datasets.tumors.copies.duplicates import Pairs
from mri_transfer.datasets.tumors.development import development_images
from mri_transfer.datasets.tumors.persons.group_table import write_groups
from mri_transfer.datasets.tumors.persons.originals import figshare_originals, person_of
from mri_transfer.datasets.tumors.persons.persons import person_groups
from mri_transfer.datasets.tumors.persons.recognised import sentences
from mri_transfer.datasets.tumors.tumors import load_tumors
from mri_transfer.errors import UserError
from mri_transfer.finetune.data.protocol import grouped_splits


def pairs(links):
    first, second = np.array(links, int).reshape(-1, 2).T
    return Pairs(first, second, np.full(len(first), 0.99, np.float32), np.zeros(len(first), int))


def indices(n):
    return st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=30)


@given(
    st.integers(1, 20).flatmap(
        lambda n: st.tuples(
            st.lists(st.sampled_from(["", "", "a", "b", "c"]), min_size=n, max_size=n), indices(n), indices(n)
        )
    )
)
def test_persons_are_groups_and_only_copies_reach_across(case):
    persons, copies, guessed = case
    known = np.array([bool(person) for person in persons])
    groups = person_groups(persons, pairs(copies), np.array(guessed, int), sure=known)
    for i, j in itertools.combinations(range(len(persons)), 2):
        if persons[i] and persons[i] == persons[j]:
            assert groups[i] == groups[j]
        elif persons[i] and persons[j] and not copies:
            assert groups[i] != groups[j]  # no guess joins two persons
    for i, j in copies:
        if not (known[i] and known[j]):
            assert groups[i] == groups[j]
    for i, j in guessed:
        if not known[i] and not known[j]:
            assert groups[i] == groups[j]


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """`load_tumors` at 32 pixels; what was compared before is not compared again."""
    return functools.partial(load_tumors, size=32, cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def loaded(known_set, load):
    return load(known_set[0])


def people(tumors):
    """Persons of the images, by the collection's own table; None where nobody knows."""
    originals = figshare_originals()
    return [person_of(originals.patients[int(name) - 1]) if name else None for name in tumors.known.originals]


def test_every_known_slice_is_recognised(loaded, known_set):
    _, place_of = known_set
    originals = figshare_originals()
    names = dict(zip(loaded.paths, loaded.known.originals, strict=True))
    assert {path: originals.names[place] for path, place in place_of.items()} == {
        p: n for p, n in names.items() if n
    }
    assert loaded.audit["sources"]["bound"] == len(place_of)
    assert loaded.audit["sources"]["unknown"] == len(loaded) - len(place_of)
    assert loaded.audit["source_conflicts"] == []


def test_no_person_in_two_groups_and_no_two_in_one(loaded):
    persons = people(loaded)
    for i, j in itertools.combinations(range(len(persons)), 2):
        if persons[i] and persons[j]:
            assert (persons[i] == persons[j]) == (loaded.groups[i] == loaded.groups[j])
    assert (
        len({patient for patient in loaded.known.patients if patient}) > len(set(persons)) - 1
    )  # several visits


def test_no_person_is_on_both_sides_of_any_split(loaded):
    persons = np.array([person or "" for person in people(loaded)])
    splits = list(
        grouped_splits(loaded.labels, loaded.groups, folds=5, seeds=range(5), fractions=(0.1, 0.5, 1.0))
    )
    assert len(splits) == 75
    for split in splits:
        assert not (set(persons[split.train]) & set(persons[split.test])) - {""}
    development = development_images(loaded)
    assert development.any()
    assert not (set(persons[development]) & set(persons[~development])) - {""}


def test_a_new_upload_of_the_set_is_grouped_the_same(loaded, known_set, tmp_path, load):
    """Renamed, resized to 224, saved as JPEG of quality 60, mirrored, and split anew."""
    folder, _ = known_set
    random, old = np.random.default_rng(1), {}
    for number, (path, label) in enumerate(zip(loaded.paths, loaded.labels, strict=True)):
        name = f"{random.choice(['train', 'test'])}/{loaded.classes[label]}/{number:05d}.jpg"
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture = Image.open(folder / path).convert("L").resize((224, 224), Image.Resampling.BILINEAR)
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / name, quality=60)
        old[name] = path
    reloaded = load(tmp_path)
    first = {path: n for n, path in enumerate(loaded.paths)}
    before = np.array([first[old[path]] for path in reloaded.paths])
    assert reloaded.known.originals == tuple(loaded.known.originals[n] for n in before)
    bound = reloaded.known.bound
    old_groups = loaded.groups[before][bound]
    assert np.array_equal(
        reloaded.groups[bound][:, None] == reloaded.groups[bound], old_groups[:, None] == old_groups
    )
    assert np.array_equal(development_images(reloaded)[bound], development_images(loaded)[before][bound])


@pytest.fixture
def misfiled(known_set, tmp_path):
    """A copy of the set in which two pictures of one meningioma, one a mirrored copy, lie among the pituitary ones."""
    folder, place_of = known_set
    shutil.copytree(folder, tmp_path / "set")
    name = next(
        n
        for n, place in place_of.items()
        if figshare_originals().labels[place] == "meningioma" and "Train" in n
    )
    wrong = tmp_path / "set/Training/pituitary_tumor/wrong.png"
    shutil.move(tmp_path / "set" / name, wrong)
    copy = tmp_path / "set/Testing/pituitary_tumor/wrong too.png"
    Image.open(wrong).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(copy)
    return tmp_path / "set"


def test_the_source_corrects_labels_unless_the_folders_are_asked_for(misfiled, load):
    believed = load(misfiled)
    conflicts = believed.audit["source_conflicts"]
    assert sorted(conflict["file"] for conflict in conflicts) == [
        "Testing/pituitary_tumor/wrong too.png",
        "Training/pituitary_tumor/wrong.png",
    ]
    assert {(c["label"], c["source_label"]) for c in conflicts} == {("pituitary_tumor", "meningioma_tumor")}
    rows = [believed.paths.index(conflict["file"]) for conflict in conflicts]
    names = np.array(believed.classes)
    assert set(names[believed.labels[rows]]) == {"meningioma_tumor"}
    assert set(names[believed.folder_labels[rows]]) == {"pituitary_tumor"}
    assert believed.audit["labels"] == {"from": "source", "changed": 2}
    # The published split is what others scored: the folders' labels.
    place = [str(file.path) for file in believed.files if file.split == "Testing"].index(
        "Testing/pituitary_tumor/wrong too.png"
    )
    assert names[believed.published_labels[place]] == "pituitary_tumor"

    plain = load(misfiled, labels_from="folder")
    assert np.array_equal(plain.labels, plain.folder_labels)
    assert np.array_equal(plain.folder_labels, believed.folder_labels)
    assert plain.audit["labels"] == {"from": "folder", "changed": 0}
    assert plain.fingerprint != believed.fingerprint


def table_of(path, tumors, **columns):
    """Write groups.csv with some columns replaced by lists of values."""
    write_groups(path, tumors)
    rows = list(csv.DictReader(path.open(encoding="utf-8", newline="")))
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_table_of_guesses_does_not_undo_what_is_known(loaded, known_set, tmp_path, load):
    """Groups that cut through persons and chain them, as the tables of earlier versions did, change no person."""
    folder, _ = known_set
    nothing = [""] * len(loaded)
    groups = (np.arange(len(loaded)) // 3).tolist()
    path = table_of(tmp_path / "old.csv", loaded, group=groups, person=nothing, patient=nothing)
    tumors = load(folder, groups_from=path)
    bound = tumors.known.bound
    assert np.array_equal(
        tumors.groups[bound][:, None] == tumors.groups[bound],
        loaded.groups[bound][:, None] == loaded.groups[bound],
    )
    unknown = np.flatnonzero(~bound)
    for i, j in itertools.combinations(unknown.tolist(), 2):
        if i // 3 == j // 3:
            assert tumors.groups[i] == tumors.groups[j]


def test_a_table_comes_back_as_it_was_written(loaded, known_set, tmp_path, load):
    path = table_of(tmp_path / "groups.csv", loaded)
    assert load(known_set[0], groups_from=path).fingerprint == loaded.fingerprint


def test_persons_of_a_table_are_joined_over_visits(loaded, known_set, tmp_path, load):
    heads = np.flatnonzero(~loaded.known.bound)
    patients = [f"P{image // 2}{'AB'[image % 2]}" for image in range(len(loaded))]
    chosen = [patient if image in heads else "" for image, patient in enumerate(patients)]
    path = table_of(tmp_path / "groups.csv", loaded, patient=chosen, person=[""] * len(loaded))
    tumors = load(known_set[0], groups_from=path)
    for i, j in itertools.pairwise(heads.tolist()):
        if i // 2 == j // 2:
            assert tumors.groups[i] == tumors.groups[j]
    assert tumors.persons[int(heads[0])] == f"P{heads[0] // 2}"


def test_a_table_that_chains_a_class_is_refused_unless_forced(loaded, known_set, tmp_path, load):
    heads = np.flatnonzero(~loaded.known.bound)
    groups = ["chain" if n in heads[: len(heads) // 2] else f"g{n}" for n in range(len(loaded))]
    path = table_of(tmp_path / "chain.csv", loaded, group=groups)
    with pytest.raises(
        UserError, match=r"chain\.csv: one group holds \d+ of the \d+ images of no_tumor.*--force-groups"
    ):
        load(known_set[0], groups_from=path)
    forced = load(known_set[0], groups_from=path, force_groups=True)
    assert len(set(forced.groups[heads[: len(heads) // 2]])) == 1


def test_contradictions_within_a_table_are_told(loaded, known_set, tmp_path, load):
    path = table_of(tmp_path / "twice.csv", loaded)
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text(
        "\n".join([*lines, lines[1]]) + "\n", encoding="utf-8"
    )  # the same again is no contradiction
    load(known_set[0], groups_from=path)
    name = lines[1].split(",")[0]
    path.write_text("\n".join([*lines, f"{name},,,elsewhere,,,,,"]) + "\n", encoding="utf-8")
    with pytest.raises(
        UserError, match=rf"twice\.csv: line {len(lines) + 1} contradicts an earlier line about "
    ):
        load(known_set[0], groups_from=path)


@pytest.mark.parametrize(
    ("delimiter", "encoding"), [(",", "utf-8-sig"), (";", "cp1252"), ("\t", "utf-16"), (";", "utf-8")]
)
def test_tables_may_be_saved_by_any_spreadsheet(loaded, known_set, tmp_path, load, delimiter, encoding):
    path = table_of(tmp_path / "groups.csv", loaded)
    rows = list(csv.reader(path.open(encoding="utf-8", newline="")))
    rows[0] = [name.title() for name in rows[0]]
    for row in rows[1:]:
        row[0] = ".\\" + row[0].replace("/", "\\")
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    tumors = load(known_set[0], groups_from=path)
    assert tumors.fingerprint == loaded.fingerprint
    assert not any("are inferred" in line for line in sentences(tumors.audit))


def test_a_table_may_name_persons_only(loaded, known_set, tmp_path, load):
    path = tmp_path / "persons.csv"
    persons = [person or f"own {n}" for n, person in enumerate(loaded.persons)]
    path.write_text(
        "file,person\n" + "".join(f"{n},{p}\n" for n, p in zip(loaded.paths, persons, strict=True)),
        encoding="utf-8",
    )
    tumors = load(known_set[0], groups_from=path)
    assert tumors.persons == tuple(persons)
    unknown = tumors.audit["sources"]["unknown"]
    assert tumors.audit["sources"]["unknown_with_person"] == unknown > 0
    assert any(f"names the person on {unknown} of them" in line for line in sentences(tumors.audit))


def test_a_table_of_other_names_is_told_by_example(loaded, known_set, tmp_path, load):
    path = tmp_path / "elsewhere.csv"
    path.write_text("file,group\n/home/me/a.png,1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"no group to any image; it calls the first '/home/me/a.png'"):
        load(known_set[0], groups_from=path)


def test_other_class_names_take_no_label_from_the_source(known_set, tmp_path, load):
    folder, _ = known_set
    shutil.copytree(folder, tmp_path / "set")
    for split in ("Training", "Testing"):
        for number, name in enumerate(("glioma", "meningioma", "pituitary")):
            (tmp_path / "set" / split / f"{name}_tumor").rename(tmp_path / "set" / split / f"kind{number}")
    tumors = load(tmp_path / "set")
    assert tumors.audit["labels"]["changed"] == 0
    assert tumors.audit["source_conflicts"] == []
    assert tumors.known.bound.sum() > 100


def test_a_cropped_copy_is_of_the_person_of_its_original(known_set, tmp_path, load):
    folder, place_of = known_set
    shutil.copytree(folder, tmp_path / "set")
    name, place = next(item for item in place_of.items() if "Training" in item[0])
    picture = Image.open(folder / name)
    copy = tmp_path / "set/Testing" / name.split("/")[1] / "cropped.png"
    picture.crop((20, 22, 170, 176)).save(copy)
    tumors = load(tmp_path / "set")
    rows = {path: n for n, path in enumerate(tumors.paths)}
    first, second = rows[name], rows[copy.relative_to(tmp_path / "set").as_posix()]
    assert tumors.groups[first] == tumors.groups[second]
    assert tumors.persons[first] == tumors.persons[second] == person_of(figshare_originals().patients[place])


@pytest.mark.slow
def test_real_pictures_of_the_public_set(real_data, tmp_path):
    tumors = load_tumors(real_data / "tumors", 64, cache=tmp_path)
    with (real_data / "tumor-sources/patients.csv").open(newline="") as file:
        truth = {row["file"]: row for row in csv.DictReader(file)}
    for path, original, person in zip(tumors.paths, tumors.known.originals, tumors.persons, strict=True):
        assert original == truth[path]["figshare_number"]
        assert person == truth[path]["family"]
    with (real_data / "tumor-sources/label_conflicts.csv").open(newline="") as file:
        wrong = {row["file"] for row in csv.DictReader(file)}
    assert {conflict["file"] for conflict in tumors.audit["source_conflicts"]} == wrong
    sources = tumors.audit["sources"]
    assert sources["persons_in_several_groups"] == sources["groups_of_several_persons"] == 0
    assert tumors.audit["groups"]["largest"][0] < 100
    persons, development = np.array(tumors.persons), development_images(tumors)
    assert not (set(persons[development]) & set(persons[~development])) - {""}
    for split in grouped_splits(tumors.labels, tumors.groups, folds=5, seeds=range(5)):
        assert not (set(persons[split.train]) & set(persons[split.test])) - {""}


def test_tumor_sets_can_be_replaced_in_part(loaded):
    """What programs do that try other groups."""
    assert dataclasses.replace(loaded, groups=loaded.groups // 2).fingerprint != loaded.fingerprint
