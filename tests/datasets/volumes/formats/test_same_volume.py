"""One head through every format, written by different libraries, is the same canonical volume."""

from __future__ import annotations

import sys

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mri_transfer.datasets.slices.content import scan_digest
from mri_transfer.datasets.slices.cut import cut
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.datasets.volumes.find import find_volumes
from mri_transfer.datasets.volumes.volume import BadVolume, read_volume

FORMATS = (
    *("nifti1", "nifti1-gz", "nifti2", "nifti1-pair", "nifti1-pair-gz", "nifti2-pair", "mgh", "mgz", "minc1"),
    *("minc1-gz", "minc1-one-scale", "minc2", "minc2-one-scale", "nrrd", "nrrd-raw", "nhdr", "nrrd-itk"),
    *("dicom", "dicom-enhanced", "dicom-gdcm", "mha", "mha-packed", "mhd", "mhd-packed"),
)
SCALED = {"minc1", "minc1-gz", "minc2"}  # each slice in its own 16-bit range, as minc-tools write: not exact


def test_every_writer_is_tried(formats):
    assert set(FORMATS) == set(formats.WRITERS)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("axes", ["LPS", "PIR"])
def test_the_same_head_gives_the_same_slices(formats, head, tmp_path, name, axes):
    voxels, zooms = head((30, 36, 33)).astype(np.int16), (1.0, 1.5, 2.0)
    volume = read_volume(formats.WRITERS[name](formats.Scan(voxels, zooms, axes), tmp_path))
    np.testing.assert_allclose(volume.voxels, voxels, atol=2e-3)
    assert volume.zooms == pytest.approx(zooms, rel=1e-5)
    assert volume.origins == pytest.approx(np.round(-np.array(voxels.shape) * zooms / 2, 2), abs=1e-3)
    reference = read_volume(formats.nifti(formats.Scan(voxels, zooms), tmp_path / "reference.nii"))
    if name not in SCALED:
        assert scan_digest(volume.voxels) == scan_digest(reference.voxels)
    ours, theirs = cut(volume, 48), cut(reference, 48)
    assert ours.plane == theirs.plane
    np.testing.assert_allclose(ours.position_mm, theirs.position_mm, atol=2e-3)
    assert np.abs(ours.images.astype(int) - theirs.images).max() <= 1


@pytest.mark.parametrize("axes", ["LAS", "LSA", "ASL", "LPS", "LIA", "AIL"])
def test_an_analyze_file_by_its_code_comes_out_upright(formats, head, tmp_path, axes):
    voxels = head((30, 36, 33)).astype(np.int16)
    voxels[:, 30:, :] += 200  # the face
    voxels[:, :, 28:] += 400  # the top
    voxels[25:] += 800  # the right
    volume = read_volume(formats.analyze(formats.Scan(voxels, (1.0, 1.5, 2.0), axes), tmp_path / "a.img"))
    np.testing.assert_array_equal(volume.voxels, voxels)
    assert volume.zooms == pytest.approx((1.0, 1.5, 2.0))
    assert any(axes in note for note in volume.notes)


@pytest.mark.parametrize("name", ["OAS1_0001_MR1_mpr-1_anon", "OAS1_0001_MR1_mpr_n4_anon_sbj_111"])
def test_oasis_is_sagittal_also_where_the_header_does_not_say(formats, head, tmp_path, name):
    voxels = head((30, 36, 33)).astype(np.int16)
    voxels[:, 30:, 28:] += 300
    header, image = formats.analyze(formats.Scan(voxels, (1.25, 1.0, 1.0), "ASL"), tmp_path / f"{name}.img")
    head_bytes = bytearray(header.read_bytes())
    head_bytes[252] = 0
    header.write_bytes(head_bytes)
    np.testing.assert_array_equal(read_volume([header, image]).voxels, voxels)


def test_an_spm_mat_beside_an_image_says_where_it_lies(head, tmp_path):
    voxels = head((30, 36, 33)).astype(np.int16)
    affine = np.array([[0, 0, 2.0, -30], [1.0, 0, 0, -20], [0, -1.5, 0, 40], [0, 0, 0, 1]])
    nib.save(nib.Spm99AnalyzeImage(voxels, affine), tmp_path / "a.img")
    assert (tmp_path / "a.mat").is_file()
    volume = read_volume([tmp_path / "a.hdr", tmp_path / "a.img"])
    reference = nib.as_closest_canonical(nib.Nifti1Image(voxels, affine))
    np.testing.assert_array_equal(volume.voxels, np.asanyarray(reference.dataobj))
    assert volume.origins == pytest.approx(tuple(reference.affine[:3, 3]))


