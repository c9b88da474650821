"""The HDF5 side of MINC2: the parts needed, read from memory, with every chunk checked first.

HDF5's own filter doubles its buffer until a chunk fits, so a small file could exhaust memory; and links, external and
virtual data sets could lead to other files. Layout: "MINC2.0 file format reference" on en.wikibooks.org/wiki/MINC.
"""

from __future__ import annotations

import itertools
import zlib
from typing import Any

import h5py
import numpy as np
from nibabel.minc2 import Minc2File

from mri_transfer.datasets.volumes.formats.compressed import inflate
from mri_transfer.datasets.volumes.formats.minc import Parts
from mri_transfer.datasets.volumes.formats.stored import SLACK_BYTES, BadVolume, promised_bytes

_IMAGE = "minc-2.0/image/0"
_MOST_CHUNKS = 1 << 18
_DEFLATE, _CHECKSUM = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32


def open_minc2(blob: bytes, max_bytes: int) -> Parts:
    """Parse a file.

    Args:
        blob: its content.
        max_bytes: a larger image is rejected before anything is allocated.

    Raises:
        BadVolume: it is too large, or stores its data in another file or in a way that can't be bounded.
    """
    try:
        with h5py.File(h5py.h5f.open_file_image(blob), "r") as file:
            return _parts(file, max_bytes, len(blob))
    except (BadVolume, EOFError, MemoryError, zlib.error):
        raise
    except Exception:  # HDF5 raises many errors for damaged structure, nibabel for damaged attributes
        raise BadVolume("truncated or damaged HDF5 structure, or none of MINC's") from None


def _parts(file: Any, max_bytes: int, file_bytes: int) -> Parts:
    for name in (f"{_IMAGE}/image", f"{_IMAGE}/image-min", f"{_IMAGE}/image-max", "minc-2.0/dimensions"):
        _check_link(file, name)
    dimensions = file["minc-2.0/dimensions"]
    for name in dimensions:
        _check_link(dimensions, name)
    image, low, high = (file[f"{_IMAGE}/{name}"] for name in ("image", "image-min", "image-max"))
    voxels, real_low, real_high = (
        _dataset(variable, max_bytes, file_bytes) for variable in (image, low, high)
    )
    valid = image.attrs.get("valid_range")
    return Parts(
        voxels=voxels,
        names=_names(image),
        affine=Minc2File(file).get_affine(),
        valid_range=None if valid is None else np.asarray(valid, dtype=np.float64),
        real_low=real_low.astype(np.float64),
        real_high=real_high.astype(np.float64),
        range_names=_names(low),
    )


def _names(dataset: Any) -> tuple[str, ...]:
    order = dataset.attrs.get("dimorder", b"")
    text = order.decode() if isinstance(order, bytes) else str(order)
    return tuple(text.split(",")[: dataset.ndim]) if text else ()


def _check_link(file: Any, name: str) -> None:
    """Reject a path through anything but hard links, which stay in the file."""
    parts = name.split("/")
    for end in range(1, len(parts) + 1):
        path = "/".join(parts[:end])
        link = file.get(path, getlink=True)
        if link is None:
            raise BadVolume(f"not a MINC file: it has no {path}")
        if not isinstance(link, h5py.HardLink):
            raise BadVolume(f"its {path} is a link, which may lead to another file")


def _dataset(dataset: Any, max_bytes: int, file_bytes: int) -> np.ndarray:
    """A data set as an array, using no more memory than its shape promises."""
    if not isinstance(dataset, h5py.Dataset):
        raise BadVolume("not a MINC file: its image is not a data set")
    if dataset.shape is None or any(length < 1 for length in dataset.shape):
        raise BadVolume("an axis of length 0")
    if dataset.dtype.kind not in "iuf":
        raise BadVolume(f"{dataset.dtype} voxels, not real intensities")
    count = promised_bytes(dataset.shape, dataset.dtype, max_bytes)
    plan = dataset.id.get_create_plist()
    layout = plan.get_layout()
    if plan.get_external_count() or layout not in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT, h5py.h5d.CHUNKED):
        raise BadVolume("its voxels lie in another file; convert it to a plain .mnc")
    if layout != h5py.h5d.CHUNKED:
        if dataset.id.get_storage_size() < count or count > file_bytes:
            raise EOFError
        return np.asarray(dataset[()])
    _check_chunks(dataset, plan, file_bytes)
    return np.asarray(dataset[()])


def _check_chunks(dataset: Any, plan: Any, file_bytes: int) -> None:
    """Check that every chunk exists and expands no further than it should, before HDF5 reads it."""
    chunk = dataset.chunks
    size = int(np.prod(chunk, dtype=object)) * dataset.dtype.itemsize
    if size > dataset.nbytes + SLACK_BYTES:
        raise BadVolume("its chunks are far larger than its image")
    starts = [range(0, length, step) for length, step in zip(dataset.shape, chunk, strict=True)]
    if int(np.prod([len(axis_starts) for axis_starts in starts], dtype=object)) > _MOST_CHUNKS:
        raise BadVolume("its image lies in too many pieces")
    filters = [plan.get_filter(number)[0] for number in range(plan.get_nfilters())]
    if set(filters) - {_DEFLATE, h5py.h5z.FILTER_SHUFFLE, _CHECKSUM} or filters.count(_DEFLATE) > 1:
        raise BadVolume("compressed in a way that is not MINC's (gzip); convert it with mincconvert")
    for start in itertools.product(*starts):
        info = dataset.id.get_chunk_info_by_coord(start)
        if info.byte_offset is None:
            raise EOFError  # MINC writes every chunk
        if info.size > file_bytes or info.byte_offset + info.size > file_bytes:
            raise EOFError
        filter_mask, piece = dataset.id.read_direct_chunk(start)
        for number, code in reversed(list(enumerate(filters))):
            if filter_mask & (1 << number):
                continue
            if code == _CHECKSUM:
                piece = piece[:-4]
            elif code == _DEFLATE:
                inflate(piece, size + 4)  # may include a checksum
                break
