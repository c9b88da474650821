"""One volume written in every format, by libraries other than the readers' where there are some."""

from __future__ import annotations

import gzip
import locale
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mri_transfer.datasets.volumes.volume import BadVolume, read_volume

DIRECTIONS = {
    **{"R": (0, 1), "A": (1, 1), "S": (2, 1)},
    **{"L": (0, -1), "P": (1, -1), "I": (2, -1)},
}


class Scan:
    """Stored voxels and the affine that brings them to RAS mm."""

    def __init__(self, canonical: np.ndarray, zooms, axes: str = "RAS"):
        affine = np.diag([*zooms, 1.0])
        affine[:3, 3] = np.round(-np.array(canonical.shape) * zooms / 2, 2)
        to = nib.orientations.axcodes2ornt(tuple(axes))
        change = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt(tuple("RAS")), to)
        self.voxels = nib.orientations.apply_orientation(canonical, change)
        self.affine = affine @ nib.orientations.inv_ornt_aff(change, canonical.shape)
        self.axes = axes

    @property
    def zooms(self) -> np.ndarray:
        return np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))


def nifti(scan: Scan, path: Path, kind=nib.Nifti1Image) -> list[Path]:
    nib.save(kind(scan.voxels, scan.affine), path)
    if path.name.removesuffix(".gz").endswith(".img"):
        return [path.with_name(path.name.replace(".img", ".hdr")), path]
    return [path]


def analyze(scan: Scan, path: Path) -> list[Path]:
    """As OASIS-1 has them: 16-bit big-endian, the orientation only as a code."""
    code = {"LAS": 0, "LSA": 1, "ASL": 2, "LPS": 3, "LIA": 4, "AIL": 5}[scan.axes]
    header = nib.AnalyzeHeader(endianness=">")
    header.set_data_dtype(np.dtype(">i2"))
    header.set_data_shape(scan.voxels.shape)
    header.set_zooms(scan.zooms)
    nib.AnalyzeImage(scan.voxels.astype(">i2"), None, header).to_filename(path)
    files = [path.with_suffix(".hdr"), path]
    head = bytearray(files[0].read_bytes())
    head[252] = code
    files[0].write_bytes(head)
    return files


def mgh(scan: Scan, path: Path) -> list[Path]:
    nib.save(
        nib.MGHImage(scan.voxels.astype(np.float32 if scan.voxels.itemsize > 2 else np.int16), scan.affine),
        path,
    )
    return [path]


def _minc_axes(scan: Scan):
    """Slowest first: name, step, start of each axis, as minc-tools write them."""
    for axis in (2, 1, 0):
        canonical, sign = DIRECTIONS[scan.axes[axis]]
        name = f"{'xyz'[canonical]}space"
        yield name, float(sign * scan.zooms[axis]), float(scan.affine[canonical, 3]), np.eye(3)[canonical]


def minc1(scan: Scan, path: Path, scales: str = "each") -> list[Path]:
    """netCDF-3 by SciPy, each slice with its own range of real values as minc-tools write it."""
    from scipy.io import netcdf_file

    voxels, low, high = _to_short(scan.voxels, scales)
    plain = path.with_suffix("") if path.name.endswith(".gz") else path
    with netcdf_file(plain, "w") as file:
        names = []
        for (name, step, start, cosines), length in zip(_minc_axes(scan), voxels.shape, strict=True):
            names.append(name)
            file.createDimension(name, length)
            variable = file.createVariable(name, "d", ())
            variable.varid, variable.vartype = b"MINC standard variable", b"dimension____"
            variable.spacing, variable.alignment = b"regular__", b"centre"
            variable.step, variable.start, variable.direction_cosines = step, start, cosines
        image = file.createVariable("image", "h", tuple(names))
        image.signtype, image.valid_range = b"signed__", np.array([-32768.0, 32767.0])
        image[:] = voxels
        for name, values in (("image-min", low), ("image-max", high)):
            file.createVariable(name, "d", (names[0],))[:] = values
    if plain != path:
        path.write_bytes(gzip.compress(plain.read_bytes(), 1))
        plain.unlink()
    return [path]


def _to_short(voxels: np.ndarray, scales: str):
    """(z, y, x) signed shorts, and the real values of the ends of their range for each slice."""
    stack = voxels.transpose(2, 1, 0).astype(np.float64)
    low, high = stack.min(axis=(1, 2)), stack.max(axis=(1, 2))
    if scales == "one":
        low[:], high[:] = -32768.0, 32767.0
    high = np.where(high > low, high, low + 1)
    per_slice = (slice(None), None, None)
    short = np.rint((stack - low[per_slice]) / (high - low)[per_slice] * 65535 - 32768)
    return short.astype(np.int16), low, high


