"""MINC1 (netCDF-3) and MINC2 (HDF5) `.mnc`: geometry by nibabel, voxels by memory-bounded readers.

Conversion of stored to real values: "MINC1 programmer's guide", section "Pixel values and real values", on
en.wikibooks.org/wiki/MINC.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.externals.netcdf import netcdf_file
from nibabel.minc1 import Minc1File

from mri_transfer.datasets.volumes.formats.compressed import whole_bytes
from mri_transfer.datasets.volumes.formats.stored import (
    SLACK_BYTES,
    BadVolume,
    Described,
    Stored,
    check_affine,
    check_voxel_type,
    promised_bytes,
    spatial_shape,
)
from mri_transfer.words import size_in_words

HDF5 = b"\x89HDF\r\n\x1a\n"
NETCDF = (b"CDF\x01", b"CDF\x02")


@dataclass(frozen=True)
class Parts:
    """The content of a MINC file of either kind.

    Attributes:
        voxels: as stored, one axis per name in `names`.
        names: axis names, such as "zspace".
        affine: from indices of the three spatial axes, in file order, to RAS mm.
        valid_range: the range of valid stored values according to the file, or None.
        real_low, real_high: real values of these ends; one number, or one per slice.
        range_names: the axes of the latter two.
    """

    voxels: np.ndarray
    names: tuple[str, ...]
    affine: np.ndarray
    valid_range: np.ndarray | None
    real_low: np.ndarray
    real_high: np.ndarray
    range_names: tuple[str, ...]


def describe(start: bytes, files: Sequence[Path], max_bytes: int) -> Described:
    """What a header says. It may be anywhere in the file, so the whole file is read, if `max_bytes` allows."""
    if files[0].stat().st_size > max_bytes + SLACK_BYTES:
        raise BadVolume(f"file of {size_in_words(files[0].stat().st_size)}, more than --max-mb allows")
    stored = read([files[0].read_bytes()], files, max_bytes)
    return Described(stored.voxels.shape, stored.voxels.dtype, stored.affine, notes=stored.notes)


def read(blobs: Sequence[bytes], files: Sequence[Path], max_bytes: int) -> Stored:
    """Read one volume, gzipped or not; `max_bytes` bounds its decompressed size."""
    blob = whole_bytes(blobs[0], max_bytes)
    if blob.startswith(HDF5):
        from mri_transfer.datasets.volumes.formats.minc2 import open_minc2

        parts = open_minc2(blob, max_bytes)
    elif blob.startswith(NETCDF):
        parts = _open_minc1(blob)
    else:
        raise BadVolume("not a MINC file, whatever its name says")
    return _as_stored(parts, max_bytes)


def _open_minc1(blob: bytes) -> Parts:
    try:
        file = netcdf_file(io.BytesIO(blob), mmap=False)
    except MemoryError:
        raise
    except Exception as error:  # a damaged header may make the parser raise anything
        if any(word in str(error) for word in ("reshape", "buffer", "out of bounds")):
            raise EOFError from None
        raise BadVolume("damaged netCDF header") from None
    variables = file.variables
    if absent := [name for name in ("image", "image-min", "image-max") if name not in variables]:
        raise BadVolume(f"not a MINC file: it has no {absent[0]}")
    image, low, high = (variables[name] for name in ("image", "image-min", "image-max"))
    minc = Minc1File(file)
    valid = getattr(image, "valid_range", None)
    if valid is None and hasattr(image, "valid_min"):
        valid = [image.valid_min, getattr(image, "valid_max", np.nan)]
    return Parts(
        voxels=np.asarray(image.data).view(minc.get_data_dtype()),
        names=tuple(image.dimensions),
        affine=minc.get_affine(),
        valid_range=None if valid is None else np.asarray(valid, dtype=np.float64),
        real_low=np.asarray(low.data, dtype=np.float64),
        real_high=np.asarray(high.data, dtype=np.float64),
        range_names=tuple(low.dimensions),
    )


def _as_stored(parts: Parts, max_bytes: int) -> Stored:
    """Real values on three axes; integers are kept if all slices share one scale."""
    voxels, names = parts.voxels, parts.names
    if "vector_dimension" in names:
        raise BadVolume("colour or vector voxels, not intensities")
    check_voxel_type(voxels.dtype)
    spatial = [axis for axis, name in enumerate(names) if name.endswith("space")]
    if any(length != 1 for axis, length in enumerate(voxels.shape) if axis not in spatial):
        raise BadVolume(f"{voxels.ndim}-D series ({' x '.join(map(str, voxels.shape))}), not one 3-D volume")
    shape = spatial_shape([voxels.shape[axis] for axis in spatial])
    promised_bytes(shape, voxels.dtype, max_bytes)
    check_affine(parts.affine)
    if voxels.dtype.kind == "f":
        return Stored(voxels.reshape(shape), parts.affine)
    info = np.iinfo(voxels.dtype)
    low, high = (float(info.min), float(info.max)) if parts.valid_range is None else parts.valid_range
    if not info.min <= low < high <= info.max:
        raise BadVolume(f"valid range of {low:g} to {high:g} in {voxels.dtype.name} voxels")
    if parts.range_names != names[: len(parts.range_names)] or parts.real_low.shape != parts.real_high.shape:
        raise BadVolume("image-min and image-max belong to other axes than the image")
    slope = (parts.real_high - parts.real_low) / (high - low)
    offset = parts.real_low - low * slope
    if not (np.isfinite(slope).all() and np.isfinite(offset).all()):
        raise BadVolume("image-min or image-max is not finite")
    if low > info.min or high < info.max:
        voxels = np.clip(voxels, int(low), int(high))
    if np.ptp(slope) == 0 and np.ptp(offset) == 0 and slope.flat[0] != 0:
        return Stored(voxels.reshape(shape), parts.affine, negative=bool(slope.flat[0] < 0))
    per_slice = (..., *[None] * (voxels.ndim - slope.ndim))  # a slice's range applies to all its voxels
    real = voxels * slope[per_slice].astype(np.float32) + offset[per_slice].astype(np.float32)
    return Stored(real.astype(np.float32, copy=False).reshape(shape), parts.affine)
