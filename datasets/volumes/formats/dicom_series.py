"""DICOM files to the series worth reading: grouped, named, and with a reason for all that is left out."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from mri_transfer.datasets.volumes.formats.dicom_header import DIRECTORY, GREY, Frame, Header, read_header
from mri_transfer.datasets.volumes.formats.dicom_sequence import sequence_of_tags
from mri_transfer.datasets.volumes.formats.dicom_stack import FEWEST, by_key, by_orientation
from mri_transfer.datasets.volumes.formats.stored import DEFAULT_LIMIT, BadVolume
from mri_transfer.datasets.volumes.naming import words_of
from mri_transfer.progress import bar

_MR_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.4",  # MR Image Storage
    "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR Image Storage
    "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR Image Storage
}
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_LONGEST_ID = 64  # characters, of DICOM's "long string"
_LOCALISER_WORDS = {"localizer", "localiser", "loc", "scout", "survey", "3plane", "3pl", "aahead", "aascout"}
_FUNC_WORDS = {"bold", "fmri", "ep2d", "epi"}
_DIFFUSION_WORDS = {"dwi", "dti", "adc", "trace", "tracew", "diff", "diffusion", "ep2ddiff"}
_PERFUSION_WORDS = {"asl", "perf", "perfusion", "pwi", "cbf", "cbv", "mtt", "ttp", "dsc"}
_FIELD_MAP_WORDS = {"fieldmap", "fieldmapping", "b0map"}


@dataclass(frozen=True)
class Series:
    """Files that make one volume.

    Attributes:
        files: sorted by name; the reader puts them in order.
        label: of the series within its folder: number, description and echo.
        patient: patient's ID, or "" where it says nothing.
        session: date of the study, or "".
        sequence: in :data:`naming.SEQUENCES`.
    """

    files: tuple[Path, ...]
    label: str
    patient: str
    session: str
    sequence: str


@dataclass(frozen=True)
class LeftOut:
    """Files of one series, or one file, that make no volume. `broken` tells bad files from those left out by rule."""

    files: tuple[Path, ...]
    label: str
    reason: str
    broken: bool = False


def group_series(files: Sequence[Path], include: Collection[str] = ()) -> tuple[list[Series], list[LeftOut]]:
    """Read the headers of DICOM files and group them.

    Args:
        files: each has looked like DICOM.
        include: of :data:`left_out.KINDS`, what is wanted though it is no plain anatomical MR image.

    Returns:
        Series by the name of their first file, and what was left out with the reason.
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
            continue  # an index of files that are found anyway
        uid = header.tags.get("SeriesInstanceUID")
        key = (header.tags.get("StudyInstanceUID", ""), uid) if uid else ("", str(path.parent))
        groups.setdefault(key, []).append((path, header))
    for members in groups.values():
        _take_apart(members, include, series, out)
    order = sorted(range(len(series)), key=lambda at: series[at].files[0])
    return [series[at] for at in order], sorted(out, key=lambda each: each.files[0])


def _take_apart(
    members: list[tuple[Path, Header]], include: Collection[str], series: list[Series], out: list[LeftOut]
) -> None:
    """One series: what is no plain anatomical image, then stacks by orientation, size and echo."""
    kept: list[tuple[Path, Header]] = []
    refused: dict[str, list[Path]] = {}
    instances: set[str] = set()
    for path, header in members:
        instance = header.tags.get("SOPInstanceUID", str(path))
        if reason := _reason_of_kind(header, include):
            refused.setdefault(reason, []).append(path)
        elif instance in instances:
            refused.setdefault("a copy of another file of its series", []).append(path)
        else:
            instances.add(instance)
            kept.append((path, header))
    label = label_of(members[0][1])
    for reason, paths in refused.items():
        out.append(LeftOut(tuple(paths), label, _counted(reason, len(paths))))
    single = [(path, header) for path, header in kept if len(header.frames) == 1]
    for path, header in kept:
        if len(header.frames) > 1:
            series.append(_series((path,), header, label))
    if not single:
        return
    located = [each for each in single if _is_located(each[1].frames[0])]
    if lost := [path for path, header in single if not _is_located(header.frames[0])]:
        reason = "no ImagePositionPatient, ImageOrientationPatient or PixelSpacing in its tags"
        out.append(LeftOut(tuple(lost), label, _counted(reason, len(lost)), broken=True))
    try:
        stacks = _stacks(located, label, out)
    except BadVolume as error:
        out.append(LeftOut(tuple(path for path, _ in located), label, _counted(str(error), len(located))))
        return
    for group in stacks:
        files, header = tuple(path for path, _ in group), group[0][1]
        echoes = len({each.frames[0].echo for _, each in single})
        named = f"{label} echo {header.frames[0].echo} ms" if echoes > 1 else label
        if len(group) < FEWEST:
            reason = f"only {len(group)} slice{'s' * (len(group) != 1)}, not a volume"
            out.append(LeftOut(files, named, reason))
        else:
            series.append(_series(files, header, named))