def minc2(scan: Scan, path: Path, scales: str = "each", **storage) -> list[Path]:
    """HDF5 by h5py, laid out as libminc does."""
    import h5py

    voxels, low, high = _to_short(scan.voxels, scales)
    storage = storage or {"chunks": tuple(min(10, n) for n in voxels.shape), "compression": "gzip"}
    with h5py.File(path, "w") as file:
        root = file.create_group("minc-2.0")
        dimensions = root.create_group("dimensions")
        names = []
        for (name, step, start, cosines), length in zip(_minc_axes(scan), voxels.shape, strict=True):
            names.append(name)
            variable = dimensions.create_dataset(name, data=np.int32(0))
            attributes = {
                "step": step,
                "start": start,
                "direction_cosines": cosines,
                "length": np.uint32(length),
            }
            for key, value in attributes.items():
                variable.attrs[key] = value
            variable.attrs["spacing"], variable.attrs["units"] = np.bytes_("regular__"), np.bytes_("mm")
        group = root.create_group("image").create_group("0")
        image = group.create_dataset("image", data=voxels, **storage)
        image.attrs["dimorder"] = np.bytes_(",".join(names))
        image.attrs["valid_range"] = np.array([-32768.0, 32767.0])
        for name, values in (("image-min", low), ("image-max", high)):
            group.create_dataset(name, data=values).attrs["dimorder"] = np.bytes_(names[0])
    return [path]


def nrrd(scan: Scan, path: Path, **header) -> list[Path]:
    import nrrd as pynrrd

    to_lps = np.diag([-1.0, -1.0, 1.0])
    fields = {
        "space": "left-posterior-superior",
        "space directions": (to_lps @ scan.affine[:3, :3]).T,
        "space origin": to_lps @ scan.affine[:3, 3],
        "kinds": ["domain"] * 3,
        "encoding": "gzip",
        **header,
    }
    pynrrd.write(str(path), scan.voxels, {key: value for key, value in fields.items() if value is not None})
    data = next(
        (path.with_suffix(end) for end in (".raw.gz", ".raw") if path.with_suffix(end).is_file()), None
    )
    return [path] if path.suffix == ".nrrd" else [path, data]


def sitk_image(scan: Scan):
    import SimpleITK as sitk

    to_lps = np.diag([-1.0, -1.0, 1.0])
    image = sitk.GetImageFromArray(np.ascontiguousarray(scan.voxels.transpose(2, 1, 0)))
    image.SetSpacing(scan.zooms.tolist())
    image.SetDirection((to_lps @ scan.affine[:3, :3] / scan.zooms).ravel().tolist())
    image.SetOrigin((to_lps @ scan.affine[:3, 3]).tolist())
    return image


def nrrd_by_itk(scan: Scan, path: Path) -> list[Path]:
    import SimpleITK as sitk

    sitk.WriteImage(sitk_image(scan), str(path), useCompression=True)
    return [path]


def metaimage(scan: Scan, path: Path, compressed: bool = False) -> list[Path]:
    """By SimpleITK, whose own format this is; a `.mhd` has its voxels in a file beside it."""
    import SimpleITK as sitk

    sitk.WriteImage(sitk_image(scan), str(path), useCompression=compressed)
    return [path] if path.suffix == ".mha" else [path, path.with_suffix(".zraw" if compressed else ".raw")]


SERIES_TAGS = {
    "Modality": "MR",
    "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
    "Manufacturer": "SIEMENS",
    "SeriesNumber": 3,
    "SeriesDescription": "t1_mpr_sag_iso",
    "PatientID": "P-017",
    "PatientName": "Doe^Jane",
    "StudyDate": "20190412",
    "EchoTime": 2.98,
    "RepetitionTime": 2300.0,
    "InversionTime": 900.0,
    "ScanningSequence": ["GR", "IR"],
    "MRAcquisitionType": "3D",
    "AcquisitionNumber": 1,
}


