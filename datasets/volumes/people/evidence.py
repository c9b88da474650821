"""Evidence about a file, and conclusions from it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

Key = tuple[Hashable, ...]
"""Identifies people: equal keys are one person."""
BY_SUBJECT, BY_PATIENT_ID = "by --subject", "DICOM patient ID"
"""Evidence in words, of :attr:`Whose.how`."""


@dataclass(frozen=True)
class File:
    """What is known of a file or DICOM series before it is opened.

    Attributes:
        parts: its path from the given folder, that folder first, and its name without suffixes last; for a series the
            folders only.
        top: absolute path of the given folder.
        dataset: absolute path of its BIDS data set, or "".
        patient: DICOM's patient ID if informative, or "".
        study: DICOM's study date, or "".
        sequence: from DICOM tags, or "unknown".
        beside: the sequence that a JSON file beside it names, or "unknown".
        picture: a picture of one slice, of which a person has many; numbers in its name may count slices.
        told: values from the user's pattern: subject, and perhaps session, sequence and dataset.
        is_folder: the last part is a folder, that of a series.
    """

    parts: tuple[str, ...]
    top: str
    dataset: str = ""
    patient: str = ""
    study: str = ""
    sequence: str = "unknown"
    beside: str = "unknown"
    picture: bool = False
    told: tuple[tuple[str, str], ...] = ()
    is_folder: bool = False


@dataclass(frozen=True)
class Whose:
    """A file's subject and content.

    Attributes:
        dataset: name of the data set, for tables.
        subject: a unique name of the person.
        session, sequence: as in `naming.Identity`.
        site: where it was made, or "".
        how: the evidence in words.
        key: identifies the person; equal keys are one person.
    """

    dataset: str
    subject: str
    session: str
    sequence: str
    site: str
    how: str
    key: Key


@dataclass
class Guess:
    """A file's subject, before that person has a unique name.

    Attributes:
        key: of the person.
        name: as written in the path.
        scopes: what distinguishes the name from others', nearest first: a site, a folder, the data set.
        dataset, session, site, how: as in :class:`Whose`.
        longer: the name with the words that follow it, preferred if the same in all the person's files.
    """

    key: Key
    name: str
    scopes: list[str]
    dataset: str
    session: str
    how: str
    site: str = ""
    longer: str = ""


def collection_of(file: File, says_nothing: bool) -> str:
    """Where an id is unique: the given folder; for T1/ and T2/, given separately, their parent folder.

    Args:
        file: the file.
        says_nothing: the given folder's name is neither a person's, a site's nor a data set's.
    """
    return file.top.rsplit("/", 1)[0] if says_nothing else file.top
