"""What is known of a file, and what comes of it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

Key = tuple[Hashable, ...]
"""What people are told apart by: equal keys are one person."""


@dataclass(frozen=True)
class File:
    """What is known of a file, or of a DICOM series, before anyone looks into it.

    Attributes:
        parts: its path from the folder that was given, that folder first, and its name without suffixes last; of a
            series the folders only.
        top: absolute path of the folder that was given.
        dataset: absolute path of the BIDS data set it lies in, or "".
        patient: DICOM's patient ID where it says something, or "".
        study: DICOM's date of the study, or "".
        sequence: what DICOM's tags say, or "unknown".
        beside: the sequence that a JSON file beside it names, or "unknown".
        picture: a picture of one slice, of which a person has many; numbers in its name count slices.
        told: what a pattern of the user says: subject, and perhaps session, sequence and dataset.
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
    """Whose a file is, and what it shows.

    Attributes:
        dataset: name of the data set, for tables.
        subject: a name that no other person has.
        session, sequence: as in `naming.Identity`.
        site: where it was made, or "".
        how: the evidence in words.
        key: what persons are told apart by; equal keys are one person.
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
    """Whose a file is, before that person has a name that nobody else has.

    Attributes:
        key: of the person.
        name: as it stands in the path.
        scopes: what tells the name from others', the nearest first: a site, a folder, the data set.
        dataset, session, site, how: as in :class:`Whose`.
        longer: the name with the words that follow it, which is better if it is the same in all the person's files.
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
    """What an id is looked for in: the given folder; of T1/ and T2/, given one by one, the folder they lie in.

    Args:
        file: the file.
        says_nothing: the given folder's name is neither a person's, a site's nor a data set's.
    """
    return file.top.rsplit("/", 1)[0] if says_nothing else file.top
