"""Numbers that show a map or another modality, and scans with every oddity that such numbers have."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from mri_transfer.datasets.volumes.contents import no_scan
from mri_transfer.datasets.volumes.volume import NotAScan, read_volume


@pytest.fixture(scope="module")
def scan():
    """A smooth textured head with noise, in noisy air, and where the head is."""
    rng = np.random.default_rng(3)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (60, 72, 64)), indexing="ij")
    radius = np.sqrt((x / 0.75) ** 2 + (y / 0.85) ** 2 + (z / 0.8) ** 2)
    folds = ndimage.gaussian_filter(rng.normal(size=x.shape), 2.5)
    tissue = 500 + 350 * np.tanh(folds / folds.std()) - 200 * (radius < 0.2)
    inside = radius < 1
    head = np.where(inside, np.where(radius > 0.93, 900, tissue), 0)
    clean = ndimage.gaussian_filter(head, 0.6)
    noisy = np.hypot(clean + rng.normal(0, 18, x.shape), rng.normal(0, 18, x.shape))
    return noisy.astype(np.float32), radius < 0.9


def levels(voxels, count):
    return np.round(voxels / np.percentile(voxels, 99.9) * count).clip(0, count)


def stripped(voxels, brain):
    return np.where(brain, voxels, 0)


SCANS = {
    "as it is": lambda v, b: v,
    "16 bits": lambda v, b: v.astype(np.int16),
    "8 bits": lambda v, b: levels(v, 255).astype(np.uint8),
    "60 grey levels": lambda v, b: levels(v, 60).astype(np.int16),
    "24 grey levels, as floats": lambda v, b: levels(v, 24).astype(np.float32),
    "12 grey levels": lambda v, b: levels(v, 12).astype(np.uint8),
    "half of it white": lambda v, b: levels(np.minimum(v, np.median(v[b])), 255).astype(np.uint8),
    "skull-stripped": lambda v, b: stripped(v, b).astype(np.int16),
    "0 to 1": lambda v, b: v / v.max(),
    "0 to 1, the brightest cut off": lambda v, b: np.clip(v / np.percentile(v, 97), 0, 1),
    "0 to 1 and skull-stripped": lambda v, b: stripped(v, b) / v[b].max(),
    "-1 to 1": lambda v, b: v / v.max() * 2 - 1,
    "standardised": lambda v, b: (v - v.mean()) / v.std(),
    "standardised after skull-stripping": lambda v, b: stripped((v - v[b].mean()) / v[b].std(), b),
    "shifted to -1000": lambda v, b: (v * 2 - 1000).astype(np.int16),
    "shifted to -1024, in a narrow range": lambda v, b: (v * 1.3 - 1024).astype(np.int16),
    "12 bits, all of them": lambda v, b: (v / v.max() * 4095).astype(np.uint16),
    "-4096 to 4095": lambda v, b: (v / v.max() * 8191 - 4096).astype(np.int16),
    "twice as large by nearest neighbours": lambda v, b: np.kron(v[15:45, 18:54, 16:48], np.ones((2, 2, 2))),
    "smoothed": lambda v, b: ndimage.gaussian_filter(v, 1.5).astype(np.int16),
    "thick slices": lambda v, b: v[:, :, ::10].astype(np.int16),
}


@pytest.mark.parametrize("name", SCANS)
def test_a_scan_stays_in(scan, name):
    voxels = SCANS[name](*scan)
    assert no_scan(voxels) is None


def tissues(scan, thresholds=(150, 400, 700)):
    return np.digitize(ndimage.gaussian_filter(scan[0], 1), thresholds)


def aseg(scan):
    """Numbered as FreeSurfer does, left and right, with gaps."""
    left = (np.arange(scan[0].shape[0]) < 30)[:, None, None]
    numbers = np.where(left, np.array([0, 24, 3, 2])[tissues(scan)], np.array([0, 24, 42, 41])[tissues(scan)])
    for at, label in enumerate((4, 10, 11, 12, 13, 17, 49, 50, 51)):
        numbers[20 + 2 * at : 26 + 2 * at, 30:40, 25:35] = label
    return ndimage.median_filter(numbers, 3)


def parcels(scan, count=90):
    """Regions around random points, as of a cortical atlas."""
    rng = np.random.default_rng(0)
    places = np.argwhere(scan[1])
    seeds = places[rng.choice(len(places), count, replace=False)]
    seeded = np.zeros(scan[0].shape, int)
    seeded[tuple(seeds.T)] = rng.permutation(count) + 1
    nearest = ndimage.distance_transform_edt(seeded == 0, return_indices=True)[1]
    return np.where(scan[1], seeded[tuple(nearest)], 0)


def probability(scan):
    smooth = ndimage.gaussian_filter(scan[0], 1)
    return np.where(scan[1], 1 / (1 + np.exp(-(smooth - 600) / 12)), 0).astype(np.float32)


def ct(scan):
    rng = np.random.default_rng(1)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (60, 72, 64)), indexing="ij")
    radius = np.sqrt((x / 0.75) ** 2 + (y / 0.85) ** 2 + (z / 0.8) ** 2)
    units = np.select([radius < 0.2, radius < 0.85, radius < 0.95, radius < 1], [8, 34, 1100, -20], -1000)
    return (units + rng.normal(0, 8, x.shape)).astype(np.int16)


def phase(scan):
    """Of the head a slow ramp, of the air noise alone."""
    rng = np.random.default_rng(2)
    ramp = np.linspace(0, 14, scan[0].shape[0])[:, None, None]
    signal = (
        scan[0] * np.exp(1j * ramp) + rng.normal(0, 30, scan[0].shape) + 1j * rng.normal(0, 30, scan[0].shape)
    )
    return np.angle(np.where(scan[0] > 120, signal, np.exp(2j * np.pi * rng.random(scan[0].shape))))


OTHERS = {
    "tissue classes": (lambda s: tissues(s).astype(np.uint8), "labels"),
    "tissue classes as floats": (lambda s: tissues(s).astype(np.float32), "labels"),
    "tissue classes as shares": (lambda s: tissues(s) / np.float32(3), "labels"),
    "aseg": (lambda s: aseg(s).astype(np.int16), "labels"),
    "aseg as floats": (lambda s: aseg(s).astype(np.float32), "labels"),
    "an atlas": (lambda s: parcels(s).astype(np.int16), "labels"),
    "an atlas of large numbers": (
        lambda s: (parcels(s) * 37 + 1000 * (parcels(s) > 0)).astype(np.float64),
        "labels",
    ),
    "a lesion of a few voxels": (
        lambda s: np.pad(np.ones((3, 3, 2), np.uint8), ((20, 37), (30, 39), (31, 31))),
        "labels",
    ),
    "a lesion of several classes": (
        lambda s: np.where(np.roll(s[1], 20, axis=0) & s[1], tissues(s), 0).astype(np.uint8),
        "labels",
    ),
    "a tissue's probability": (probability, "maps"),
    "fractional anisotropy": (
        lambda s: np.where(s[0] == s[0].max(), np.sqrt(1.5), s[0] / s[0].max()),
        "maps",
    ),
    "CT": (ct, "ct"),
    "CT as floats": (lambda s: ct(s).astype(np.float32), "ct"),
    "phase": (phase, "fmap"),
    "phase in 12 bits": (lambda s: np.round((phase(s) / np.pi + 1) / 2 * 4095).astype(np.uint16), "fmap"),
    "phase around zero": (lambda s: np.round(phase(s) / np.pi * 4095).astype(np.int16), "fmap"),
    "phase in the brain alone": (lambda s: np.where(s[1], phase(s), 0).astype(np.float32), "fmap"),
    "a real part": (
        lambda s: (
            s[0] * np.cos(np.linspace(0, 40, 60))[:, None, None]
            + np.random.default_rng(0).normal(0, 30, s[0].shape)
        ),
        "fmap",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_kind_is_told(scan, name):
    make, kind = OTHERS[name]
    finding = no_scan(np.asarray(make(scan)))
    assert finding is not None
    assert finding.kind == kind


def uniform(scan, noise=0.03):
    """MP2RAGE's ratio of two echoes, from its definition: -1/2 to 1/2, noise alone in the air."""
    rng = np.random.default_rng(4)
    wanted = np.clip(0.9 * scan[0] / scan[0].max() - 0.45, -0.45, 0.45)
    wanted[np.abs(wanted) < 1e-3] = 1e-3
    first = (1 - np.sqrt(1 - 4 * wanted**2)) / (2 * wanted)  # over the second
    signal = np.where(scan[0] > 150, 1 / np.sqrt(1 + first**2), 0)
    echo, other = (
        real + rng.normal(0, noise, real.shape) + 1j * rng.normal(0, noise, real.shape)
        for real in (signal * first, signal)
    )
    return (echo * other.conj()).real / (np.abs(echo) ** 2 + np.abs(other) ** 2)


