import numpy as np

from mri_transfer.pretrain.pairs.free_labels import PLANES, SAGITTAL, UNKNOWN, FreeLabels, plane_numbers


def table(volume, plane, position):
    return {"volume": np.array(volume), "plane": np.array(plane), "position": np.array(position)}


def test_planes_are_numbered_and_other_names_are_unknown():
    numbers = plane_numbers(np.array(["sagittal", "axial", "oblique", "coronal", "", "axial"]))
    assert numbers.tolist() == [2, 0, UNKNOWN, 1, UNKNOWN, 0]
    assert PLANES[SAGITTAL] == "sagittal"


def test_pairs_have_one_plane_and_two_positions():
    labels = FreeLabels(table([0, 0, 1, 1], ["axial", "axial", "coronal", "coronal"], [0.1, 0.2, 0.6, 0.7]))
    values = labels.of_pairs(np.array([0, 3]), np.array([1, 3]))
    assert values["plane"].tolist() == [0, 1]
    assert values["plane"].dtype == np.int32
    np.testing.assert_allclose(values["position"], [[0.1, 0.2], [0.7, 0.7]])
    assert values["position"].dtype == np.float32


def test_nothing_is_known_of_a_single_picture():
    """Its position is written as the middle of a volume that it has not."""
    labels = FreeLabels(table([0, 1, 1], ["axial"] * 3, [0.5, 0.1, 0.2]))
    assert labels.of_pairs(np.arange(3), np.arange(3))["plane"].tolist() == [UNKNOWN, 0, 0]
