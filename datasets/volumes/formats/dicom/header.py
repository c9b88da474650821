"""The tags of one DICOM file as plain values; never reads more than the file holds.

Tag definitions: DICOM PS3.3, sections C.7.6 (images), C.8.3 (MR), C.7.6.16 (multi-frame functional groups).
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from mri_transfer.datasets.volumes.formats.compressed import inflate
from mri_transfer.datasets.volumes.formats.dicom.series_tags import Frame, Header
from mri_transfer.datasets.volumes.formats.stored import SLACK_BYTES, BadVolume, quiet_libraries

DEFLATED = "1.2.840.10008.1.2.1.99"
DIRECTORY = "1.2.840.10008.1.3.10"
_LONG_VRS = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV"}
_MOST_FRAMES = 1 << 16
_TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "Modality", "ImageType", "SeriesInstanceUID", "StudyInstanceUID"),
    *("SeriesNumber", "SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName", "PatientID"),
    *("PatientBirthDate", "PatientSex", "PatientSize", "Manufacturer", "ComplexImageComponent"),
    *("EchoPlanarPulseSequence", "AcquisitionContrast"),
    *("StudyDate", "AcquisitionNumber", "InstanceNumber", "TemporalPositionIdentifier", "EchoNumbers"),
    *("EchoTime", "RepetitionTime", "InversionTime", "ScanningSequence", "SequenceVariant", "FlipAngle"),
    *("AngioFlag", "ContrastBolusAgent", "DiffusionBValue", "MRAcquisitionType", "BodyPartExamined"),
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "NumberOfFrames"),
    *("PixelRepresentation", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    *("RescaleSlope", "RescaleIntercept", "ContrastBolusAgentSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
]


class _Clamped(io.BufferedReader):
    """A file that, asked for more bytes than it has, does not allocate them first."""

    def __init__(self, path: Path):
        super().__init__(io.FileIO(path))
        self._size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def read_header(path: Path, max_bytes: int) -> Header:
    """The header of a file on disk, without reading pixels.

    Raises:
        BadVolume: it is no DICOM image, or damaged.
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        start = file.read(1 << 16)
    if _transfer_syntax(start)[0] == DEFLATED:
        _check_deflated(path.read_bytes(), max_bytes)
    with _Clamped(path) as stream, _named_damage():
        return header_of(_parse(stream, stop_before_pixels=True, specific_tags=_TAGS))


def read_dataset(blob: bytes, max_bytes: int, pixels: bool = True) -> Dataset:
    """A file from memory; without `pixels`, only the tags that :func:`header_of` uses.

    Raises:
        BadVolume: it is no DICOM image, or damaged, or would inflate to more than `max_bytes`.
    """
    if _transfer_syntax(blob)[0] == DEFLATED:
        _check_deflated(blob, max_bytes)
    options: dict[str, Any] = {} if pixels else {"stop_before_pixels": True, "specific_tags": _TAGS}
    with _named_damage():
        return _parse(io.BytesIO(blob), **options)


@contextlib.contextmanager
def _named_damage() -> Iterator[None]:
    """A damaged file makes pydicom raise many kinds of errors, at once or when a tag is accessed."""
    try:
        with quiet_libraries():
            yield
    except (BadVolume, OSError, MemoryError):
        raise
    except EOFError:
        raise BadVolume("truncated: the file ends before its data do") from None
    except Exception as error:
        raise BadVolume(f"damaged DICOM ({' '.join(str(error).split())[:80]})") from None


def _parse(stream: Any, **options: Any) -> Dataset:
    dataset = pydicom.dcmread(stream, force=True, **options)
    if "SOPClassUID" not in dataset:
        raise BadVolume("not a DICOM image: it names no SOP class")
    if "TransferSyntaxUID" not in dataset.file_meta:  # stored without preamble; pydicom detected its encoding
        implicit, little = dataset.original_encoding
        plain = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else plain
    return dataset


def _transfer_syntax(blob: bytes) -> tuple[str, int]:
    """Transfer syntax of a file and the start of its data set, read without trusting any length."""
    syntax, at = "", 132
    while blob[at : at + 2] == b"\x02\x00" and at + 12 <= len(blob):
        long = blob[at + 4 : at + 6] in _LONG_VRS
        length = struct.unpack_from("<I" if long else "<H", blob, at + (8 if long else 6))[0]
        value = at + (12 if long else 8)
        if blob[at + 2 : at + 4] == b"\x10\x00":
            syntax = blob[value : value + min(length, 64)].rstrip(b"\0 ").decode("latin1")
        at = value + length
    return syntax, at


def _check_deflated(blob: bytes, max_bytes: int) -> None:
    """pydicom inflates all at once; first check that it is not a decompression bomb."""
    try:
        inflate(blob[_transfer_syntax(blob)[1] :], max_bytes + SLACK_BYTES, -zlib.MAX_WBITS)
    except (zlib.error, EOFError):
        raise BadVolume("truncated or damaged: its deflated data end too early") from None


