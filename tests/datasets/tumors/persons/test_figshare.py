"""Figshare's originals, written as MATLAB v7.3 writes them, and images that were made from them."""

import os
import shutil

import h5py
import numpy as np
import pytest
from PIL import Image

from mri_transfer.datasets.image_files import read_grey
from mri_transfer.datasets.synthetic.generate import write_tumors
from mri_transfer.datasets.tumors.images import list_images
from mri_transfer.datasets.tumors.persons.binding import bind, fine, signatures
from mri_transfer.datasets.tumors.persons.figshare import LABELS, read_figshare
from mri_transfer.errors import UserError

TUMOURS = {"meningioma_tumor": 1, "glioma_tumor": 2, "pituitary_tumor": 3}


def write_mat(path, image, label, patient):
    """One slice as in Figshare 1512427: a block of 512 bytes, then HDF5; arrays by columns."""
    with h5py.File(path, "w", userblock_size=512) as file:
        record = file.create_group("cjdata")
        record.attrs["MATLAB_class"] = np.bytes_("struct")
        fields = {
            "PID": (np.array([[ord(letter)] for letter in patient], np.uint16), "char"),
            "image": (image.T.astype(np.int16) * 11 + 3, "int16"),
            "label": (np.array([[label]], np.float64), "double"),
            "tumorBorder": (np.array([[120.5, 90.0, 110.25, 95.5]]), "double"),
            "tumorMask": ((image.T > 100).astype(np.uint8), "logical"),
        }
        for name, (values, kind) in fields.items():
            options = {"compression": "gzip"} if values.size > 4096 else {}
            record.create_dataset(name, data=values, **options).attrs["MATLAB_class"] = np.bytes_(kind)
    with path.open("r+b") as file:
        text = (
            b"MATLAB 7.3 MAT-file, Platform: PCWIN64, Created on: Sun Mar 15 10:27:34 2015 HDF5 schema 1.00 ."
        )
        file.write(text.ljust(124) + b"\x00\x02IM")


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    """(image, label, patient) of generated heads: runs of neighbouring slices, three to a patient."""
    folder = tmp_path_factory.mktemp("heads")
    write_tumors(folder, per_class=12, seed=8)
    files, classes = list_images(folder)
    return [
        (read_grey(folder / file.path), TUMOURS[classes[file.label]], f"{1000 + number // 3}MR{file.label}")
        for number, file in enumerate(files)
        if file.split == "Training" and classes[file.label] in TUMOURS
    ]


@pytest.fixture
def originals(slices, tmp_path):
    folder = tmp_path / "figshare" / "brainTumorDataPublic_1-766"
    folder.mkdir(parents=True)
    for number, (image, label, patient) in enumerate(slices, start=1):
        write_mat(folder / f"{number}.mat", image, label, patient)
    with h5py.File(tmp_path / "figshare" / "cvind.mat", "w", userblock_size=512) as file:
        file["cvind"] = np.ones((1, 3064))
    return tmp_path / "figshare"


def test_every_slice_is_read_with_patient_and_label(originals, slices):
    collection, skipped = read_figshare(originals)
    assert len(collection) == len(slices)
    assert skipped == []
    expected = {f"brainTumorDataPublic_1-766/{n}.mat": entry for n, entry in enumerate(slices, start=1)}
    for name, patient, label, small in zip(
        collection.names, collection.patients, collection.labels, collection.signatures, strict=True
    ):
        image, its_label, its_patient = expected[name]
        assert (patient, label) == (its_patient, LABELS[its_label])
        low, high = float(image.min()), float(image.max())
        whole = signatures(fine(np.round((image - low) * (255 / (high - low))).astype(np.uint8))[None])[0]
        assert np.abs(small.astype(int) - whole).max() <= 2  # upright, not transposed


