"""FreeSurfer's `.mgh` and `.mgz`, on nibabel's header."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from nibabel.freesurfer.mghformat import DATA_OFFSET, MGHHeader

from mri_transfer.datasets.formats.compressed import start_of, voxel_bytes
from mri_transfer.datasets.formats.stored import (
    BadVolume,
    Stored,
    check_affine,
    check_voxel_type,
    promised_bytes,
    spatial_shape,
)


def read(blobs: Sequence[bytes], files: Sequence[Path], max_bytes: int) -> Stored:
    """Read one volume; `max_bytes` bounds the voxels that its header may promise."""
    head = start_of(blobs[0], DATA_OFFSET)
    if len(head) < DATA_OFFSET:
        raise EOFError
    header = MGHHeader(head)
    # The header object reports only as many axes as are in use; an empty one must be seen.
    shape = spatial_shape(header["dims"])
    try:
        dtype = header.get_data_dtype()
    except KeyError:
        raise BadVolume(f"voxels of an unknown type ({int(header['type'])})") from None
    check_voxel_type(dtype)
    affine = header.get_affine()
    check_affine(affine)
    count = promised_bytes(shape, dtype, max_bytes)
    content = voxel_bytes(blobs[0], DATA_OFFSET, count)
    notes = (
        () if header["goodRASFlag"] else ("orientation not stated; taken as FreeSurfer's coronal default",)
    )
    return Stored(np.frombuffer(content, dtype=dtype).reshape(shape, order="F"), affine, notes=notes)
