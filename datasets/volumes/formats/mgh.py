"""FreeSurfer's `.mgh` and `.mgz`, using nibabel's header."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from nibabel.freesurfer.mghformat import DATA_OFFSET, MGHHeader

from mri_transfer.datasets.volumes.formats.compressed import start_of, voxel_bytes
from mri_transfer.datasets.volumes.formats.stored import (
    BadVolume,
    Described,
    Stored,
    check_affine,
    check_voxel_type,
    promised_bytes,
    spatial_shape,
)


def describe(start: bytes, files: Sequence[Path], max_bytes: int) -> Described:
    """What the header at the start of a file, possibly gzipped, says; `max_bytes` bounds the voxels."""
    head = start_of(start, DATA_OFFSET)
    if len(head) < DATA_OFFSET:
        raise EOFError
    header = MGHHeader(head)
    # The header object reports only axes in use, but an empty one must be detected.
    shape = spatial_shape(header["dims"])
    try:
        dtype = header.get_data_dtype()
    except KeyError:
        raise BadVolume(f"voxels of an unknown type ({int(header['type'])})") from None
    check_voxel_type(dtype)
    affine = header.get_affine()
    check_affine(affine)
    promised_bytes(shape, dtype, max_bytes)
    notes = (
        () if header["goodRASFlag"] else ("orientation not stated; taken as FreeSurfer's coronal default",)
    )
    return Described(shape, dtype, affine, DATA_OFFSET, notes=notes)


def read(blobs: Sequence[bytes], files: Sequence[Path], max_bytes: int) -> Stored:
    """Read one volume; `max_bytes` bounds the voxels its header may promise."""
    description = describe(blobs[0], files, max_bytes)
    content, notes = voxel_bytes(
        blobs[0], description.offset, promised_bytes(description.shape, description.dtype, max_bytes)
    )
    voxels = np.frombuffer(content, dtype=description.dtype).reshape(description.shape, order="F")
    return Stored(voxels, description.affine, notes=(*description.notes, *notes))
