"""Generated heads: real files, the right way round, with the lesions and leaks that were asked for."""

import nibabel as nib
import numpy as np
import pytest

from mri_transfer.datasets.image_files import read_grey, square
from mri_transfer.datasets.synthetic.anatomy import Head, Shape, Tissue, smooth_noise
from mri_transfer.datasets.synthetic.generate import write_tumors, write_volumes
from mri_transfer.datasets.synthetic.lesions import KINDS, Lesion, add_lesion
from mri_transfer.datasets.tumors.tumors import CLASSES, load_tumors

AXES = (np.arange(-94.0, 94, 4), np.arange(-114.0, 128, 4), np.arange(-128.0, 98, 4))


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    return write_volumes(tmp_path_factory.mktemp("volumes"), subjects=4, seed=3, spacing=4.0)


@pytest.fixture(scope="module")
def tumors(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tumors")
    return folder, write_tumors(folder, per_class=12, seed=5)


def test_volumes_are_nifti_in_more_than_one_orientation_and_say_what_they_are(volumes):
    assert len(volumes) == 9
    orientations = set()
    for path in volumes:
        assert "generated" in path.name
        image = nib.load(path)
        orientations.add(nib.aff2axcodes(image.affine))
        assert b"generated head" in image.header["descrip"].item()
        assert image.get_data_dtype() == np.int16
    assert orientations == {("R", "A", "S"), ("L", "P", "S"), ("P", "S", "R")}
    flairs = [nib.as_closest_canonical(nib.load(p)) for p in volumes if "FLAIR" in p.name]
    assert flairs
    for image in flairs:
        assert image.header.get_zooms() == pytest.approx((4, 4, 12))


def test_heads_face_forward_with_the_crown_up(volumes):
    for path in volumes:
        image = nib.as_closest_canonical(nib.load(path))
        x, y, z = (np.arange(n) * image.affine[d, d] + image.affine[d, 3] for d, n in enumerate(image.shape))
        data = np.asarray(image.dataobj, dtype=float)
        head = data > 0.3 * np.quantile(data, 0.99)
        # The nose is the foremost part of the middle, and stands out before cheeks and ears.
        face = head[:, :, (z > -75) & (z < -35)].any(axis=2)
        tip = y[face[np.abs(x) < 10].any(axis=0)].max()
        cheeks = y[face[np.abs(x) > 45].any(axis=0)].max()
        back = y[face[np.abs(x) < 10].any(axis=0)].min()
        front_width = np.ptp(x[face[:, (y > tip - 10) & (y <= tip)].any(axis=1)])
        back_width = np.ptp(x[face[:, (y >= back) & (y < back + 10)].any(axis=1)])
        assert tip - cheeks > 15
        assert front_width < 0.75 * back_width
        # The neck is cut off at the bottom, the crown is not.
        assert head[:, :, 0].mean() > 0.03
        assert head[:, :, -1].mean() < 0.02
        # Two halves of about the same size.
        left, right = head[x < 0].sum(), head[x > 0].sum()
        assert 0.85 < left / right < 1.18


def test_tissues_lie_where_they_belong():
    head = Head(AXES, Shape.draw(np.random.default_rng(0)))
    assert set(np.unique(head.labels)) >= {t.value for t in Tissue if t <= Tissue.VESSEL}
    # Intracranial tissue, litres: an adult has 1.1 to 1.7.
    inside = np.isin(head.labels, (Tissue.GREY, Tissue.WHITE, Tissue.DEEP_GREY, Tissue.CSF))
    assert 1.0 < inside.sum() * 4**3 / 1e6 < 2.0
    x, y, _ = (np.array(np.where(head.labels == Tissue.VITREOUS))[d] * 4 + AXES[d][0] for d in range(3))
    assert np.all(y > 40)
    assert np.all(np.abs(x) > 10)
    assert {True, False} == set((x > 0).tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_lesions_are_where_such_lesions_grow(kind):
    tissues = {
        "glioma": (Tissue.NECROSIS, Tissue.RIM, Tissue.OEDEMA),
        "meningioma": (Tissue.MENINGIOMA,),
        "pituitary": (Tissue.ADENOMA,),
    }[kind]
    for seed in range(4):
        rng = np.random.default_rng(seed)
        head = Head(AXES, Shape.draw(rng))
        before = head.labels.copy()
        add_lesion(head, Lesion.draw(kind, rng))
        changed = np.isin(head.labels, tissues) & ~np.isin(before, tissues)
        assert 0.5e3 < changed.sum() * 4**3 < 2.5e5  # mm³
        centre = [np.array(np.nonzero(changed))[d].mean() * 4 + AXES[d][0] for d in range(3)]
        if kind == "pituitary":
            assert abs(centre[0]) < 12
            assert centre[2] < 0
        if kind == "glioma":
            assert abs(centre[0]) > 8
            assert not np.isin(before[changed], (Tissue.BONE, Tissue.MARROW, Tissue.FAT, Tissue.SKIN)).any()
        if kind == "meningioma":
            assert np.isin(before[changed], (Tissue.DURA, Tissue.VESSEL)).any()


def test_a_slice_shows_the_same_head_as_the_volume():
    shape = Shape.draw(np.random.default_rng(1))
    lesion = Lesion.draw("glioma", np.random.default_rng(2))
    volume, single = Head(AXES, shape), Head((AXES[0], AXES[1], AXES[2][30:31]), shape)
    add_lesion(volume, lesion)
    add_lesion(single, lesion)
    assert (volume.labels[:, :, 30] == single.labels[:, :, 0]).mean() > 0.999


def test_noise_has_unit_variance_and_true_slopes():
    axes = tuple(np.arange(-60, 60, 1.0) for _ in range(3))
    noise, *slopes = smooth_noise(axes, 24, np.random.default_rng(0), slopes=True)
    assert noise.std() == pytest.approx(1, abs=0.15)
    for d in range(3):
        measured = np.gradient(noise, 1.0, axis=d)[2:-2, 2:-2, 2:-2]
        assert np.abs(measured - slopes[d][2:-2, 2:-2, 2:-2]).max() < 0.05 * np.abs(measured).max()


def test_tumour_folders_hold_all_classes_and_the_planted_leaks(tumors):
    folder, record = tumors
    assert "no evidence" in (folder / "README").read_text()
    for split, count in (("Training", 9), ("Testing", 3 + 2)):
        for name in CLASSES:
            assert len(list((folder / split / name).glob("*.jpg"))) == count
    audit = load_tumors(folder, 64).audit
    assert audit["test_identical"] == len(record.identical) == 4
    assert audit["test_byte_identical"] == 2
    assert audit["test_near_duplicate"] == len(record.identical) + len(record.near) == 8
    assert audit["label_conflicts"] == []


def test_the_same_seed_gives_the_same_files(tumors, tmp_path):
    folder, record = tumors
    repeated = write_tumors(tmp_path, per_class=12, seed=5)
    assert repeated == record
    for name in record.files[::7]:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    other = write_tumors(tmp_path / "other", per_class=12, seed=6)
    assert (tmp_path / "other" / other.files[0]).read_bytes() != (folder / record.files[0]).read_bytes()


def test_slices_of_one_head_share_a_group(tumors):
    folder, _ = tumors
    loaded = load_tumors(folder, 64)
    assert len(np.unique(loaded.groups)) < 0.6 * len(loaded)
    first = [loaded.paths.index(f"Training/pituitary_tumor/p ({number}).jpg") for number in (1, 2, 3)]
    assert len(set(loaded.groups[first])) == 1


def test_one_slice_of_each_head(tmp_path):
    record = write_tumors(tmp_path, per_class=8, seed=4, one_each=True)
    assert len(record.files) == 4 * (8 + 2)
    planted = {name for pair in record.identical + record.near for name in pair[:1]}
    pictures = [read_grey(tmp_path / name) for name in record.files if name not in planted]
    small = np.stack([square(picture, 24).ravel() for picture in pictures]).astype(float)
    likeness = np.corrcoef(small)
    assert (
        np.abs(likeness[np.triu_indices(len(likeness), 1)]).max() < 0.99
    )  # no two are neighbours in one head
