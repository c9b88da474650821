"""People named explicitly: by the user, BIDS entities, DICOM's patient ID or an id of a known collection."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mri_transfer.datasets.volumes.people.atoms import COUNTER, Parsed, parse
from mri_transfer.datasets.volumes.people.evidence import (
    BY_PATIENT_ID,
    BY_SUBJECT,
    File,
    Guess,
    collection_of,
)
from mri_transfer.datasets.volumes.people.known_ids import key_of_id, known_id

_SUB = re.compile(r"(?:^|(?<=[^0-9A-Za-z]))sub-([0-9A-Za-z]+)")
_SES = re.compile(r"(?:^|(?<=[^0-9A-Za-z]))ses-([0-9A-Za-z]+)")
_NO_LABEL = re.compile(r"[^0-9a-z]+")  # not allowed in a BIDS label
_LONG_ID = 6  # characters of a patient ID that two hospitals won't share by chance


def stated(file: File, tops: Mapping[str, str]) -> Guess | None:
    """The person named explicitly, or None.

    Args:
        file: the file.
        tops: names of the given folders and of BIDS data sets, by path.
    """
    dataset = tops[file.dataset or file.top]
    key = file.dataset or collection_of(file, parse(file.parts[0]).is_empty)
    if fields := dict(file.told):
        home = fields.get("dataset", "") or dataset
        session = fields.get("session") or session_of(file)
        person_key = ("told", fields.get("dataset", "") or key, fields["subject"])
        return Guess(person_key, fields["subject"], [home], home, session, BY_SUBJECT)
    if guess := _bids(file, key, dataset):
        return guess
    if file.patient:
        person_key = ("dicom", "" if len(file.patient) >= _LONG_ID else key, file.patient)
        return Guess(person_key, file.patient, [dataset], dataset, file.study, BY_PATIENT_ID)
    if match := known_id(file.parts):
        session = match.session or file.study or session_of(file)
        person_key = ("known", match.collection, key_of_id(match.subject))
        return Guess(person_key, match.subject, [], dataset, session, f"{match.collection} name", match.site)
    return None


def join_known(guesses: Sequence[Guess]) -> None:
    """Unify an id of a known collection with its BIDS form: OAS30003 and sub-OAS30003.

    If there is only the BIDS form, nothing changes.
    """
    known: dict[str, Guess] = {}
    for guess in guesses:
        if guess.key[0] == "known":
            collection, subject = (_NO_LABEL.sub("", str(text).lower()) for text in guess.key[1:])
            known[subject] = known[collection + subject] = guess  # Clinica: sub-ADNI002S0413 of 002_S_0413
    for guess in guesses:
        if guess.key[0] == "bids" and (other := known.get(str(guess.key[-1]).lower().removeprefix("sub-"))):
            guess.key, guess.name, guess.scopes = other.key, other.name, other.scopes


def _bids(file: File, key: str, dataset: str) -> Guess | None:
    matches = [(number, match) for number, part in enumerate(file.parts) if (match := _SUB.search(part))]
    if not matches:
        return None
    subject = matches[-1][1].group()
    bare = subject.removeprefix("sub-").lower()
    sessions = (match[1] for part in reversed(file.parts) if (match := _SES.search(part)))
    session = next(sessions, "") or session_of(file)
    first, match = matches[0]
    in_front = file.parts[first][: match.start()]  # ds000011_sub-01_T1w
    scopes = [_home(in_front)] if _scopes(parse(in_front)) else []
    if file.dataset or scopes:
        home = scopes[0] if scopes else dataset
        person_key = ("bids", key, *(scope.lower() for scope in scopes), subject)
        # A data set's name belongs to the subject, as it always has.
        return Guess(person_key, f"{home}/{subject}", [dataset], home, session, "BIDS name")
    folds = any(parse(part).fold for part in file.parts[1:first])
    for part in file.parts[1:first]:
        if part.lower() == "derivatives":
            break  # derived files show the same people
        if folds and parse(part).split:
            continue  # fold0/train and fold1/val hold the same people
        if _scopes(parse(part)) and bare not in part.lower():  # OAS30001_MR_d0129/anat/sub-OAS30001_T1w
            scopes.insert(0, _home(part))
    person_key = ("bids", key, *(scope.lower() for scope in scopes), subject)
    home = scopes[0] if scopes else dataset
    return Guess(person_key, subject, [*scopes, dataset], home, session, "BIDS name")


def _home(text: str) -> str:
    """The data set or site in a name, without a session: ds000011 of ds000011_ses-1."""
    parsed = parse(text)
    atoms = [text[atom.start : atom.end] for atom in parsed.atoms]
    return "_".join([*parsed.site_text, *atoms]) or text


def _scopes(parsed: Parsed) -> bool:
    """Whether a name is a data set's, a site's or the like."""
    unknown = any(atom.rank > COUNTER and not atom.is_small_s for atom in parsed.atoms)
    return bool(parsed.sites or parsed.split or unknown)


def session_of(file: File) -> str:
    """The session in a path: explicit words first, else the last date."""
    words: list[str] = []
    dates: list[str] = []
    for part in file.parts[1:]:
        for text in parse(part).sessions:
            items = dates if text[:1].isdigit() and not text[-1].isalpha() else words
            if text not in items:
                items.append(text)
    if words:
        return "_".join(words)
    return dates[-1] if dates else ""
