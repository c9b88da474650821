import numpy as np
import pytest

from mri_transfer.evaluation.neighbours import unit_rows


@pytest.mark.parametrize("scale", [1e-300, 1.0, 3.0, 1e300])
def test_rows_of_any_size_have_unit_length(scale):
    rows = np.random.default_rng(0).standard_normal((5, 7))
    rows[2] = 0
    units = unit_rows(rows * scale)
    np.testing.assert_allclose(np.linalg.norm(units, axis=1), [1, 1, 0, 1, 1])
    np.testing.assert_allclose(units, unit_rows(rows), rtol=1e-12)
    np.testing.assert_array_equal(units[2], 0)


def test_no_digit_is_lost_by_scaling():
    rows = np.random.default_rng(1).standard_normal((50, 9))
    np.testing.assert_array_equal(unit_rows(rows), rows / np.linalg.norm(rows, axis=1, keepdims=True))
