"""Reading one volume: from a file on disk to a 3-D array in canonical orientation, or the reason why not."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.imageglobals import LoggingOutputSuppressor
from nibabel.spatialimages import SpatialImage

_SLACK_BYTES = (
    1 << 26
)  # more than this behind the voxels of a compressed file, and it is a decompression bomb
_PIECE_BYTES = 1 << 20
_LONGEST_ZOOM = 1000.0  # mm; beyond, the header is in other units or broken


class BadVolume(Exception):
    """A file that can't be used. The text says why, in a few words and without the file's name."""


@dataclass(frozen=True)
class Volume:
    """A volume in canonical orientation: axes run to the patient's right, front and top (RAS+).

    Attributes:
        voxels: (x, y, z) in the numbers stored in the file. A positive scale factor and an offset are left
            out, as everything made from the voxels is invariant under both; a negative one is honoured.
        zooms: distance between voxel centres along x, y and z, mm.
        origins: position of the first layer of voxels along each axis, mm, in scanner coordinates on that
            axis.
        sha256: of the file's bytes (of the header's and then the image's, for a pair).
        content: digest of voxel values and shape, the same for copies under another name or compression.
        notes: what was mended on the way.
    """

    voxels: np.ndarray
    zooms: tuple[float, float, float]
    origins: tuple[float, float, float]
    sha256: str
    content: str
    notes: tuple[str, ...] = ()


def read_volume(files: Sequence[Path], max_bytes: int = 1 << 30) -> Volume:
    """Read a volume from a `.nii`, a `.nii.gz`, or an Analyze or NIfTI pair.

    Args:
        files: one file, or a header and its image.
        max_bytes: a file, or a header that promises voxels, beyond this is refused before anything is
            allocated.

    Raises:
        BadVolume: the file is broken, or is not one 3-D volume of real numbers with something in it.
    """
    try:
        for path in files:
            if path.stat().st_size > max_bytes + _SLACK_BYTES:
                raise BadVolume(f"file of {_size(path.stat().st_size)}, more than --max-mb allows")
        blobs = [path.read_bytes() for path in files]
        digest = hashlib.sha256()
        for blob in blobs:
            digest.update(blob)
        with LoggingOutputSuppressor():
            image = nib.load(files[-1])
            proxy, affine = image.dataobj, image.affine
            shape = _spatial_shape(proxy.shape)
            _check_voxel_type(proxy.dtype)
            _check_geometry(image, affine, blobs[0])
        promised = int(np.prod(shape, dtype=object)) * proxy.dtype.itemsize
        if promised > max_bytes:
            raise BadVolume(f"header promises {_size(promised)} of voxels, more than --max-mb allows")
        stored = _voxel_bytes(blobs[-1], proxy.offset, promised)
        del blobs
    except (OSError, EOFError, zlib.error, ImageFileError) as error:
        raise BadVolume(_why_unreadable(error)) from None
    except MemoryError:
        raise BadVolume("needs more memory than there is") from None
    except BadVolume:
        raise
    except Exception as error:  # a damaged header makes nibabel raise many kinds
        raise BadVolume(f"header not understood ({' '.join(str(error).split())[:100]})") from None

    voxels = np.frombuffer(stored, dtype=proxy.dtype).reshape(shape, order="F")
    content = hashlib.sha256(f"{shape} {proxy.dtype.str} {proxy.slope < 0}".encode())
    content.update(stored)
    voxels, notes = _finite_native(voxels, negative=proxy.slope < 0)
    canonical = nib.as_closest_canonical(SpatialImage(voxels, affine))
    columns = canonical.affine[:3, :3]
    zooms = np.sqrt((columns**2).sum(axis=0))
    x, y, z = (float(zoom) for zoom in zooms)
    right, front, top = (float(origin) for origin in canonical.affine[:3, 3] @ (columns / zooms))
    return Volume(
        voxels=np.asanyarray(canonical.dataobj),
        zooms=(x, y, z),
        origins=(right, front, top),
        sha256=digest.hexdigest(),
        content=content.hexdigest(),
        notes=notes,
    )


def _size(count: int) -> str:
    return f"{count / 1e9:.3g} GB" if count < 1e12 else f"{count / 1e12:.3g} TB"


def _why_unreadable(error: Exception) -> str:
    if isinstance(error, EOFError) or "Expected" in str(error):
        return "truncated: the file ends before its data do"
    if isinstance(error, (zlib.error, gzip.BadGzipFile)):
        return f"damaged compression ({error}); fetch it again"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if "Empty file" in str(error):
        return "empty file"
    return "not a volume in a known format, whatever its name says"


def _spatial_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without trailing axes of length one beyond the third."""
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if any(length < 1 for length in shape):
        raise BadVolume(f"an axis of length {min(shape)}")
    if len(shape) > 3:
        raise BadVolume(f"{len(shape)}-D series ({' x '.join(map(str, shape))}), not one 3-D volume")
    if len(shape) < 3:
        raise BadVolume(f"{len(shape)}-D, not a 3-D volume")
    return shape


