"""External folders: cleaned against the training images, tested by every model, never trained on."""

import dataclasses
import html
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score

from mri_transfer.datasets.tumors.copies.threshold import TONES, copied
from mri_transfer.datasets.tumors.tumors import load_tumors
from mri_transfer.errors import UserError
from mri_transfer.finetune.compare import compare
from mri_transfer.finetune.config import CompareConfig
from mri_transfer.finetune.data.external import cautions, load_externals


@pytest.fixture(scope="module")
def home(write_patients, tmp_path_factory):
    return write_patients(tmp_path_factory.mktemp("home") / "set", patients=24, signal=0.3)


@pytest.fixture(scope="module")
def away(write_patients, home, tmp_path_factory):
    """Flat class folders: 8 patients of another place, four byte copies and four altered ones of training images."""
    folder = tmp_path_factory.mktemp("away") / "elsewhere"
    nested = write_patients(folder.parent / "nested", patients=16, images=2, seed=7, signal=0.3)
    for path in nested.glob("*/*/*.png"):
        place = folder / path.parent.name
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place / f"{path.parent.parent.name} {path.name}")
    rng = np.random.default_rng(0)
    for number, path in enumerate(sorted(home.glob("Training/*/*.png"))[:40:5]):
        place = folder / path.parent.name / f"copy {number}.png"
        if number % 2:
            Image.fromarray(copied(np.asarray(Image.open(path)), rng)).save(place)
        else:
            shutil.copy(path, place)
    return folder


@pytest.fixture(scope="module")
def tumors(home):
    return load_tumors(home, 48)


def test_copies_of_training_images_are_dropped_and_counted(tumors, away, tmp_path):
    (external,) = load_externals([away], tumors, 48, cache=tmp_path)
    assert external.name == "elsewhere"
    assert (external.about["dropped_identical"], external.about["dropped_near_duplicates"]) == (4, 4)
    assert external.about["images"] == len(external) == 32
    assert sum(external.about["images_by_class"].values()) == 32
    (second,) = load_externals([away], tumors, 48, cache=tmp_path)
    assert second.fingerprint == external.fingerprint


def test_labels_follow_the_names_of_classes(tumors, away, tmp_path):
    """A folder that lacks the first class has other numbers for the rest."""
    folder = tmp_path / "part"
    for name in "cd":
        shutil.copytree(away / name, folder / name)
    (external,) = load_externals([folder], tumors, 48, cache=tmp_path)
    assert set(external.labels.tolist()) == {2, 3}
    assert external.about["images_by_class"]["a"] == 0


def renamed(away, folder, names):
    for ours, theirs in zip("abcd", names, strict=True):
        shutil.copytree(away / ours, folder / theirs)
    return folder


def test_names_of_classes_are_understood_or_said(tumors, away, tmp_path, capsys):
    ours = dataclasses.replace(
        tumors, classes=("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")
    )
    folder = renamed(away, tmp_path / "names", ("Glioma", "meningioma-tumour", "notumor", "Adenoma"))
    with pytest.raises(UserError, match=r"class Adenoma is not one of .*--class-map 'Adenoma=NAME'"):
        load_externals([folder], ours, 48, cache=tmp_path)
    class_map = {"adenoma": "pituitary_tumor"}
    (external,) = load_externals([folder], ours, 48, cache=tmp_path, class_map=class_map)
    (same,) = load_externals([away], tumors, 48, cache=tmp_path)
    order = ("Glioma", "meningioma-tumour", "notumor", "Adenoma")
    assert external.about["classes"] == dict(
        zip(sorted(order), (ours.classes[n] for n in (3, 0, 1, 2)), strict=True)
    )
    assert np.bincount(external.labels).tolist() == np.bincount(same.labels).tolist()
    assert "Adenoma = pituitary_tumor" in capsys.readouterr().err
    (subset,) = load_externals([folder], ours, 48, cache=tmp_path, class_map={"Adenoma": ""})
    assert set(subset.labels.tolist()) == {0, 1, 2}
    assert subset.about["dropped_classes"] == len(list((away / "d").iterdir()))


def test_figures_on_few_images_come_with_a_caution():
    assert cautions({"a": 30, "b": 400}, 0.049) == []
    (few,) = cautions({"a": 29, "b": 4, "c": 30}, 0)
    assert few.startswith("Only 29 of a and 4 of b:")
    missing, borrowed = cautions({"a": 0, "b": 300}, 0.1)
    assert missing.startswith("No image of a:")
    assert borrowed.startswith("10% of the folder is also among the training images.")


