"""MetaImage by SimpleITK, whose format it is, and headers that lie."""

from __future__ import annotations

import re

import numpy as np
import pytest

from mri_transfer.datasets.volumes.find import find_volumes
from mri_transfer.datasets.volumes.volume import read_volume
from mri_transfer.errors import UserError


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "f4", "f8"])
@pytest.mark.parametrize("compressed", [False, True])
def test_number_formats(formats, head, tmp_path, dtype, compressed):
    scan = formats.Scan((head((16, 18, 17)) / 2).astype(dtype), (1.0, 1.5, 2.0), "PSL")
    volume = read_volume(formats.metaimage(scan, tmp_path / "a.mha", compressed))
    np.testing.assert_allclose(volume.voxels, formats.canonical(scan), rtol=1e-6)
    assert volume.zooms == pytest.approx((1.0, 1.5, 2.0))


def test_an_oblique_volume_lies_where_itk_puts_it(formats, head, tmp_path):
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(head((16, 18, 17)).astype(np.int16))
    angle = np.deg2rad(20)
    turn = [np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle), 0, 0, 0, 1]
    image.SetDirection(turn)
    image.SetSpacing((1.0, 1.5, 2.0))
    image.SetOrigin((-7.0, 11.0, 3.0))
    sitk.WriteImage(image, str(tmp_path / "a.mha"))
    sitk.WriteImage(image, str(tmp_path / "a.nii"))
    ours, nifti = (read_volume([tmp_path / name]) for name in ("a.mha", "a.nii"))
    np.testing.assert_array_equal(ours.voxels, nifti.voxels)
    assert ours.zooms == pytest.approx(nifti.zooms, rel=1e-5)
    assert ours.origins == pytest.approx(nifti.origins, abs=1e-3)


def test_a_folder_of_them(formats, scan, tmp_path):
    formats.metaimage(scan, tmp_path / "anna_T1.mhd")
    formats.metaimage(scan, tmp_path / "berta_T2.mha", compressed=True)
    formats.metaimage(scan, tmp_path / "lost.mhd")[1].unlink()
    inventory = find_volumes([tmp_path])
    sources = [
        (source.identity.subject, source.identity.sequence, len(source.files)) for source in inventory.sources
    ]
    assert sources == [("anna", "T1", 2), ("berta", "T2", 1)]
    assert [skip.reason for skip in inventory.skipped] == ["its data file, lost.raw, is missing"]


def edited(path, before, after):
    content = path.read_bytes()
    assert before in content
    path.write_bytes(content.replace(before, after, 1))
    return path


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (b"DimSize = 16 18 17", b"DimSize = 30000 30000 30000", "promises 54 TB"),
        (b"DimSize = 16 18 17", b"DimSize = 16 18 170", "truncated"),
        (b"DimSize = 16 18 17", b"DimSize = 16 0 17", "length 0"),
        (b"DimSize = 16 18 17", b"DimSize = 16 18", "2 numbers for DimSize"),
        (b"NDims = 3", b"NDims = 9", "9-D"),
        (b"ElementType = MET_SHORT", b"ElementType = MET_COMPLEX", "MET_COMPLEX voxels"),
        (
            b"ElementType = MET_SHORT",
            b"ElementNumberOfChannels = 3\nElementType = MET_SHORT",
            "several values",
        ),
        (b"BinaryData = True", b"BinaryData = False", "as text"),
        (b"ElementDataFile = LOCAL", b"ElementDataNowhere = LOCAL", "does not name its data"),
        (b"ElementSpacing = 1 1.5 2", b"ElementSpacing = 0 1.5 2", "singular"),
        (b"TransformMatrix", b"TransformMatrix = 1 0\nX", "2 numbers"),
    ],
)
def test_headers_that_lie(formats, scan, tmp_path, before, after, reason):
    (path,) = formats.metaimage(scan, tmp_path / "a.mha")
    answer = formats.read([edited(path, before, after)])
    assert isinstance(answer, str)
    assert re.search(reason, answer), answer


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret.raw", "C:\\x.raw", "LIST", "slice%03d.raw"])
def test_a_data_file_elsewhere_is_not_opened(formats, scan, tmp_path, name):
    (tmp_path / "d").mkdir()
    header, _ = formats.metaimage(scan, tmp_path / "d" / "a.mhd")
    edited(header, b"ElementDataFile = a.raw", b"ElementDataFile = " + name.encode())
    with pytest.raises(UserError, match=r"out of its folder|several files"):
        find_volumes([tmp_path / "d"])


def test_a_zlib_bomb(formats, scan, tmp_path):
    import zlib

    (path,) = formats.metaimage(scan, tmp_path / "a.mha", compressed=True)
    start = path.read_bytes().split(b"ElementDataFile = LOCAL\n")[0] + b"ElementDataFile = LOCAL\n"
    path.write_bytes(start + zlib.compress(bytes(1 << 27), 9))
    assert "decompresses to more" in formats.read([path])