def _check_voxel_type(dtype: np.dtype) -> None:
    if dtype.fields is not None:
        raise BadVolume("colour (RGB) voxels, not intensities")
    if dtype.kind not in "iuf":
        raise BadVolume(f"{dtype.name} voxels, not real intensities")


def _check_geometry(image: SpatialImage, affine: np.ndarray | None, head: bytes) -> None:
    """Refuse an affine that is no change of coordinates, and voxel sizes that nibabel would quietly mend."""
    if affine is None or not np.isfinite(affine).all():
        raise BadVolume("affine is not finite")
    header = image.header
    if not ("sform_code" in header and int(header["sform_code"]) > 0):
        # The sizes count, and nibabel replaces zero and negative ones by 1 and their absolute value on
        # loading.
        if head[:2] == b"\x1f\x8b":
            head = gzip.GzipFile(fileobj=io.BytesIO(head)).read(header.template_dtype.itemsize)
        stated = type(header)(head[: header.template_dtype.itemsize], check=False)["pixdim"][1:4]
        if not (stated > 0).all():
            raise BadVolume(f"voxel size of {' x '.join(f'{zoom:g}' for zoom in stated)} mm in the header")
    zooms = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    if not (zooms > 0).all() or np.abs(np.linalg.det(affine[:3, :3] / zooms)) < 1e-3:
        raise BadVolume("affine is singular: voxels have no volume")
    if zooms.max() > _LONGEST_ZOOM:
        raise BadVolume(f"voxel size of {' x '.join(f'{zoom:g}' for zoom in zooms)} mm")


def _voxel_bytes(blob: bytes, offset: int, count: int) -> memoryview:
    """The `count` bytes of voxels, with the checksum of a compressed file verified."""
    if blob[:2] != b"\x1f\x8b":
        if len(blob) < offset + count:
            raise EOFError
        return memoryview(blob)[offset : offset + count]
    with gzip.GzipFile(fileobj=io.BytesIO(blob)) as stream:
        if len(stream.read(offset)) < offset:
            raise EOFError
        voxels = memoryview(bytearray(count))
        done = 0
        while done < count:
            more = stream.readinto(voxels[done:])
            if not more:
                raise EOFError
            done += more
        behind = 0
        while piece := stream.read(_PIECE_BYTES):  # to the end, where the checksum is
            behind += len(piece)
            if behind > _SLACK_BYTES:
                raise BadVolume("decompresses to far more than its header says")
    return voxels


def _finite_native(voxels: np.ndarray, negative: bool) -> tuple[np.ndarray, tuple[str, ...]]:
    """Voxels in this machine's byte order, at most 4 bytes a float, every one finite; and notes."""
    notes: tuple[str, ...] = ()
    if voxels.dtype.kind == "f" or negative:
        with np.errstate(over="ignore", invalid="ignore"):
            voxels = voxels.astype(np.float32, order="F")
        if negative:
            np.negative(voxels, out=voxels)
        bad = ~np.isfinite(voxels)
        missing = int(np.count_nonzero(bad))
        if missing == voxels.size:
            raise BadVolume("no finite voxel")
        if missing:
            voxels[bad] = voxels[~bad].min()
            notes = (f"{missing} voxels not finite, taken as background",)
    elif not voxels.dtype.isnative:
        voxels = voxels.astype(voxels.dtype.newbyteorder("="), order="F")
    low, high = voxels.min(), voxels.max()
    if low == high:
        raise BadVolume("all voxels are zero" if low == 0 else f"all voxels have the same value, {low:g}")
    return voxels, notes
