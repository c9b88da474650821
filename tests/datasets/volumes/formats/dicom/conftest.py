"""A scan as DICOM has it."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def canonical(head) -> np.ndarray:
    """Voxels in RAS+."""
    return head((20, 24, 22)).astype(np.int16)


@pytest.fixture
def scan(formats, canonical):
    return formats.Scan(canonical, (1.0, 1.5, 2.0), "LPS")
