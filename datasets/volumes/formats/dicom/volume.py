"""From a DICOM series, or one multi-frame file, to a volume (extra `[dicom]`: pydicom)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from mri_transfer.datasets.volumes.formats.dicom.header import header_of, read_dataset, read_header
from mri_transfer.datasets.volumes.formats.dicom.series_tags import GREY, Frame, Header
from mri_transfer.datasets.volumes.formats.dicom.stack import Stack, by_key, by_orientation, stack
from mri_transfer.datasets.volumes.formats.stored import (
    BadVolume,
    Described,
    Stored,
    check_affine,
    promised_bytes,
)

_PLUGINS = 'pip install "pylibjpeg[all]", or decompress it (gdcmconv --raw)'


@dataclass(frozen=True)
class _Selection:
    """The images of the files that make the volume.

    Attributes:
        frames: frames of every file, without copies.
        owners: the file of each frame.
        used: the frames taken, in stack order.
        shape: rows and columns.
        stack: their geometry.
        notes: what was left out.
    """

    frames: list[Frame]
    owners: list[int]
    used: list[int]
    shape: tuple[int, int]
    stack: Stack
    notes: tuple[str, ...]


def describe(start: bytes, files: Sequence[Path], max_bytes: int) -> Described:
    """What the headers of a series' files say, assuming 16 bits per voxel."""
    selection = _select([read_header(path, max_bytes) for path in files])
    check_affine(selection.stack.affine)
    shape = (selection.shape[1], selection.shape[0], selection.stack.places[-1] + 1)
    promised_bytes(shape, np.dtype(np.uint16), max_bytes)
    return Described(shape, np.dtype(np.uint16), selection.stack.affine, notes=selection.notes)


def read(blobs: Sequence[bytes], files: Sequence[Path], max_bytes: int) -> Stored:
    """Read one volume.

    Args:
        blobs: the files of one series, in any order. If images don't fit together (different orientations, sizes or
            echoes), the largest group is taken.
        files: their names.
        max_bytes: more voxels are rejected before decoding any.
    """
    headers = []
    for blob in blobs:
        dataset = read_dataset(blob, max_bytes, pixels=False)
        headers.append(header_of(dataset))
        _check_pixels(dataset, len(headers[-1].frames))
    selection = _select(headers)
    check_affine(selection.stack.affine)
    voxels, negative = _decode(blobs, selection, max_bytes)
    notes = selection.notes
    if selection.stack.missing_mm:
        notes += (_fill(voxels, selection.stack),)
    slopes = {(selection.frames[index].slope, selection.frames[index].intercept) for index in selection.used}
    scale = slopes.pop() if len(slopes) == 1 else (1.0, 0.0)
    return Stored(voxels.transpose(2, 1, 0), selection.stack.affine, negative, notes, scale=scale)


def _select(headers: Sequence[Header]) -> _Selection:
    owners: list[int] = []
    frames: list[Frame] = []
    shapes: list[tuple[int, int]] = []
    seen: set[tuple[str, int]] = set()
    for number, header in enumerate(headers):
        for frame in header.frames:
            instance = header.tags.get("SOPInstanceUID", str(number)), frame.number
            if instance not in seen:  # otherwise a second copy of a file
                seen.add(instance)
                owners.append(number)
                frames.append(frame)
                shapes.append((header.rows, header.columns))
    frames, owners, shapes, notes = _plain(frames, owners, shapes)
    if any(frame.orientation is None or frame.position is None for frame in frames):
        raise BadVolume("no ImagePositionPatient or ImageOrientationPatient in its tags")
    indices = by_orientation(frames)[0]
    keys = [
        (*shapes[index], *(round(size, 3) for size in frames[index].spacing or ()), frames[index].echo)
        for index in indices
    ]
    indices = [indices[at] for at in by_key(keys)[0]]
    if len(indices) < len(frames):
        notes.append(f"{len(frames) - len(indices)} images of another orientation, size or echo left out")
    stacked = stack([frames[index] for index in indices])
    if stacked.extra:
        notes.append(f"{stacked.extra} images at positions already taken (later time points) left out")
    used = [indices[index] for index in stacked.chosen]
    return _Selection(frames, owners, used, shapes[indices[0]], stacked, tuple(notes))


def _plain(
    frames: list[Frame], owners: list[int], shapes: list[tuple[int, int]]
) -> tuple[list[Frame], list[int], list[tuple[int, int]], list[str]]:
    """Frames that are magnitudes as measured, if any; and a note on the others."""
    indices = [at for at, frame in enumerate(frames) if frame.is_plain]
    if not indices or len(indices) == len(frames):
        return frames, owners, shapes, []
    note = f"{len(frames) - len(indices)} frames that are not magnitude images (phase, derived) left out"
    return (
        [frames[at] for at in indices],
        [owners[at] for at in indices],
        [shapes[at] for at in indices],
        [note],
    )


