"""Pictures are recognised as slices of a known collection, however they were altered; nothing else is."""

import io

import numpy as np
import pytest
from PIL import Image

from mri_transfer.datasets.image_files import read_grey
from mri_transfer.datasets.synthetic.generate import write_tumors
from mri_transfer.datasets.tumors.images import list_images
from mri_transfer.datasets.tumors.persons.binding import bind, fine
from mri_transfer.datasets.tumors.persons.originals import SIDE, Originals, figshare_originals, person_of

EVERY = 61  # of the known slices; a prime, so that persons, planes and visits vary


def jpeg(image, side, quality):
    buffer = io.BytesIO()
    Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR).save(
        buffer, "JPEG", quality=quality
    )
    return np.asarray(Image.open(buffer))


def stretched(image):
    low, high = np.percentile(image, [2, 98])
    return np.clip((image - low) * 255 / max(1, high - low), 0, 255).astype(np.uint8)


ALTERED = {
    "as it is": lambda image: image,
    "shrunk and compressed": lambda image: jpeg(image, 150, 50),
    "mirrored": lambda image: jpeg(image, 224, 60)[:, ::-1],
    "turned": lambda image: np.rot90(image),
    "mirrored and turned": lambda image: np.rot90(image[:, ::-1], 3),
    "inverted": lambda image: 255 - image,
    "darker": lambda image: (255 * (image / 255) ** 1.8).astype(np.uint8),
    "brighter": lambda image: (255 * (image / 255) ** 0.6).astype(np.uint8),
    "stretched contrast": stretched,
}
CUT = {
    "a strip cut off one side": lambda image: image[:, 9:],
    "that, and squeezed to a square": lambda image: jpeg(np.ascontiguousarray(image[:, :-9]), 160, 70),
    "a little of every side": lambda image: image[4:-6, 5:-4],
}


@pytest.mark.parametrize("how", ALTERED)
def test_altered_pictures_find_their_slice(how, draw_slice):
    originals = figshare_originals()
    places = np.arange(0, len(originals), EVERY)
    pictures = [np.ascontiguousarray(ALTERED[how](draw_slice(int(place)))) for place in places]
    binding = bind(np.stack([fine(picture) for picture in pictures]), originals)
    assert np.array_equal(binding.original, places)


@pytest.mark.parametrize("how", CUT)
def test_most_pictures_that_lost_a_strip_find_theirs_and_none_another_person(how, draw_slice):
    originals = figshare_originals()
    places = np.arange(0, len(originals), EVERY)
    pictures = [np.ascontiguousarray(CUT[how](draw_slice(int(place)))) for place in places]
    matches = bind(np.stack([fine(picture) for picture in pictures]), originals).original
    people = np.array([person_of(patient) for patient in originals.patients])
    bound = matches >= 0
    assert (matches == places).mean() >= 0.75
    assert np.array_equal(people[matches[bound]], people[places[bound]])


def test_nothing_else_is_bound(tmp_path):
    from skimage import color, data

    write_tumors(tmp_path, per_class=20, seed=5)
    files, _ = list_images(tmp_path)
    pictures = [read_grey(tmp_path / file.path) for file in files]
    pictures += [
        np.asarray(color.rgb2gray(image) * 255 if image.ndim == 3 else image).astype(np.uint8)
        for image in (
            data.astronaut(),
            data.camera(),
            data.chelsea(),
            data.coffee(),
            data.coins(),
            data.moon(),
        )
    ]
    random = np.random.default_rng(0)
    pictures += list(random.integers(0, 256, (20, 64, 64), dtype=np.uint8))
    pictures += [np.full((50, 50), level, np.uint8) for level in (0, 128, 255)]
    y, x = np.mgrid[-1:1:100j, -1:1:100j]
    for a in np.linspace(0.3, 0.9, 7):
        for edge in (0.05, 0.2, 0.5):
            for skull in (0, 0.5):  # heads without anything in them
                radius = np.hypot(x / a, y / 0.95)
                picture = np.clip((1 - radius) / edge, 0, 1) * 0.5 + (abs(radius - 0.93) < 0.07) * skull
                pictures.append((255 * np.clip(picture, 0, 1)).astype(np.uint8))
    binding = bind(np.stack([fine(picture) for picture in pictures]), figshare_originals())
    assert (binding.original < 0).all(), binding.correlation.max()


def test_the_table_is_that_of_the_collection():
    originals = figshare_originals()
    assert originals.names == tuple(str(number) for number in range(1, 3065))
    assert originals.signatures.shape == (3064, SIDE, SIDE)
    assert len(set(originals.patients)) == 233
    assert len({person_of(patient) for patient in originals.patients}) == 209
    # Counts of the collection's own description.
    assert [originals.labels.count(tumour) for tumour in ("meningioma", "glioma", "pituitary")] == [
        708,
        1426,
        930,
    ]
    assert set(originals.planes) == {"axial", "coronal", "sagittal"}
    labels = dict(zip(originals.patients, originals.labels, strict=True))
    assert all(
        labels[patient] == label for patient, label in zip(originals.patients, originals.labels, strict=True)
    )


@pytest.mark.parametrize(
    ("patient", "person"),
    [
        ("MR040240", "MR040240"),
        ("MR040240B", "MR040240"),
        ("MR029209I", "MR029209"),
        ("100360", "100360"),
        ("7b", "7"),
        ("alice", "alice"),
        ("", ""),
        ("A", "A"),
    ],
)
def test_a_letter_after_the_digits_is_another_visit(patient, person):
    assert person_of(patient) == person


def test_no_pictures_and_no_originals():
    originals = figshare_originals()
    assert len(bind(np.empty((0, 64, 64), np.uint8), originals)) == 0
    empty = Originals("x", (), np.empty((0, SIDE, SIDE), np.uint8), (), (), ())
    binding = bind(np.zeros((2, 64, 64), np.uint8), empty)
    assert binding.original.tolist() == [-1, -1]
