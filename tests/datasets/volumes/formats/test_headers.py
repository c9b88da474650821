"""The geometry that a header tells is the one of the volume, in every format."""

from __future__ import annotations

import numpy as np
import pytest

from mri_transfer.datasets.volumes.find import find_volumes
from mri_transfer.datasets.volumes.headers import read_geometry
from mri_transfer.datasets.volumes.volume import BadVolume, read_volume


@pytest.mark.parametrize("axes", ["RAS", "LPS", "ASL"])
def test_shape_and_zooms_without_reading_voxels(formats, head, tmp_path, axes):
    for name, write in formats.WRITERS.items():
        folder = tmp_path / name
        folder.mkdir()
        write(formats.Scan(head((30, 36, 33)).astype(np.int16), (1.0, 1.5, 2.0), axes), folder)
        (source,) = find_volumes([folder]).sources
        geometry = read_geometry(source, 10**9)
        volume = read_volume(source.files)
        assert geometry.shape == volume.voxels.shape, name
        assert geometry.zooms == pytest.approx(volume.zooms, rel=1e-5), name
        with pytest.raises(BadVolume, match="more than --max-mb allows"):
            read_geometry(source, 1000)