def test_copies_in_other_tones_are_dropped(tumors, home, away, tmp_path):
    folder = tmp_path / "toned"
    shutil.copytree(away, folder)
    rng = np.random.default_rng(0)
    for number, path in enumerate(sorted(home.glob("Training/*/*.png"))[:40:4]):
        place = folder / path.parent.name / f"toned {path.name}"
        list(TONES.values())[number % len(TONES)](Image.open(path), rng).save(place)
    (external,) = load_externals([folder], tumors, 48, cache=tmp_path)
    assert external.about["dropped_near_duplicates"] == 4 + 10
    assert external.about["images"] == 32


@pytest.mark.parametrize("case", ["unknown class", "nothing left", "same name"])
def test_bad_folders_are_one_line(tumors, home, away, tmp_path, case):
    folder = tmp_path / "bad"
    if case == "unknown class":
        shutil.copytree(away / "a", folder / "a")
        shutil.copytree(away / "b", folder / "sarcoma")
        message = r"--external .*bad: class sarcoma is not one of a, b, c, d; say which by --class-map"
    elif case == "nothing left":
        shutil.copytree(home / "Testing", folder)
        message = "all of its images are also training images"
    else:
        shutil.copytree(away, folder)
        shutil.copytree(away, tmp_path / "x" / "bad")
        message = "is called bad too"
    with pytest.raises(UserError, match=message):
        load_externals(
            [folder, tmp_path / "x" / "bad"][: 1 + (case == "same name")], tumors, 48, cache=tmp_path
        )


@pytest.mark.slow
def test_every_model_on_all_labels_is_tested(home, away, tmp_path):
    config = CompareConfig(
        tumors=home,
        out=tmp_path / "out",
        arm=("pixels", "figures"),
        mode="probe,nearest",
        size=48,
        folds=2,
        seeds=2,
        fractions=(0.5, 1.0),
        draws=100,
        workers=1,
    )
    before = compare(config)
    assert before["external"] == []
    summary = compare(CompareConfig(**{**config.__dict__, "external": (away,)}))
    # Trials on half of the labels are as they were; those on all labels are done again, for the new folder.
    assert summary["trials"] == 2 * 2 * (2 * 2 * 2 + 2)
    assert summary["trials_done_before"] == summary["trials"] - 2 * 2 * 4
    assert summary["results"] == before["results"]
    (totals,) = summary["external"]
    assert (totals["dropped_identical"], totals["dropped_near_duplicates"]) == (4, 4)
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    (other,) = report["external"]
    assert other["models"] == 4
    # The same from the trials' files.
    labels = np.array([0, 1, 2, 3]).repeat([other["images_by_class"][name] for name in "abcd"])
    for entry in other["results"]:
        answers = [
            np.load(path)["probabilities"].argmax(-1)
            for path in (tmp_path / "out" / "trials").glob(f"{entry['mode']}-grouped-1.0-*.npz")
            if '"external"' in (identity := str(np.load(path)["identity"]))
            and ('"' + entry["arm"] + "-") in identity
        ]
        assert len(answers) == 4
        expected = np.mean([f1_score(labels, guess, average="macro") for guess in answers])
        assert entry["macro_f1"]["estimate"] == pytest.approx(expected)
        assert entry["macro_f1"]["low"] < entry["macro_f1"]["estimate"] < entry["macro_f1"]["high"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Other folders of images" in page
    assert "Images of other places" not in page
    assert "(8 a, 8 b, 8 c, 8 d)" in page
    for line in other["caution"]:
        assert line in html.unescape(page)
    assert totals["caution"] == other["caution"]


def test_other_pictures_of_persons_in_training_are_left_out(known_set, draw_slice, tmp_path):
    """A slice that is not among the training images, of a person who is, tests nothing either."""
    from PIL import Image

    from mri_transfer.datasets.tumors.persons.originals import figshare_originals, person_of

    folder, place_of = known_set
    originals, cache = figshare_originals(), tmp_path / "cache"
    people = {person_of(originals.patients[place]) for place in place_of.values()}
    siblings = [n for n, patient in enumerate(originals.patients) if person_of(patient) in people]
    others = [n for n, patient in enumerate(originals.patients) if person_of(patient) not in people]
    new = [n for n in siblings if n not in place_of.values()][:20]
    for place in new + others[:: len(others) // 30]:
        path = tmp_path / "away" / originals.labels[place] / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_slice(place)).save(path)
    home = load_tumors(folder, 32, cache=cache)
    (external,) = load_externals([tmp_path / "away"], home, 32, cache=cache)
    dropped = {key: value for key, value in external.about.items() if key.startswith("dropped")}
    assert sum(dropped.values()) + len(external) == 20 + len(others[:: len(others) // 30])
    assert dropped["dropped_persons"] + dropped["dropped_near_duplicates"] == 20
    assert dropped["dropped_persons"] > 0