@pytest.mark.parametrize("noise", [0.01, 0.03, 0.06])
def test_mp2rage_has_air_like_phase_and_tissues_like_no_phase(scan, noise):
    ratio = uniform(scan, noise)
    assert no_scan(ratio.astype(np.float32)) is None
    assert no_scan(np.round((ratio + 0.5) * 4095).astype(np.int16)) is None


@pytest.mark.parametrize("turns", [0.0, 0.4, 0.8, 1.2, 2.5, 6.0])
@pytest.mark.parametrize("contrast", [0.0, 0.1])
def test_phase_of_any_steepness_is_no_mp2rage(scan, turns, contrast):
    """Of the field, and of tissue, as in phase that was filtered."""
    rng = np.random.default_rng(5)
    x, y, z = np.meshgrid(*(np.linspace(-0.5, 0.5, n) for n in scan[0].shape), indexing="ij")
    local = scan[0] - ndimage.gaussian_filter(scan[0], 5)
    turn = turns * (0.7 * x + 0.3 * y * 2 * z + 0.3 * y) + contrast * local / scan[0].max()
    noise = rng.normal(0, 0.05, (2, *scan[0].shape))
    signal = np.where(scan[0] > 150, np.exp(2j * np.pi * turn), 0) + noise[0] + 1j * noise[1]
    finding = no_scan(np.round((np.angle(signal) / np.pi + 1) / 2 * 4095).astype(np.int16))
    assert finding is not None
    assert finding.kind == "fmap"