dtypes = st.sampled_from(["u1", "i2", "u2", "i4", "f4"])
orders = st.sampled_from(["RAS", "LAS", "LPS", "ASL", "PIR", "SRP", "ILA", "RSA"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(3, 9), st.integers(3, 9), st.integers(3, 9)),
    zooms=st.tuples(*[st.sampled_from([0.5, 0.9375, 1.0, 2.5])] * 3),
    axes=orders,
    dtype=dtypes,
    name=st.sampled_from(FORMATS),
    seed=st.integers(0, 1000),
)
def test_round_trips_of_any_shape_and_type(formats, tmp_path_factory, shape, zooms, axes, dtype, name, seed):
    voxels = np.random.default_rng(seed).integers(0, 250, shape).astype(dtype)
    if name.startswith("mgh") or name == "mgz":
        voxels = (
            voxels.astype(np.float32)
            if dtype in ("i4", "u2")
            else voxels.astype("i2" if dtype == "i2" else "f4")
        )
    if name.startswith("dicom"):
        voxels = voxels.astype({"i4": "i2", "f4": "u2"}.get(dtype, dtype))
    folder = tmp_path_factory.mktemp("round")
    volume = read_volume(formats.WRITERS[name](formats.Scan(voxels, zooms, axes), folder))
    np.testing.assert_allclose(volume.voxels, voxels, atol=4e-3)
    assert volume.zooms == pytest.approx(zooms, rel=1e-5)


def test_the_command_reads_every_format_in_one_run_and_a_scan_in_all_of_them_once(
    formats, head, tmp_path, cli
):
    voxels = np.round(head((30, 36, 33)) * 8).astype(np.int16)
    for name, write in formats.WRITERS.items():
        (tmp_path / "all" / name).mkdir(parents=True)
        noise = np.random.default_rng(FORMATS.index(name)).integers(0, 400, voxels.shape).astype(np.int16)
        write(formats.Scan(voxels + noise, (4.0, 4.0, 4.0), "LPS"), tmp_path / "all" / name)
        (tmp_path / "one" / name).mkdir(parents=True)
        write(formats.Scan(voxels, (4.0, 4.0, 4.0), "PIR"), tmp_path / "one" / name)
    table = tmp_path / "subjects.csv"
    sources = find_volumes([tmp_path / "all", tmp_path / "one"]).sources
    table.write_text(
        "file,subject\n" + "".join(f'"{source.name}",{source.name.split("/")[0]}\n' for source in sources)
    )
    options = ("--table", table, "--size", "32", "--workers", "1", "--max-correlation")
    done = cli("slices", tmp_path / "all", "--out", tmp_path / "store", *options, "1")
    assert done.returncode == 0, done.stderr
    store = SliceStore.open(tmp_path / "store")
    assert {volume["source"].split("/")[1] for volume in store.volumes} == set(FORMATS)
    assert store.manifest["skipped"] == []
    assert cli("slices", tmp_path / "one", "--out", tmp_path / "once", *options, "0.97").returncode == 0
    store = SliceStore.open(tmp_path / "once")
    assert len(store.volumes) == 1
    reasons = {skip["reason"].split(" as ")[0] for skip in store.manifest["skipped"]}
    assert len(store.manifest["skipped"]) == len(FORMATS) - 1
    assert reasons <= {
        "the same scan",
        "shows nothing that another scan of the subject does not; see --max-correlation",
    }


def test_without_pynrrd_the_reason_names_the_extra(formats, head, tmp_path, monkeypatch):
    files = formats.nrrd(
        formats.Scan(head((8, 9, 7)).astype(np.int16), (1.0, 1.0, 1.0), "RAS"), tmp_path / "a.nrrd"
    )
    monkeypatch.setitem(sys.modules, "nrrd", None)  # as if it were not installed
    (source,) = find_volumes([tmp_path]).sources
    assert source.files == tuple(files)
    with pytest.raises(BadVolume, match=r"pip install 'mri-transfer\[nrrd\]'"):
        read_volume(files)


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii"])
@pytest.mark.parametrize("dtype", [">i2", "<i2", ">f4", "u1"])
def test_nrrd_encodings_and_byte_orders(formats, head, tmp_path, encoding, dtype):
    scan = formats.Scan(np.round(head((8, 9, 7))).astype(dtype), (1.0, 1.5, 2.0), "PIR")
    volume = read_volume(formats.nrrd(scan, tmp_path / "a.nrrd", encoding=encoding))
    np.testing.assert_array_equal(volume.voxels, np.round(head((8, 9, 7))))


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("nifti1-gz", "a.nii"),
        ("nifti1", "a.nii.gz"),
        ("mgz", "a.mgh"),
        ("mgh", "a.mgz"),
        ("nrrd", "a.nii"),
        ("minc2", "a.mnc.gz"),
        ("minc1-gz", "a.mnc"),
        ("dicom-enhanced", "a.nii"),
    ],
)
def test_content_and_not_the_name_tells_the_format(formats, head, tmp_path, name, called):
    voxels = head((12, 14, 13)).astype(np.int16)
    (file,) = formats.WRITERS[name](formats.Scan(voxels, (1.0, 1.0, 1.0), "RAS"), tmp_path)
    volume = read_volume([file.rename(tmp_path / called)])
    np.testing.assert_allclose(volume.voxels, voxels, atol=2e-3)