def header_of(dataset: Dataset) -> Header:
    """Plain values of a data set.

    Raises:
        BadVolume: it has no meaningful pixels.
    """
    tags = {}
    for keyword in _TAGS:
        if keyword.endswith("Sequence") and keyword not in ("ScanningSequence",):
            continue
        value = _text(dataset, keyword)
        if value:
            tags[keyword] = value
    if "ContrastBolusAgentSequence" in dataset and "ContrastBolusAgent" not in tags:
        tags["ContrastBolusAgent"] = "stated"
    frames = _frames(dataset)
    if "EchoTime" not in tags and frames and frames[0].echo:
        tags["EchoTime"] = frames[0].echo
    return Header(
        tags=tags,
        image_type=tuple(word.strip().upper() for word in tags.get("ImageType", "").split("\\")),
        rows=int(_number(dataset, "Rows") or 0),
        columns=int(_number(dataset, "Columns") or 0),
        frames=frames,
    )


def _text(dataset: Dataset, keyword: str) -> str:
    try:
        value = dataset.get(keyword)
        if value is None:
            return ""
        many = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
        return "\\".join(map(str, value)).strip() if many else str(value).strip()
    except Exception:  # a value that doesn't match its type
        return ""


def _floats(dataset: Dataset | None, keyword: str, count: int) -> tuple[float, ...] | None:
    """`count` finite numbers of a tag, or None."""
    if dataset is None:
        return None
    try:
        value = dataset.get(keyword)
        numbers = tuple(float(number) for number in (value if count > 1 else (value,)))
    except Exception:  # absent, or a value that doesn't match its type
        return None
    finite = all(abs(number) < 1e12 for number in numbers)
    return numbers if len(numbers) == count and finite else None


def _number(dataset: Dataset | None, keyword: str) -> float | None:
    numbers = _floats(dataset, keyword, 1)
    return numbers[0] if numbers else None


def _frames(dataset: Dataset) -> tuple[Frame, ...]:
    shared = _first(dataset, "SharedFunctionalGroupsSequence")
    items = dataset.get("PerFrameFunctionalGroupsSequence")
    if not items:
        return (_frame(dataset, None, None, 0),)
    if len(items) > _MOST_FRAMES:
        raise BadVolume(f"{len(items)} frames in one file")
    return tuple(_frame(dataset, shared, item, number) for number, item in enumerate(items))


def _first(dataset: Dataset | None, keyword: str) -> Dataset | None:
    try:
        items = dataset.get(keyword) if dataset is not None else None
        return items[0] if items else None
    except Exception:  # not a sequence, though it should be
        return None


def _frame(dataset: Dataset, shared: Dataset | None, per_frame: Dataset | None, number: int) -> Frame:
    """One slice of a file: its tags are at the top level, or in per-frame or shared functional groups."""

    def group(keyword: str) -> Dataset:
        return _first(per_frame, keyword) or _first(shared, keyword) or dataset

    echo = group("MREchoSequence")
    content = group("FrameContentSequence")
    rescale = group("PixelValueTransformationSequence")
    slope, intercept = _number(rescale, "RescaleSlope"), _number(rescale, "RescaleIntercept")
    echo_time = _number(echo, "EffectiveEchoTime") or _number(dataset, "EchoTime")
    complex_part = (
        _text(group("MRImageFrameTypeSequence"), "ComplexImageComponent") if per_frame is not None else ""
    )
    frame_type = _text(group("MRImageFrameTypeSequence"), "FrameType") if per_frame is not None else ""
    diffusion = _first(per_frame, "MRDiffusionSequence") or _first(shared, "MRDiffusionSequence")
    time_point = _number(content, "TemporalPositionIndex") or _number(dataset, "TemporalPositionIdentifier")
    return Frame(
        number=number,
        position=_floats(group("PlanePositionSequence"), "ImagePositionPatient", 3),
        orientation=_floats(group("PlaneOrientationSequence"), "ImageOrientationPatient", 6),
        spacing=_floats(group("PixelMeasuresSequence"), "PixelSpacing", 2),
        slope=slope if slope else 1.0,  # zero would erase everything; as in NIfTI it means no scaling
        intercept=intercept or 0.0,
        echo=f"{echo_time:g}" if echo_time else "",
        order=(
            time_point or 0.0,
            _number(dataset, "AcquisitionNumber") or 0.0,
            _number(dataset, "InstanceNumber") or float(number),
        ),
        kinds=tuple(
            word.strip().upper() for word in f"{frame_type}\\{complex_part}".split("\\") if word.strip()
        ),
        diffusion=_number(diffusion, "DiffusionBValue") or 0.0,
    )
