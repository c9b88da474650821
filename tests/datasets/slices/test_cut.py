"""Orientation, geometry and intensities of slices: what must not depend on how a file happens to be stored."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from mri_transfer.datasets.slices.cut import cut
from mri_transfer.datasets.volumes.volume import BadVolume, Volume, read_volume

SHAPE = (40, 48, 44)


def slices_of(path, **options):
    return cut(read_volume([path]), **{"size": 64, "spacing": 1.0, "min_foreground": 0.05, **options})


def of_plane(slices, plane):
    indices = [index for index, name in enumerate(slices.plane) if name == plane]
    return slices.images[indices], np.array(slices.position_mm)[indices], np.array(slices.position)[indices]


@pytest.mark.parametrize("axes", ["RAS", "LAS", "LPS", "PSR", "ASL", "IPR", "SRA"])
def test_a_marker_shows_where_the_conventions_want_it_however_the_file_is_stored(tmp_path, head, save, axes):
    voxels = head(SHAPE)
    voxels[26:32, 34:40, 30:36] = 600  # the patient's right, front, top
    slices = slices_of(save(tmp_path / "a.nii.gz", voxels, axes=axes))
    expected = {
        "axial": ("left", "upper"),  # nose up; the patient's right on the picture's left
        "coronal": ("left", "upper"),  # head up
        "sagittal": ("left", "upper"),  # facing left
    }
    centres = {
        "axial": 32.5 - 22,
        "coronal": 36.5 - 24,
        "sagittal": 28.5 - 20,
    }  # mm to the top, front and right
    for plane, (side, end) in expected.items():
        images, millimetres, fractions = of_plane(slices, plane)
        marked = images.astype(int) == 255
        brightest = marked.sum(axis=(1, 2))
        row, column = (positions.mean() for positions in np.nonzero(marked[brightest.argmax()]))
        assert ("left" if column < 31.5 else "right", "upper" if row < 31.5 else "lower") == (side, end), (
            plane
        )
        assert abs(np.average(millimetres, weights=brightest) - centres[plane]) < 1.0
        assert abs(np.average(fractions, weights=brightest) - 0.5) > 0.1
        assert (np.diff(millimetres) > 0).all()
        assert (np.diff(fractions) > 0).all()


@pytest.mark.parametrize("axes", ["LAS", "LPS", "PSR", "ASL", "IPR", "SRA"])
def test_every_way_of_storing_a_volume_gives_the_same_slices(tmp_path, head, save, axes):
    canonical = slices_of(save(tmp_path / "a.nii", head(SHAPE), zooms=(1.0, 1.2, 0.9)))
    stored = slices_of(save(tmp_path / "b.nii.gz", head(SHAPE), zooms=(1.0, 1.2, 0.9), axes=axes))
    np.testing.assert_array_equal(stored.images, canonical.images)
    assert stored.plane == canonical.plane
    np.testing.assert_allclose(stored.position_mm, canonical.position_mm, atol=0.01)


def test_reading_agrees_with_nibabel(tmp_path, head, save):
    path = save(tmp_path / "a.nii.gz", head(SHAPE), zooms=(1.0, 2.0, 1.5), axes="PSR")
    reference = nib.as_closest_canonical(nib.load(path))
    volume = read_volume([path])
    np.testing.assert_array_equal(volume.voxels, np.asanyarray(reference.dataobj))
    np.testing.assert_allclose(volume.zooms, reference.header.get_zooms())
    np.testing.assert_allclose(volume.origins, reference.affine[:3, 3])


@pytest.mark.parametrize("zooms", [(1.0, 2.0, 1.5), (2.4, 1.0, 1.0), (1.0, 1.0, 2.5)])
def test_a_ball_stays_round_whatever_the_voxels(tmp_path, save, zooms):
    shape = [round(70 / zoom) for zoom in zooms]
    x, y, z = np.meshgrid(
        *((np.arange(n) + 0.5 - n / 2) * zoom for n, zoom in zip(shape, zooms, strict=True)), indexing="ij"
    )
    ball = np.clip(500 * (26 - np.sqrt(x**2 + y**2 + z**2)), 0, 1000)
    slices = slices_of(save(tmp_path / "ball.nii", ball, zooms=zooms), size=96)
    assert set(slices.plane) == {"axial", "coronal", "sagittal"}
    for plane in set(slices.plane):
        images, _, _ = of_plane(slices, plane)
        middle = (images[len(images) // 2] > 127).astype(float)
        rows, columns = np.indices(middle.shape)
        spread = [
            np.sqrt(np.average((axis - np.average(axis, weights=middle)) ** 2, weights=middle))
            for axis in (rows, columns)
        ]
        assert spread[0] == pytest.approx(spread[1], rel=0.03)
        assert np.average(rows, weights=middle) == pytest.approx(47.5, abs=1.0)
        # An even disc of radius r has a standard deviation of r/2 along each axis; 70 mm are 96 pixels.
        assert spread[0] == pytest.approx(25 / 2 * 96 / 70, rel=0.04)


def test_thick_slices_give_only_the_plane_they_were_taken_in(tmp_path, head, save):
    thick = save(tmp_path / "thick.nii", head((40, 48, 12)), zooms=(1.0, 1.0, 5.0))
    assert set(slices_of(thick).plane) == {"axial"}
    sagittal = save(tmp_path / "sag.nii", head((12, 48, 44)), zooms=(4.0, 1.0, 1.0), axes="PSR")
    assert set(slices_of(sagittal).plane) == {"sagittal"}
    at_the_limit = save(tmp_path / "limit.nii", head((40, 48, 18)), zooms=(1.0, 1.0, 2.5))
    assert set(slices_of(at_the_limit).plane) == {"axial", "coronal", "sagittal"}
    with pytest.raises(BadVolume, match="no wanted plane"):
        slices_of(save(tmp_path / "odd.nii", head(), zooms=(1.0, 3.0, 9.0)))


def test_slices_keep_their_distance_and_stand_no_further_apart_than_needed(tmp_path, head, save):
    path = save(tmp_path / "a.nii", head(SHAPE), zooms=(1.0, 1.0, 1.5))
    for spacing, expected in ((1.0, 1.5), (1.5, 1.5), (4.0, 4.5)):
        _, millimetres, _ = of_plane(slices_of(path, spacing=spacing), "axial")
        np.testing.assert_allclose(np.diff(millimetres), expected, atol=1e-3)


def test_slices_that_are_mostly_background_are_dropped(tmp_path, head, save):
    path = save(tmp_path / "a.nii", head(SHAPE))
    counts = [len(slices_of(path, min_foreground=share).images) for share in (0.01, 0.2, 0.4)]
    assert counts[0] > counts[1] > counts[2] > 0
    images, _, _ = of_plane(slices_of(path, min_foreground=0.2), "axial")
    assert ((images > 20).mean(axis=(1, 2)) > 0.17).all()
    with pytest.raises(BadVolume, match="mostly background"):
        slices_of(path, min_foreground=0.99)


@pytest.mark.parametrize(("gain", "offset"), [(0.001, 0.0), (37.0, -1000.0), (1.0, 5e4)])
def test_grey_levels_do_not_depend_on_the_scanners_units(tmp_path, head, save, gain, offset):
    plain = slices_of(save(tmp_path / "a.nii", head(SHAPE), dtype=np.float32))
    scaled = slices_of(save(tmp_path / "b.nii", head(SHAPE) * gain + offset, dtype=np.float32))
    assert scaled.plane == plain.plane
    assert np.abs(scaled.images.astype(int) - plain.images).max() <= 1


def test_scale_factors_are_honoured_and_a_negative_one_turns_dark_to_bright(tmp_path, head, save):
    plain = slices_of(save(tmp_path / "a.nii", head(SHAPE)))
    scaled = slices_of(save(tmp_path / "b.nii", head(SHAPE), slope=(0.25, -3.0)))
    np.testing.assert_array_equal(scaled.images, plain.images)
    turned = save(tmp_path / "c.nii", head(SHAPE), slope=(-2.0, 7.0))
    voxels = np.asanyarray(nib.load(turned).dataobj)
    expected = slices_of(save(tmp_path / "d.nii", voxels, dtype=np.float32), min_foreground=0.01)
    slices = slices_of(turned, min_foreground=0.01)
    assert np.abs(slices.images.astype(int) - expected.images).max() <= 1


def test_missing_voxels_are_background_and_noted(tmp_path, head, save):
    voxels = head(SHAPE)
    voxels[:4] = np.nan
    voxels[-1, 0, 0] = np.inf
    volume = read_volume([save(tmp_path / "a.nii", voxels, dtype=np.float32)])
    assert volume.notes == (f"{4 * 48 * 44 + 1} voxels not finite, taken as background",)
    filled = np.where(np.isfinite(voxels), voxels, 0)
    expected = slices_of(save(tmp_path / "b.nii", filled, dtype=np.float32))
    np.testing.assert_array_equal(cut(volume, 64, 1.0, min_foreground=0.05).images, expected.images)


@pytest.mark.parametrize("heads", [range(4, 60, 4), (4, 8, 16, 20, 40, 52), (30,)])
def test_every_slice_is_of_the_layer_that_its_position_names(heads):
    voxels = np.zeros((40, 40, 64), np.int16)
    for layer in heads:
        voxels[4:-4, 4:-4, layer] = 300 + 10 * layer
        voxels[4:20, 4:20, layer] = 1000  # in every layer, so that it is no constant
    slices = cut(Volume(voxels, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), ""), 40, 1.0, ("axial",))
    assert slices.position_mm == tuple(map(float, heads))
    low, high = 300.0 + 10 * min(heads), 1000.0
    expected = [(300 + 10 * layer - low) * 255 / (high - low) for layer in heads]
    np.testing.assert_allclose(slices.images[:, 8, 8], expected, atol=0.51)