def dicom_slice(scan: Scan, index: int, uids: tuple[str, str], **tags):
    """One slice as a data set: little-endian explicit, monochrome, 16 bits."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    to_lps = np.diag([-1.0, -1.0, 1.0])
    columns = to_lps @ scan.affine[:3, :3]
    directions = columns / scan.zooms
    plane = scan.voxels[:, :, index].T
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = pydicom.uid.PYDICOM_IMPLEMENTATION_UID
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uids
    dataset.InstanceNumber = index + 1
    position = to_lps @ scan.affine[:3, 3] + columns[:, 2] * index
    dataset.ImagePositionPatient = [f"{value:.6g}" for value in position]
    dataset.ImageOrientationPatient = [f"{value:.6g}" for value in (*directions[:, 0], *directions[:, 1])]
    dataset.PixelSpacing = [f"{scan.zooms[1]:.6g}", f"{scan.zooms[0]:.6g}"]
    dataset.SliceThickness = f"{scan.zooms[2]:.6g}"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = plane.shape
    dataset.BitsAllocated = dataset.BitsStored = plane.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(plane.dtype.kind == "i")
    dataset.PixelData = np.ascontiguousarray(plane).tobytes()
    for key, value in {**SERIES_TAGS, **tags}.items():
        if value is None:
            if key in dataset:
                delattr(dataset, key)
        else:
            setattr(dataset, key, value)
    return dataset


def dicom(scan: Scan, folder: Path, change: Callable | None = None, name="IM{:04d}", **tags) -> list[Path]:
    """A series by pydicom, a file a slice; `change(dataset, index)` alters a slice, or drops it by returning None."""
    from pydicom.uid import generate_uid

    folder.mkdir(parents=True, exist_ok=True)
    uids = generate_uid(), generate_uid()
    files = []
    for index in range(scan.voxels.shape[2]):
        dataset = dicom_slice(scan, index, uids, **tags)
        if change is not None and (dataset := change(dataset, index)) is None:
            continue
        # Names in another order than positions, as scanners have them.
        path = folder / name.format((index * 7919) % 10007)
        dataset.save_as(path, enforce_file_format=True)
        files.append(path)
    return sorted(files)


def enhanced(scan: Scan, path: Path, change: Callable | None = None) -> list[Path]:
    """One multi-frame file with functional groups, as PS3.3 C.7.6.16 has them."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence
    from pydicom.uid import EnhancedMRImageStorage, generate_uid

    slices = [dicom_slice(scan, at, ("1.2.3", "1.2.3.4")) for at in range(scan.voxels.shape[2])]
    whole = slices[0]
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    whole.SeriesInstanceUID = generate_uid()
    whole.NumberOfFrames = len(slices)
    whole.PixelData = b"".join(dataset.PixelData for dataset in slices)
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = whole.PixelSpacing, whole.SliceThickness
    orientation.ImageOrientationPatient = whole.ImageOrientationPatient
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = (
        Sequence([measures]),
        Sequence([orientation]),
    )
    groups = []
    for number, dataset in enumerate(slices):
        place, content, scale, group = Dataset(), Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = dataset.ImagePositionPatient
        content.StackID, content.InStackPositionNumber, content.TemporalPositionIndex = "1", number + 1, 1
        scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = "1", "0", "US"
        group.PlanePositionSequence = Sequence([place])
        group.FrameContentSequence = Sequence([content])
        group.PixelValueTransformationSequence = Sequence([scale])
        groups.append(group)
    whole.SharedFunctionalGroupsSequence = Sequence([shared])
    whole.PerFrameFunctionalGroupsSequence = Sequence(groups)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(whole, keyword)
    if change is not None:
        change(whole)
    whole.save_as(path, enforce_file_format=True)
    return [path]


def dicom_by_gdcm(scan: Scan, folder: Path) -> list[Path]:
    """A series by SimpleITK, which writes with GDCM, as its own example of writing a series does."""
    import SimpleITK as sitk

    folder.mkdir(parents=True, exist_ok=True)
    image = sitk_image(scan)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    direction = image.GetDirection()
    orientation = [direction[at] for at in (0, 3, 6, 1, 4, 7)]
    files = []
    for index in range(image.GetDepth()):
        plane = image[:, :, index]
        values = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.4",
            "0008|0060": "MR",
            "0008|0008": "ORIGINAL\\PRIMARY\\M",
            "0010|0020": "itk7",
            "0020|000d": "1.2.826.0.1.3680043.2.1125.1",
            "0020|000e": "1.2.826.0.1.3680043.2.1125.1.7",
            "0020|0037": "\\".join(f"{value:.6g}" for value in orientation),
            "0020|0032": "\\".join(f"{v:.6g}" for v in image.TransformIndexToPhysicalPoint((0, 0, index))),
            "0020|0013": str(index + 1),
            "0018|0050": f"{image.GetSpacing()[2]:.6g}",
        }
        for tag, value in values.items():
            plane.SetMetaData(tag, value)
        path = folder / f"{index:03d}.dcm"
        writer.SetFileName(str(path))
        before = locale.setlocale(locale.LC_ALL)
        writer.Execute(plane)
        locale.setlocale(
            locale.LC_ALL, before
        )  # which GDCM leaves as "C", and then other tests can't read UTF-8
        files.append(path)
    return files


