"""NIfTI-1 and -2 (`.nii`, `.nii.gz`, pairs) and Analyze 7.5 pairs, using nibabel's headers."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Header, Nifti1PairHeader
from nibabel.nifti2 import Nifti2Header, Nifti2PairHeader
from nibabel.spm99analyze import Spm99AnalyzeHeader

from mri_transfer.datasets.volumes.formats.compressed import start_of, voxel_bytes
from mri_transfer.datasets.volumes.formats.nifti_place import affine_of
from mri_transfer.datasets.volumes.formats.nifti_says import evidence_of
from mri_transfer.datasets.volumes.formats.stored import (
    BadVolume,
    Described,
    Evidence,
    Stored,
    check_affine,
    check_voxel_type,
    promised_bytes,
    spatial_shape,
    zooms_text,
)

# Axis directions of an Analyze image by the header's "orient": Mayo's Analyze 7.5 format description, with left and
# right as interpreted by its own software and FreeSurfer's mri_convert.
ANALYZE_AXES = {
    0: "LAS",  # transverse unflipped
    1: "LSA",  # coronal unflipped
    2: "ASL",  # sagittal unflipped
    3: "LPS",  # transverse flipped
    4: "LIA",  # coronal flipped
    5: "AIL",  # sagittal flipped
}
_DIRECTIONS = {
    **{"R": (1, 0, 0), "A": (0, 1, 0), "S": (0, 0, 1)},
    **{"L": (-1, 0, 0), "P": (0, -1, 0), "I": (0, 0, -1)},
}
# OASIS-1 stores RAW and SUBJ_111 sagittally, T88_111 transversely, as its fact sheet says ("Sag", "Tra"). The affines
# others use for the former (brainder.org, "Converting OASIS brains to NIfTI", 2011: rows 0 0 -1.25, 1 0 0, 0 1 0;
# Clinica's oasis-to-bids: 0 0 -1, 1 0 0, 0 1 0) are ASL, as in Mayo's table.
_OASIS_SAGITTAL = re.compile(r"OAS1_\d{4}_MR\d+.*(_mpr-\d+_anon|_sbj_111)\.", re.IGNORECASE)
_ORIENT = 252  # offset of "orient" in an Analyze header
_MAT_BYTES = 1 << 14  # SPM's .mat beside an image is a few hundred bytes


def is_nifti(head: bytes) -> bool:
    """Whether a file that begins with `head` (decompressed) is NIfTI, or the header of an Analyze pair."""
    return _header_class(head) is not None


def _header_class(head: bytes) -> Any:
    """One of nibabel's classes of headers, or None."""
    for single, pair, magic_at in (
        (Nifti1Header, Nifti1PairHeader, 344),
        (Nifti2Header, Nifti2PairHeader, 4),
    ):
        if single.may_contain_header(head):
            return single if head[magic_at : magic_at + 2] == b"n+" else pair
    return Spm99AnalyzeHeader if Spm99AnalyzeHeader.may_contain_header(head) else None


def describe(start: bytes, files: Sequence[Path], max_bytes: int) -> Described:
    """What a header says.

    Args:
        start: of the file, or of a pair's header file, at least a kilobyte; possibly gzipped.
        files: for names; an SPM `.mat` beside an Analyze image is read too.
        max_bytes: a header that promises more voxels is rejected.
    """
    head = start_of(start, 544)
    kind = _header_class(head)
    if kind is None:
        raise BadVolume("not a volume in a known format, whatever its name says")
    size = kind.template_dtype.itemsize
    # nibabel fixes sizes of zero and below on loading, and rejects voxels that begin within the header of a .nii.
    raw = kind(head[:size], check=False)
    notes: list[str] = []
    if kind in (Nifti1Header, Nifti2Header):
        raw["vox_offset"] = _first_voxel(raw, head, notes)
    offset = int(raw.get_data_offset())
    flat = raw.get_data_shape()
    if len(flat) == 2:  # one slice
        raw.set_data_shape((*flat, 1))
        if not raw["pixdim"][3] > 0:
            raw["pixdim"][3] = 1.0
    sizes = np.array(raw["pixdim"][1:4], dtype=np.float64)
    header = kind(raw.binaryblock, raw.endianness)
    shape, dtype = spatial_shape(header.get_data_shape()), header.get_data_dtype()
    check_voxel_type(dtype)
    if isinstance(header, Spm99AnalyzeHeader):
        affine, assumed = _analyze_affine(header, head, shape, files[-1])
        by_size, affine_notes = True, list(assumed)
    else:
        affine, by_size, affine_notes = affine_of(header, shape)
    notes += affine_notes
    if by_size and not (sizes > 0).all():
        if not (sizes != 0).all() or not np.isfinite(sizes).all():
            raise BadVolume(f"voxel size of {zooms_text(sizes)} mm in the header")
        notes.append(f"voxel size of {zooms_text(sizes)} mm in the header, taken as positive")
    check_affine(affine)
    promised_bytes(shape, dtype, max_bytes)
    slope, intercept = header.get_slope_inter()
    scale = (1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept))
    return Described(shape, dtype, affine, offset, scale[0] < 0, tuple(notes), evidence_of(header), scale)