def _check_pixels(dataset: Dataset, frames: int) -> None:
    """Reject pixels that are not intensities, or whose frame count differs from the header."""
    if dataset.get("SamplesPerPixel", 1) != 1:
        raise BadVolume("colour pixels, not intensities")
    if dataset.get("PhotometricInterpretation", GREY[0]) not in GREY:
        raise BadVolume(f"{str(dataset.PhotometricInterpretation)[:20]} pixels, not intensities")
    if int(dataset.get("NumberOfFrames", 1) or 1) != frames:
        raise BadVolume("several frames without functional groups that say where they lie")
    if dataset.get("BitsAllocated") not in (8, 16, 32):
        raise BadVolume(f"{dataset.get('BitsAllocated')} bits a pixel")
    rows, columns = int(dataset.get("Rows", 0) or 0), int(dataset.get("Columns", 0) or 0)
    if rows < 1 or columns < 1:
        raise BadVolume(f"an axis of length {min(rows, columns)}")


def _decode(blobs: Sequence[bytes], selection: _Selection, max_bytes: int) -> tuple[np.ndarray, bool]:
    """(slice, row, column), and whether larger numbers are darker."""
    frames, used, shape = selection.frames, selection.used, selection.shape
    count = selection.stack.places[-1] + 1
    slopes = {(frames[index].slope, frames[index].intercept) for index in used}
    own_scale = len(slopes) > 1
    place_of = dict(zip(used, selection.stack.places, strict=True))
    by_file: dict[int, list[int]] = {}
    for index in used:
        by_file.setdefault(selection.owners[index], []).append(index)
    voxels: np.ndarray | None = None
    negative = {frames[index].slope < 0 for index in used} == {True} and not own_scale
    for number in sorted(by_file):
        dataset = read_dataset(blobs[number], max_bytes)
        bits = np.dtype(f"u{int(dataset.BitsAllocated) // 8}")
        promised_bytes((int(dataset.get("NumberOfFrames", 1) or 1), *shape), bits, max_bytes)
        promised_bytes((count, *shape), bits, max_bytes)
        if not any(keyword in dataset for keyword in ("PixelData", "FloatPixelData")):
            raise BadVolume("no pixel data")
        pixels = _pixels(dataset, shape)
        if voxels is None:
            voxels = np.zeros(
                (count, *shape), dtype=np.float32 if own_scale else pixels.dtype.newbyteorder("=")
            )
            negative ^= dataset.get("PhotometricInterpretation") == "MONOCHROME1"
        elif pixels.dtype.newbyteorder("=") != voxels.dtype and not own_scale:
            raise BadVolume("its slices are stored as different types of numbers")
        for index in by_file[number]:
            plane = pixels[frames[index].number]
            if own_scale:
                frame = frames[index]
                plane = plane * np.float32(frame.slope) + np.float32(frame.intercept)
            voxels[place_of[index]] = plane
    assert voxels is not None
    return voxels, negative


def _pixels(dataset: Dataset, shape: tuple[int, int]) -> np.ndarray:
    """All frames of a file as (frame, row, column)."""
    try:
        pixels = np.asarray(dataset.pixel_array)
    except MemoryError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        syntax = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
        if syntax is not None and syntax.is_compressed and ("missing" in text or "plugin" in text.lower()):
            raise BadVolume(f"compressed as {syntax.name}; to read it, {_PLUGINS}") from None
        if "less than expected" in text or "unpad" in text or "expected length" in text:
            raise EOFError from None
        raise BadVolume(f"pixels can't be decoded ({text[:100]})") from None
    pixels = pixels.reshape(-1, *pixels.shape[-2:]) if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[1:] != shape:
        raise BadVolume(f"pixels of {' x '.join(map(str, pixels.shape))} and not {shape[0]} x {shape[1]}")
    return pixels


def _fill(voxels: np.ndarray, stacked: Stack) -> str:
    """Fill missing slices with the distance-weighted mean of their neighbours; returns a note."""
    present = np.asarray(stacked.places)
    for place in sorted(set(range(len(voxels))) - set(stacked.places)):
        at = int(np.searchsorted(present, place))
        before, after = present[at - 1], present[at]
        share = (place - before) / (after - before)
        mixed = (1 - share) * voxels[before].astype(np.float64) + share * voxels[after]
        voxels[place] = mixed if voxels.dtype.kind == "f" else np.rint(mixed)
    positions = ", ".join(f"{place:g}" for place in stacked.missing_mm[:5])
    plural = "s" * (len(stacked.missing_mm) > 1)
    return (
        f"{len(stacked.missing_mm)} slice{plural} missing, at {positions} mm, filled in from their neighbours"
    )