def _stacks(
    members: list[tuple[Path, Header]], label: str, out: list[LeftOut]
) -> list[list[tuple[Path, Header]]]:
    """Parallel images of one size, a list for each echo; of several orientations or sizes the prevailing one."""
    for what, split in (
        ("orientation", lambda each: by_orientation([header.frames[0] for _, header in each])),
        ("size", lambda each: by_key([_size(header) for _, header in each])),
    ):
        groups = split(members)
        if len(groups) > 1:
            rest = list(itertools.chain.from_iterable(groups[1:]))
            if len(groups[0]) <= len(members) / 2:
                files = tuple(path for path, _ in members)
                reason = f"{len(groups)} {what}s mixed, as in a localiser"
                out.append(LeftOut(files, label, _counted(reason, len(files))))
                return []
            files = tuple(members[at][0] for at in rest)
            reason = f"of another {what} than the rest of its series"
            out.append(LeftOut(files, label, _counted(reason, len(files))))
        members = [members[at] for at in groups[0]] if groups else []
    return [
        [members[at] for at in group] for group in by_key([header.frames[0].echo for _, header in members])
    ]


def _size(header: Header) -> tuple[object, ...]:
    return header.rows, header.columns, *(round(size, 3) for size in header.frames[0].spacing or ())


def _is_located(frame: Frame) -> bool:
    return frame.position is not None and frame.orientation is not None and frame.spacing is not None


def _counted(reason: str, count: int) -> str:
    return reason if count == 1 else f"{reason} ({count} images)"


def _series(files: tuple[Path, ...], header: Header, label: str) -> Series:
    patient = "".join(filter(str.isprintable, header.tags.get("PatientID", "")))[:_LONGEST_ID].strip()
    if not re.search(r"[1-9A-Za-z]", patient) or re.fullmatch(r"(?i)anon\w*|unknown|none|n/?a", patient):
        patient = ""
    return Series(files, label, patient, header.tags.get("StudyDate", ""), sequence_of_tags(header))


def label_of(header: Header) -> str:
    """The series' number and description, fit for a line of a table."""
    description = header.tags.get("SeriesDescription") or header.tags.get("ProtocolName", "")
    words = " ".join(re.sub(r"[^\w .+*-]", " ", description[:_LONGEST_ID]).split())
    number = header.tags.get("SeriesNumber", "")
    return f"series {number} {words}".strip() if number else (words or "series")


def _reason_of_kind(header: Header, include: Collection[str]) -> str | None:
    """Why an image is no plain anatomical MR image, or None."""
    tags, kinds = header.tags, set(header.image_type)
    modality, sop_class = tags.get("Modality", ""), tags.get("SOPClassUID", "")
    words = set(words_of(f"{tags.get('SeriesDescription', '')} {tags.get('ProtocolName', '')}"))
    if sop_class.startswith(_SECONDARY_CAPTURE) or {"SCREEN SAVE", "SCREENSAVE"} & kinds:
        return "a secondary capture or screen save"
    if header.rows < 1 or header.columns < 1:
        return f"no image ({modality or 'no modality'})"
    if tags.get("SamplesPerPixel", "1") != "1" or tags.get("PhotometricInterpretation", GREY[0]) not in GREY:
        return "colour pixels, not intensities"
    if modality != "MR" and sop_class not in _MR_CLASSES and not (modality == "CT" and "ct" in include):
        remedy = "; see --include ct" if modality == "CT" else ""
        return f"modality {modality or 'not stated'}, not MR{remedy}"
    if "LOCALIZER" in kinds or _LOCALISER_WORDS & words:
        return "a localiser"
    if "MOSAIC" in kinds:
        return "a mosaic: many slices in one picture, as of functional and diffusion imaging"
    diffusion = "DiffusionBValue" in tags and header.number("DiffusionBValue") != 0
    if "dwi" not in include and (
        diffusion or {"DIFFUSION", "ADC", "TRACEW", "FA"} & kinds or _DIFFUSION_WORDS & words
    ):
        return "diffusion; see --include dwi"
    if "func" not in include and ({"FMRI", "BOLD"} & kinds or _FUNC_WORDS & words):
        return "functional; see --include func"
    if "perf" not in include and ({"PERFUSION", "ASL"} & kinds or _PERFUSION_WORDS & words):
        return "perfusion; see --include perf"
    field_map = _FIELD_MAP_WORDS & words or {"field", "mapping"} <= words
    if "fmap" not in include and ({"P", "PHASE", "PHASE MAP", "VELOCITY"} & kinds or field_map):
        return "phase or a field map; see --include fmap"
    if "derived" not in include and header.image_type[:1] == ("DERIVED",):
        return "derived from other images; see --include derived"
    return None
