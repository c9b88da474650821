"""The same scan is the same however it is stored; another scan is another."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mri_transfer.datasets.extraction.extract import SlicesConfig, extract
from mri_transfer.datasets.slices.content import scan_digest
from mri_transfer.datasets.volumes.volume import read_volume

SHAPE = (40, 48, 44)


def digest(path):
    files = [path, path.with_suffix(".img")] if path.suffix == ".hdr" else [path]
    return scan_digest(read_volume(files).voxels)


@settings(max_examples=60)
@given(
    gain=st.floats(1e-3, 1e3),
    offset=st.floats(-1e3, 1e3),
    dtype=st.sampled_from([np.float32, np.float64, ">f4", np.int32, ">i2", np.uint16]),
    order=st.sampled_from("CF"),
)
def test_scale_shift_type_and_layout_do_not_matter(gain, offset, dtype, order):
    scan = np.random.default_rng(3).gamma(2, 200, (30, 41, 50)).astype(np.int16)
    stored = scan.astype(dtype)
    if np.dtype(dtype).kind == "f":
        stored = (scan * gain + offset).astype(dtype)
    assert scan_digest(np.array(stored, order=order)) == scan_digest(scan)
    assert scan_digest(stored.transpose(2, 0, 1).copy().transpose(1, 2, 0)) == scan_digest(scan)


@given(seed=st.integers(0, 10**6), shape=st.tuples(*[st.integers(1, 90)] * 3))
def test_other_scans_differ(seed, shape):
    rng = np.random.default_rng(seed)
    first, second = (rng.gamma(2, 100, shape) for _ in range(2))
    if first.size > 30:
        assert scan_digest(first) != scan_digest(second)
    if len(set(shape)) > 1:
        assert scan_digest(first) != scan_digest(first.transpose(1, 2, 0)) or first.size < 30
    assert scan_digest(first[:, :, ::-1]) != scan_digest(first) or shape[2] < 30


FORMS = {
    "plain.nii": {},
    "big_endian.nii": {"dtype": ">i2"},
    "other_axes.nii.gz": {"axes": "PSR"},
    "flipped.nii.gz": {"axes": "LPS"},
    "float.nii.gz": {"dtype": np.float32},
    "double.nii": {"dtype": np.float64},
    "with_slope.nii.gz": {"slope": (0.37, -12.0)},
    "int32.hdr": {"dtype": np.int32},
}


@pytest.mark.parametrize("name", FORMS)
def test_every_way_of_storing_a_scan(tmp_path, head, save, name):
    scan = np.round(head(SHAPE))
    assert digest(save(tmp_path / "original.nii.gz", scan)) == digest(
        save(tmp_path / name, scan, **FORMS[name])
    )


def test_a_scaled_float_copy_and_a_freesurfer_file(tmp_path, head, save):
    scan = np.round(head(SHAPE)).astype(np.int16)
    original = digest(save(tmp_path / "original.nii.gz", scan))
    image = nib.load(tmp_path / "original.nii.gz")
    scaled = (scan * np.float32(0.0173) + np.float32(3.3)).astype(np.float32)
    nib.save(nib.Nifti1Image(scaled, image.affine), tmp_path / "scaled.nii.gz")
    assert digest(tmp_path / "scaled.nii.gz") == original
    nib.save(nib.MGHImage(scaled, image.affine), tmp_path / "scaled.mgz")
    canonical = nib.as_closest_canonical(nib.load(tmp_path / "scaled.mgz"))
    assert scan_digest(np.asanyarray(canonical.dataobj)) == original


def test_the_command_uses_one_of_all_forms(tmp_path, head, save):
    scan = np.round(head((24, 28, 26)))
    for name, form in FORMS.items():
        if not name.endswith(".hdr"):
            save(tmp_path / "v" / name, scan, zooms=(4.0, 4.0, 4.0), **form)
    save(tmp_path / "v" / "other.nii", np.round(head((24, 28, 26), seed=5)), zooms=(4.0, 4.0, 4.0))
    summary = extract(SlicesConfig((tmp_path / "v",), tmp_path / "store", size=32, workers=1))
    assert summary["volumes"] == 2
    # Each file's name is another person's.
    reason = "the same scan as v/big_endian.nii, which counts as another person's"
    assert {skip["reason"] for skip in summary["skipped"]} == {reason}
