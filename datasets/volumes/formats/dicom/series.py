"""From DICOM files to the series worth reading: grouped, named, with a reason for everything left out."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from mri_transfer.datasets.volumes.formats.dicom.contrast import sequence_of_tags
from mri_transfer.datasets.volumes.formats.dicom.header import DIRECTORY, read_header
from mri_transfer.datasets.volumes.formats.dicom.identity import id_text, people
from mri_transfer.datasets.volumes.formats.dicom.series_kind import reason_of_kind
from mri_transfer.datasets.volumes.formats.dicom.series_tags import Frame, Header
from mri_transfer.datasets.volumes.formats.dicom.stack import FEWEST, by_key, by_orientation, repeats
from mri_transfer.datasets.volumes.formats.stored import DEFAULT_LIMIT, BadVolume
from mri_transfer.progress import bar
from mri_transfer.words import counted

_LONGEST_NAME = 64  # characters of a description
_REPEATED = "repeats the SOPInstanceUID"


@dataclass(frozen=True)
class Series:
    """Files that make one volume.

    Attributes:
        files: sorted by name; the reader orders them.
        label: the series' label within its folder: number, description and echo.
        patient: patient's ID, or "" if uninformative.
        unused_id: a patient's ID that says something but seems to be several people's, else "".
        session: date of the study, or "".
        sequence: in :data:`naming.SEQUENCES`.
    """

    files: tuple[Path, ...]
    label: str
    patient: str
    unused_id: str
    session: str
    sequence: str


@dataclass(frozen=True)
class LeftOut:
    """Files of one series, or one file, that make no volume. `broken`: bad files, not ones left out by a rule."""

    files: tuple[Path, ...]
    label: str
    reason: str
    broken: bool = False


def group_series(files: Sequence[Path], include: Collection[str] = ()) -> tuple[list[Series], list[LeftOut]]:
    """Read the headers of DICOM files and group them.

    Args:
        files: those that look like DICOM.
        include: kinds in :data:`left_out.KINDS` to keep though not plain anatomical MR images.

    Returns:
        Series by the name of their first file, and what was left out, with reasons.
    """
    series: list[Series] = []
    out: list[LeftOut] = []
    groups: dict[tuple[str, ...], list[tuple[Path, Header]]] = {}
    for path in bar(sorted(files), desc="DICOM headers", unit="file"):
        try:
            header = read_header(path, DEFAULT_LIMIT)
        except BadVolume as error:
            out.append(LeftOut((path,), "", str(error), broken=True))
            continue
        except OSError as error:
            out.append(LeftOut((path,), "", (error.strerror or str(error)).lower(), broken=True))
            continue
        if header.tags.get("SOPClassUID") == DIRECTORY:
            continue  # an index of files found anyway
        uid = header.tags.get("SeriesInstanceUID")
        key = (header.tags.get("StudyInstanceUID", ""), uid) if uid else ("", str(path.parent))
        groups.setdefault(key, []).append((path, header))
    patient_names = people([member for members in groups.values() for member in members])
    for members in groups.values():
        _take_apart(members, include, patient_names, series, out)
    order = sorted(range(len(series)), key=lambda at: series[at].files[0])
    return [series[at] for at in order], sorted(out, key=lambda entry: entry.files[0])


def _take_apart(
    members: list[tuple[Path, Header]],
    include: Collection[str],
    patient_names: dict[tuple[str, str], str],
    series: list[Series],
    out: list[LeftOut],
) -> None:
    """Split one series: drop all but plain anatomical images, then stack by orientation, size and echo."""
    usable: list[tuple[Path, Header]] = []
    refused: dict[str, list[Path]] = {}
    instances: dict[str, Frame] = {}
    siblings = Counter(path.parent for path, _ in members)
    repeated = 0
    for path, header in sorted(
        members, key=lambda member: (-siblings[member[0].parent], member[0])
    ):  # a stray copy last
        instance = header.tags.get("SOPInstanceUID", str(path))
        if reason := reason_of_kind(header, include):
            refused.setdefault(reason, []).append(path)
        elif instance not in instances:
            instances[instance] = header.frames[0]
            usable.append((path, header))
        elif header.frames[0].position == instances[instance].position:
            refused.setdefault("a copy of another file of its series", []).append(path)
        else:
            repeated += 1
            refused.setdefault(f"{_REPEATED} of another file at another position", []).append(path)
    usable.sort(key=lambda member: member[0])
    label = label_of(members[0][1])
    for reason, paths in refused.items():
        out.append(LeftOut(tuple(paths), label, _with_count(reason, len(paths))))
    single = [(path, header) for path, header in usable if len(header.frames) == 1]
    for path, header in usable:
        if len(header.frames) > 1 and not _is_time_series([header], (path,), label, include, out):
            series.append(_series((path,), header, label, patient_names))
    if not single:
        return
    located = [member for member in single if _is_located(member[1].frames[0])]
    if unlocated := [path for path, header in single if not _is_located(header.frames[0])]:
        reason = "no ImagePositionPatient, ImageOrientationPatient or PixelSpacing in its tags"
        out.append(LeftOut(tuple(unlocated), label, _with_count(reason, len(unlocated)), broken=True))
    headers = [header for _, header in located]
    if located and _is_time_series(headers, tuple(path for path, _ in located), label, include, out):
        return
    try:
        stacks = _stacks(located, label, out)
    except BadVolume as error:
        out.append(LeftOut(tuple(path for path, _ in located), label, _with_count(str(error), len(located))))
        return
    for group in stacks:
        files, header = tuple(path for path, _ in group), group[0][1]
        echoes = len({header.frames[0].echo for _, header in single})
        name = f"{label} echo {header.frames[0].echo} ms" if echoes > 1 else label
        if len(group) < FEWEST:
            reason = f"only {counted(len(group), 'slice')}, not a volume"
            reason += (
                f": {repeated} other files repeat a SOPInstanceUID, which must be unique" if repeated else ""
            )
            out.append(LeftOut(files, name, reason))
        else:
            series.append(_series(files, header, name, patient_names))


def _stacks(
    members: list[tuple[Path, Header]], label: str, out: list[LeftOut]
) -> list[list[tuple[Path, Header]]]:
    """Parallel images of one size, a list per echo, in the most common orientation and size."""
    for feature, split in (
        ("orientation", lambda members: by_orientation([header.frames[0] for _, header in members])),
        ("size", lambda members: by_key([_size(header) for _, header in members])),
    ):
        groups = split(members)
        if len(groups) > 1:
            rest = list(itertools.chain.from_iterable(groups[1:]))
            if len(groups[0]) <= len(members) / 2:
                files = tuple(path for path, _ in members)
                reason = f"{len(groups)} {feature}s mixed, as in a localiser"
                out.append(LeftOut(files, label, _with_count(reason, len(files))))
                return []
            files = tuple(members[at][0] for at in rest)
            reason = f"of another {feature} than the rest of its series"
            out.append(LeftOut(files, label, _with_count(reason, len(files))))
        members = [members[at] for at in groups[0]] if groups else []
    return [
        [members[at] for at in group] for group in by_key([header.frames[0].echo for _, header in members])
    ]


def _size(header: Header) -> tuple[object, ...]:
    return header.rows, header.columns, *(round(size, 3) for size in header.frames[0].spacing or ())


def _is_located(frame: Frame) -> bool:
    return frame.position is not None and frame.orientation is not None and frame.spacing is not None


def _with_count(reason: str, count: int) -> str:
    return reason if count == 1 else f"{reason} ({count} images)"


def _is_time_series(
    headers: Sequence[Header],
    files: tuple[Path, ...],
    label: str,
    include: Collection[str],
    out: list[LeftOut],
) -> bool:
    """Whether echo-planar images share positions, as in functional imaging; if so, notes it."""
    repeat_count = repeats([frame for header in headers for frame in header.frames if frame.is_plain])
    if "func" in include or not repeat_count or not headers[0].is_echo_planar:
        return False
    reason = f"an echo-planar time series, {repeat_count} images where others lie; see --include func"
    out.append(LeftOut(files, label, reason))
    return True


def _series(
    files: tuple[Path, ...], header: Header, label: str, patient_names: dict[tuple[str, str], str]
) -> Series:
    patient = patient_names[header.tags.get("PatientID", ""), header.tags.get("StudyInstanceUID", "")]
    unused = "" if patient else id_text(header.tags.get("PatientID", ""))
    return Series(files, label, patient, unused, header.tags.get("StudyDate", ""), sequence_of_tags(header))


def label_of(header: Header) -> str:
    """The series' number and description, fit for a table row."""
    description = header.tags.get("SeriesDescription") or header.tags.get("ProtocolName", "")
    words = " ".join(re.sub(r"[^\w .+*-]", " ", description[:_LONGEST_NAME]).split())
    number = header.tags.get("SeriesNumber", "")
    return f"series {number} {words}".strip() if number else (words or "series")