@pytest.mark.parametrize("name", ["sub-01_UNIT1", "mp2rage_UNI_Images", "T1_uni"])
def test_what_numbers_can_not_tell_a_name_says(scan, tmp_path, name):
    few = uniform(scan)[:, :, 28:34]  # too few layers to see tissues in
    voxels = np.round((few + 0.5) * 4095).astype(np.int16)
    assert no_scan(voxels).kind == "fmap"  # its numbers alone
    file = tmp_path / f"{name}.nii"
    nib.save(nib.Nifti1Image(voxels, np.diag([2.0, 2, 2, 1])), file)
    assert read_volume([file], include=()).voxels.shape == voxels.shape


def test_the_scale_of_a_file_counts(scan):
    """SPM keeps tissue classes as bytes with a scale factor; CT is often stored from 0 with an intercept."""
    assert no_scan(levels(scan[0], 255).astype(np.uint8), (1 / 255, 0.0)) is None
    classes = np.round(probability(scan) * 255).astype(np.uint8)
    assert no_scan(classes, (1 / 255, 0.0)).kind == "maps"
    stored = (ct(scan).astype(np.int32) + 1024).astype(np.uint16)
    assert no_scan(stored) is None
    assert no_scan(stored, (1.0, -1024.0)).kind == "ct"


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({"intent": "label"}, "labels", "1002, label"),
        ({"intent": "t test"}, "maps", "3, t test"),
        ({"intent": "z score"}, "maps", "5, z score"),
        ({"intent": "p value"}, "maps", "22, p value"),
        ({"intent": "estimate"}, "maps", "1001, estimate"),
        ({"descrip": b"SPM{T_[23.0]} - contrast 1: a > b"}, "maps", "SPM{T_"),
        ({"descrip": b"spm_spm:beta (0001) - Sn(1)"}, "maps", "spm_spm:beta"),
        ({"descrip": b"Warped tissue class 1"}, "maps", "tissue class"),
        ({"descrip": b"TE=2.9;Time=151345.123;phase=1"}, None, ""),  # dcm2niix: polarity of phase encoding
        ({"descrip": b"FSL5.0"}, None, ""),
        ({"intent": "dimensionless"}, None, ""),
    ],
)
@pytest.mark.parametrize("form", [nib.Nifti1Image, nib.Nifti2Image])
def test_what_a_nifti_header_says(tmp_path, scan, form, fields, kind, words):
    image = form(scan[0], np.eye(4))
    if "intent" in fields:
        image.header.set_intent(fields["intent"], allow_unknown=True)
    image.header["descrip"] = fields.get("descrip", b"")
    nib.save(image, tmp_path / "x.nii")
    if kind is None:
        read_volume([tmp_path / "x.nii"], include=())
        return
    with pytest.raises(NotAScan) as error:
        read_volume([tmp_path / "x.nii"], include=())
    assert words in str(error.value)
    assert str(error.value).endswith(f"; see --include {kind}")
    read_volume([tmp_path / "x.nii"], include=(kind,))
    read_volume([tmp_path / "x.nii"])  # who does not ask, gets what there is