def says_what_it_is(path: Path) -> Evidence | None:
    """What in a file's header shows that it is not an anatomical scan; None also if it can't be read."""
    try:
        with path.open("rb") as file:
            head = start_of(file.read(1 << 12), 544)
        kind = _header_class(head)
        if kind is None:
            return None
        return evidence_of(kind(head[: kind.template_dtype.itemsize], check=False))
    except Exception:  # reading it reports why
        return None


def read(blobs: Sequence[bytes], files: Sequence[Path], max_bytes: int) -> Stored:
    """Read one file, or a header and its image.

    Args:
        blobs: contents of `files`, possibly gzipped.
        files, max_bytes: as in :func:`describe`.
    """
    description = describe(blobs[0], files, max_bytes)
    content, notes = voxel_bytes(
        blobs[-1], description.offset, promised_bytes(description.shape, description.dtype, max_bytes)
    )
    voxels = np.frombuffer(content, dtype=description.dtype).reshape(description.shape, order="F")
    return Stored(
        voxels,
        description.affine,
        description.negative,
        (*description.notes, *notes),
        evidence=description.evidence,
        scale=description.scale,
    )


def _first_voxel(header: Any, head: bytes, notes: list[str]) -> int:
    """Voxel offset in a single file: after the header and its extensions, if the header gives an earlier one."""
    offset, size = float(header["vox_offset"]), header.template_dtype.itemsize
    least = size + 4
    if not np.isfinite(offset) or offset < 0 or offset >= least:
        return int(offset)  # int() rejects non-numbers
    if len(head) > size and head[size]:  # extensions follow, each with its own size first
        raise BadVolume(f"voxel offset of {offset:g}, within the header")
    notes.append(f"voxel offset of {offset:g} in the header, taken as {least}")
    return least


def _analyze_affine(
    header: Spm99AnalyzeHeader, head: bytes, shape: tuple[int, ...], image: Path
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The affine, and what was assumed for it."""
    if (affine := _spm_affine(image)) is not None:
        return affine, ()
    code = head[_ORIENT]
    if code == 0 and _OASIS_SAGITTAL.search(image.name):
        code = 2
    axes = ANALYZE_AXES.get(code, ANALYZE_AXES[0])
    notes = (f"orientation of an Analyze file taken as {axes}, by the header's code {head[_ORIENT]}",)
    if axes == "LAS":
        return header.get_best_affine(), notes  # honours SPM's origin
    zooms = np.abs(np.asarray(header["pixdim"][1:4], dtype=np.float64))
    affine = np.eye(4)
    affine[:3, :3] = np.transpose([_DIRECTIONS[letter] for letter in axes]) * zooms
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)  # position unknown: centre it
    return affine, notes


def _spm_affine(image: Path) -> np.ndarray | None:
    """The affine that SPM99 and SPM2 store in a `.mat` beside an image, or None."""
    path = image.with_suffix(".mat")
    if not path.is_file() or path.stat().st_size > _MAT_BYTES:
        return None
    from scipy.io import loadmat

    try:
        variables = loadmat(io.BytesIO(path.read_bytes()), variable_names=("mat", "M"))
    except Exception:  # damaged, or an unrelated file
        return None
    if "mat" in variables:
        affine = np.asarray(variables["mat"])
    elif "M" in variables:  # the older one is for an image flipped along x
        affine = np.diag([-1.0, 1.0, 1.0, 1.0]) @ np.asarray(variables["M"])
    else:
        return None
    if affine.shape != (4, 4) or affine.dtype.kind not in "iuf":
        return None
    to_one_based = np.eye(4)
    to_one_based[:3, 3] = 1.0  # SPM counts voxels from one
    return affine.astype(np.float64) @ to_one_based