def test_resized_recompressed_and_turned_copies_find_their_patients(originals, slices, tmp_path):
    collection, _ = read_figshare(originals)
    pictures, patients = [], []
    for number, (image, _, patient) in enumerate(slices):
        height, width = image.shape
        copy = Image.fromarray(np.rot90(image, number % 4)).resize((width * 3 // 4, height * 3 // 4))
        copy.save(tmp_path / "copy.jpg", quality=60)
        pictures.append(fine(read_grey(tmp_path / "copy.jpg")))
        patients.append(patient)
    pictures.append(fine(np.random.default_rng(0).integers(0, 255, (200, 200), dtype=np.uint8)))
    binding = bind(np.stack(pictures), collection)
    answers = [collection.patients[place] if place >= 0 else None for place in binding.original]
    assert np.mean([ours == theirs for ours, theirs in zip(answers[:-1], patients, strict=True)]) >= 0.95
    assert answers[-1] is None


def damaged(path, how):
    content = path.read_bytes()
    if how == "pipe":
        path.unlink()
        os.mkfifo(path)
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("not found")
    elif how == "old MATLAB":
        import scipy.io

        scipy.io.savemat(path, {"cjdata": {"label": 1}})
    elif how.startswith("cut"):
        path.write_bytes(content[: len(content) * int(how[4:]) // 100])
    else:
        with h5py.File(path, "r+") as file:
            record = file["cjdata"]
            if how == "no PID":
                del record["PID"]
            elif how == "label 7":
                record["label"][...] = 7
            elif how == "label NaN":
                record["label"][...] = np.nan
            elif how == "flat":
                record["image"][...] = 5
            elif how == "PID of zeros":
                record["PID"][...] = 0
            elif how == "no cjdata":
                file.move("cjdata", "other")
            elif how == "cjdata elsewhere":
                del file["cjdata"]
                file["cjdata"] = h5py.ExternalLink("2.mat", "/cjdata")
            else:
                del record["image"]
                if how == "huge":
                    record.create_dataset("image", (1 << 30, 1 << 30), np.int16, chunks=(64, 64))
                elif how == "text image":
                    record["image"] = np.bytes_("pixels")
                elif how == "three axes":
                    record["image"] = np.ones((8, 8, 8))
                elif how == "group image":
                    record.create_group("image")
                elif how == "elsewhere":
                    record["image"] = h5py.ExternalLink("2.mat", "/cjdata/image")
                elif how == "external data":
                    record.create_dataset(
                        "image", (64, 64), np.int16, external=[(str(path.with_name("2.mat")), 0, 8192)]
                    )


@pytest.mark.parametrize(
    "how",
    [
        "empty",
        "pipe",
        "text",
        "old MATLAB",
        "cut 1",
        "cut 20",
        "cut 60",
        "cut 95",
        "no PID",
        "PID of zeros",
        "label 7",
        "label NaN",
        "flat",
        "no cjdata",
        "cjdata elsewhere",
        "huge",
        "text image",
        "three axes",
        "group image",
        "elsewhere",
        "external data",
    ],
)
def test_a_damaged_file_is_skipped_and_listed_and_the_rest_is_read(slices, tmp_path, how):
    for number in (1, 2):
        write_mat(tmp_path / f"{number}.mat", *slices[number])
    damaged(tmp_path / "1.mat", how)
    collection, skipped = read_figshare(tmp_path)
    assert collection.names == ("2.mat",)
    assert [entry["file"] for entry in skipped] == ["1.mat"]
    assert skipped[0]["reason"]
    assert "\n" not in skipped[0]["reason"]


def test_folders_without_originals_are_one_clear_line(slices, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        read_figshare(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"holds no \.mat files; name the folder"):
        read_figshare(tmp_path)
    shutil.make_archive(str(tmp_path / "brainTumorDataPublic_1-766"), "zip", tmp_path)
    with pytest.raises(UserError, match="unpack its zip files"):
        read_figshare(tmp_path)
    (tmp_path / "1.mat").write_text("broken")
    with pytest.raises(UserError, match=r"1\.mat: .*download them again"):
        read_figshare(tmp_path)


def test_the_originals_themselves_change_nothing(known_set, draw_slice, tmp_path):
    """Who has them learns what the package knew without them."""
    from mri_transfer.datasets.tumors.persons.originals import figshare_originals
    from mri_transfer.datasets.tumors.tumors import load_tumors

    folder, place_of = known_set
    collection = figshare_originals()
    number = {label: n for n, label in LABELS.items()}
    for place in place_of.values():
        write_mat(
            tmp_path / f"{collection.names[place]}.mat",
            draw_slice(place),
            number[collection.labels[place]],
            collection.patients[place],
        )
    originals, skipped = read_figshare(tmp_path)
    assert skipped == []
    without = load_tumors(folder, 32, cache=tmp_path / "cache")
    tumors = load_tumors(folder, 32, cache=tmp_path / "cache", originals=[originals])
    assert np.array_equal(tumors.groups, without.groups)
    assert (tumors.persons, tumors.known.patients) == (without.persons, without.known.patients)
