"""Which PatientIDs of a collection identify people, and which are placeholders an anonymiser gave to everyone.

A placeholder is recognised by its studies: they show several dates of birth, sexes or heights, have UIDs from several
organisations, or are in folders that look like those of several people.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from mri_transfer.datasets.volumes.formats.dicom.series_tags import Header
from mri_transfer.datasets.volumes.naming import sequence_of
from mri_transfer.words import word_set

_LONGEST_ID = 64  # characters in DICOM's "long string"
_SAYS_NOTHING = re.compile(
    r"(pseudo)?(anon\w*|de-?identified|removed|redacted|unknown|none|null|n/?a|no|x+|blank|default)"
    r"([-_ ^]*(patient|subject|id|name|pt))*|(patient|subject)([-_ ]?(id|name))?",
    re.IGNORECASE,
)
_TALLER = 0.12  # m; heights of one adult rarely differ by more between visits
_GROWN = 1.5  # m; who is smaller may still grow
_NO_HEIGHT = 3.0  # m; more is in centimetres
_REGISTERED = 4  # first parts of a UID, which identify the organisation
# Names of folders for sessions, series, places and body parts, as opposed to people.
_NOT_PEOPLE = word_set(
    """
    ses session visit v tp t time timepoint day d week w month m year y baseline bl fu followup follow up
    pre post preop postop scan study studies st exam mr mri ct pet acq run series se ser dicom dcm img image
    images raw data first second third before after op surgery treatment early late old new rescan retest
    test head brain neuro spine anat site hospital center centre scanner ax axial sag sagittal cor coronal
    tra part disc disk cd jan feb mar apr may jun jul aug sep oct nov dec
    """
)
_FEWEST_NUMBERED = 3  # numbered folders that are taken for people if all share one PatientID
_MOST_STUDIES = 5  # of a person among others; an anonymiser's id has more, or there is no other id


@dataclass(frozen=True)
class _Body:
    """The body according to tags: date of birth, sex, height in m; "" or 0 if not given."""

    born: str = ""
    sex: str = ""
    height: float = 0.0

    def may_be(self, other: _Body) -> bool:
        """Whether both could be one person."""
        # An anonymiser may leave only the year of birth, as its first of January.
        dates = {self.born, other.born} - {""}
        born = len(dates) < 2 or (
            any(date[4:] == "0101" for date in dates) and len({date[:4] for date in dates}) == 1
        )
        sex = not self.sex or not other.sex or self.sex == other.sex
        grown = min(self.height, other.height) >= _GROWN
        return born and sex and not (grown and abs(self.height - other.height) > _TALLER)


def people(members: Sequence[tuple[Path, Header]]) -> dict[tuple[str, str], str]:
    """The person of each study.

    Args:
        members: all files of a collection with their headers.

    Returns:
        By PatientID and StudyInstanceUID, the person named by the tags, or "" if the folder must decide.
    """
    of_id: dict[str, dict[str, list[tuple[Path, Header]]]] = {}
    for path, header in members:
        patient, study = (header.tags.get(key, "") for key in ("PatientID", "StudyInstanceUID"))
        of_id.setdefault(patient, {}).setdefault(study, []).append((path, header))
    patient_names: dict[tuple[str, str], str] = {}
    for patient, studies in of_id.items():
        name, bodies = id_text(patient), _bodies(studies)
        several = len(set(bodies.values())) > 1
        if several and not _apart_by_folder(studies, bodies):
            patient_names |= {(patient, study): f"{name or 'unnamed'} ({bodies[study]})" for study in studies}
        else:
            shared = several or _is_shared(studies, alone=len(of_id) == 1)
            patient_names |= {(patient, study): "" if shared else name for study in studies}
    return patient_names


def id_text(patient: str) -> str:
    """A PatientID fit for a table, or "" if its text identifies nobody."""
    text = "".join(filter(str.isprintable, patient))[:_LONGEST_ID].strip()
    return "" if not re.search(r"[1-9A-Za-z]", text) or _SAYS_NOTHING.fullmatch(text) else text


def _bodies(studies: dict[str, list[tuple[Path, Header]]]) -> dict[str, int]:
    """For each study, which of the people sharing an id it shows, numbered from 1."""
    persons: list[_Body] = []
    numbers = {}
    for study, files in sorted(studies.items()):
        tags = files[0][1].tags
        sex = tags.get("PatientSex", "").upper()[:1]
        height = files[0][1].number("PatientSize") or 0.0
        height = height / 100 if height > _NO_HEIGHT else height
        body = _Body(tags.get("PatientBirthDate", ""), sex if sex in ("M", "F") else "", height)
        at = next((at for at, other in enumerate(persons) if body.may_be(other)), len(persons))
        if at == len(persons):
            persons.append(body)
        numbers[study] = at + 1
    return numbers


def _apart_by_folder(studies: dict[str, list[tuple[Path, Header]]], bodies: dict[str, int]) -> bool:
    """Whether no folder holds files of two people, so that folders can identify people."""
    within: dict[Path, set[int]] = {}
    for study, files in studies.items():
        for path, _ in files:
            within.setdefault(path.parent, set()).add(bodies[study])
    return all(len(persons) == 1 for persons in within.values())


def _is_shared(studies: dict[str, list[tuple[Path, Header]]], alone: bool) -> bool:
    """Whether one id's studies seem to belong to several people.

    Args:
        studies: the id's files.
        alone: whether there is no other id in the collection.
    """
    if len(studies) < 2:
        return False
    personal = not alone and len(studies) <= _MOST_STUDIES
    if len({tuple(study.split(".")[:_REGISTERED]) for study in studies if study}) > 1 and not personal:
        return True  # else two scanners' makers
    tops = [
        PurePath(os.path.commonpath([path.parent for path, _ in files])).parts for files in studies.values()
    ]
    depth = next((at for at, parts in enumerate(zip(*tops, strict=False)) if len(set(parts)) > 1), None)
    if depth is None:  # all in one folder, or one within another
        return False
    names = {parts[depth] for parts in tops}
    if all(name.isdigit() and len(name) < 6 for name in names):
        return alone and len(names) >= _FEWEST_NUMBERED
    if personal and all(re.search(r"\d", name) for name in names):
        return False  # S00001, ACC104711, MRT_Kopf_2019: a hospital's examinations
    return all(_may_name_a_person(name) for name in names)


def _may_name_a_person(folder: str) -> bool:
    words = re.findall(r"[^\W\d_]+", folder.lower())
    return bool(words) and not set(words) <= _NOT_PEOPLE and sequence_of(folder) is None