WRITERS: dict[str, Callable[[Scan, Path], list[Path]]] = {
    "nifti1": lambda scan, folder: nifti(scan, folder / "a.nii"),
    "nifti1-gz": lambda scan, folder: nifti(scan, folder / "a.nii.gz"),
    "nifti2": lambda scan, folder: nifti(scan, folder / "a2.nii", nib.Nifti2Image),
    "nifti1-pair": lambda scan, folder: nifti(scan, folder / "p.img", nib.Nifti1Pair),
    "nifti1-pair-gz": lambda scan, folder: nifti(scan, folder / "q.img.gz", nib.Nifti1Pair),
    "nifti2-pair": lambda scan, folder: nifti(scan, folder / "r.img", nib.Nifti2Pair),
    "mha": lambda scan, folder: metaimage(scan, folder / "m.mha"),
    "mha-packed": lambda scan, folder: metaimage(scan, folder / "z.mha", compressed=True),
    "mhd": lambda scan, folder: metaimage(scan, folder / "d.mhd"),
    "mhd-packed": lambda scan, folder: metaimage(scan, folder / "e.mhd", compressed=True),
    "mgh": lambda scan, folder: mgh(scan, folder / "a.mgh"),
    "mgz": lambda scan, folder: mgh(scan, folder / "a.mgz"),
    "minc1": lambda scan, folder: minc1(scan, folder / "a1.mnc"),
    "minc1-gz": lambda scan, folder: minc1(scan, folder / "a1.mnc.gz"),
    "minc1-one-scale": lambda scan, folder: minc1(scan, folder / "o1.mnc", "one"),
    "minc2": lambda scan, folder: minc2(scan, folder / "a2.mnc"),
    "minc2-one-scale": lambda scan, folder: minc2(scan, folder / "o2.mnc", "one"),
    "nrrd": lambda scan, folder: nrrd(scan, folder / "a.nrrd"),
    "nrrd-raw": lambda scan, folder: nrrd(scan, folder / "b.nrrd", encoding="raw"),
    "nhdr": lambda scan, folder: nrrd(scan, folder / "c.nhdr"),
    "nrrd-itk": lambda scan, folder: nrrd_by_itk(scan, folder / "d.nrrd"),
    "dicom": lambda scan, folder: dicom(scan, folder / "dicom"),
    "dicom-enhanced": lambda scan, folder: enhanced(scan, folder / "e.dcm"),
    "dicom-gdcm": lambda scan, folder: dicom_by_gdcm(scan, folder / "gdcm"),
}


LIMIT = 1 << 22  # bytes of voxels; the volumes of the tests have 10 KB
MOST_MEMORY = 100 << 20  # the limit, the margin behind it, and what libraries take


def read(files: list[Path], limit: int = LIMIT):
    """The volume or the reason; fails if it takes long or much memory."""
    start_time = time.monotonic()
    tracemalloc.start()
    try:
        return read_volume(files, limit)
    except BadVolume as error:
        reason = str(error)
        assert 0 < len(reason) < 200
        assert "\n" not in reason
        assert "more memory than there is" not in reason
        return reason
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MOST_MEMORY
        assert time.monotonic() - start_time < 30


def canonical(scan: Scan) -> np.ndarray:
    """The scan's voxels in RAS+."""
    return np.asanyarray(nib.as_closest_canonical(nib.Nifti1Image(scan.voxels, scan.affine)).dataobj)


class Formats:
    """Everything above in one place, as test modules can't import one another."""

    Scan = Scan
    WRITERS = WRITERS
    nifti, analyze, mgh, minc1, minc2, nrrd = map(staticmethod, (nifti, analyze, mgh, minc1, minc2, nrrd))
    metaimage = staticmethod(metaimage)
    read, canonical = staticmethod(read), staticmethod(canonical)
    dicom, dicom_slice, enhanced, dicom_by_gdcm = map(
        staticmethod, (dicom, dicom_slice, enhanced, dicom_by_gdcm)
    )


@pytest.fixture(scope="session")
def formats() -> type[Formats]:
    return Formats


@pytest.fixture
def scan(head) -> Scan:
    """A small one, of another length along every axis."""
    return Scan(head((16, 18, 17)).astype(np.int16), (1.0, 1.5, 2.0), "LPS")
