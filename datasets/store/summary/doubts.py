"""What is doubtful about who is who, for the user to check: guesses that the paths alone can't settle."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from mri_transfer.datasets.image_files import SUFFIXES as PICTURES
from mri_transfer.datasets.volumes.identity_table import BY_TABLE
from mri_transfer.datasets.volumes.naming import stem_of
from mri_transfer.datasets.volumes.people.atoms import parse
from mri_transfer.datasets.volumes.people.evidence import BY_PATIENT_ID, BY_SUBJECT
from mri_transfer.words import counted

if TYPE_CHECKING:
    from mri_transfer.datasets.store.summary.people_table import Scan

_FEW = 4  # scans; the numbers of fewer are never odd
_AGAIN = re.compile(r" \(\d+\)$")  # of a second person with the same name
_SAID = (BY_SUBJECT, BY_TABLE)  # evidence that isn't questioned
# An id with a letter, a time point or a word for one behind it: 1001A, P07pre, AB01V2.
_VISIT = re.compile(r"(.*\d)[-_. ]?(?:[a-z]|pre|post|bl|baseline|fu|followup|[vt][1-9])")
_FAMILIES = 0.3  # of all people; a rare B is a spelling, a frequent one a rule
_SEVERAL = 2.5  # people in a folder on average; a site has more
# A number that may count people; shorter ones are visits, longer ones dates, channels, codes.
_NUMBER = re.compile(r"[-_. ]?\d{3}(?!\d)")
# Collections with some of the same people under other ids, by how their ids begin.
_OVERLAPPING = (
    ("BraTS", "TCGA"),
    ("BraTS", "UPENN-GBM"),
    ("BraTS", "UCSF-PDGM"),
    ("BraTS2021", "BraTS-GLI"),
    ("KKI2009", "MMRR-21"),
    ("OAS1", "OASIS-TRT-20"),
)
# It numbers 42 scans of 21 people (Landman et al. 2011, doi:10.1016/j.neuroimage.2010.11.047).
_SCAN_NUMBERS = "KKI2009"
_YEAR = re.compile(r"(19|20)\d\d")
_SAY_SO = "say so with --subject or --table"


def doubts(by_dataset: Mapping[str, Sequence[Scan]]) -> list[str]:
    """Sentences on what looks wrong or could as well be otherwise; none if the paths leave no doubt."""
    scans = [scan for members in by_dataset.values() for scan in members]
    open_to_doubt = [scan for scan in scans if scan.how not in _SAID]
    return [
        *_by_number(by_dataset),
        *_same_ids({scan.subject for scan in open_to_doubt}),
        *_families({scan.subject for scan in open_to_doubt}),
        *_shared_folders(open_to_doubt),
        *_two_names(open_to_doubt),
        *_numbers_as_visits(open_to_doubt),
        *_years_above(open_to_doubt),
        *_collections({scan.subject for scan in open_to_doubt}),
    ]


def _several(by_subject: Mapping[str, set[str]]) -> list[tuple[str, set[str]]]:
    """Subjects with more than one of something, in order."""
    return sorted((subject, found) for subject, found in by_subject.items() if len(found) > 1)


def _listed(names: Iterable[str]) -> str:
    """The first names: "a and b"."""
    return " and ".join(sorted(names)[:3])


def _more_ids(several: Sequence[object]) -> str:
    """ ", and 2 more such ids" behind the first."""
    return f", and {counted(len(several) - 1, 'more such id')}" if len(several) > 1 else ""


def _same_ids(subjects: set[str]) -> Iterator[str]:
    """Ids, whatever their spelling, that stand for several people: train/10131 and test/10131."""
    people: dict[str, list[str]] = defaultdict(list)
    for subject in sorted(subjects):
        people[_bare(subject)].append(subject)
    several = [names for names in people.values() if len(names) > 1]
    if several:
        many = f"{len(several)} ids name" if len(several) > 1 else "one id names"
        yield f"{many} several people, such as {_listed(several[0])}; if they are one, {_SAY_SO}"


def _bare(subject: str) -> str:
    """An id without its scopes, in one spelling: sub-07 of ds1/sub-07 and sub_7 (2)."""
    name = unicodedata.normalize("NFKC", _AGAIN.sub("", subject).rsplit("/", 1)[-1]).casefold()
    name = re.sub(r"[\W_]+", "", name).removeprefix("sub")
    return re.sub(r"\d+", lambda number: number[0].lstrip("0") or "0", name)


def _families(subjects: set[str]) -> Iterator[str]:
    """Ids that differ by a letter or time point behind them, where that is common."""
    people: dict[tuple[str, str], list[str]] = defaultdict(list)
    for subject in sorted(subjects):
        place, _, name = subject.rpartition("/")
        match = _VISIT.fullmatch(name.casefold())
        people[place, match[1] if match else name.casefold()].append(subject)
    families = [names for names in people.values() if len(names) > 1]
    if families and sum(map(len, families)) >= _FAMILIES * len(subjects):
        first, rest = families[0], _more_ids(families)
        yield f"{_listed(first)} count as {len(first)} people{rest}; if the ending is a visit, {_SAY_SO}"


def _shared_folders(scans: Sequence[Scan]) -> Iterator[str]:
    """Folders that hold two people each, as a person's folder does whose visits have ids of their own."""
    levels: dict[int, dict[tuple[str, ...], set[str]]] = defaultdict(lambda: defaultdict(set))
    for scan in scans:
        parts = PurePosixPath(scan.name).parts
        for level in range(1, len(parts) - 1):
            levels[level][parts[: level + 1]].add(scan.subject)
    for _, people in sorted(levels.items()):
        folders = {folder: names for folder, names in people.items() if len(names) > 1}
        places = Counter(name for names in people.values() for name in names)
        if (
            len(folders) > 1
            and 2 * len(folders) >= len(people)
            and sum(map(len, people.values())) <= _SEVERAL * len(people)
            and max(places.values()) == 1
            and all(parse(folder[-1]).atoms for folder in folders)
        ):
            folder, names = min(folders.items())
            yield (
                f"{len(folders)} folders hold scans of several people each, such as {'/'.join(folder)}: "
                f"{_listed(names)}; if each folder is a person's, {_SAY_SO}"
            )
            return


def _two_names(scans: Sequence[Scan]) -> Iterator[str]:
    """DICOM folders named like people of other files: dicom/P001 with PatientID 84711234, beside nifti/P001."""
    people = {_bare(scan.subject): scan.subject for scan in scans}
    named: dict[str, str] = {}
    for scan in scans:
        if scan.how == BY_PATIENT_ID:
            for part in PurePosixPath(scan.name).parts[1:-1]:
                if (other := people.get(_bare(part), scan.subject)) != scan.subject:
                    named[scan.subject] = other
    if named:
        patient, other = min(named.items())
        rest = f", and {len(named) - 1} more likewise" if len(named) > 1 else ""
        yield (
            f"PatientID {patient} lies in a folder called {other}, which names another person{rest}; if they are one, "
            f"{_SAY_SO}"
        )


def _numbers_as_visits(scans: Sequence[Scan]) -> Iterator[str]:
    """Padded numbers behind an id that count as visits of one person: DE01-001 and DE01-002."""
    numbers: dict[str, set[str]] = defaultdict(set)
    for scan in scans:
        name, path = scan.subject.rsplit("/", 1)[-1], PurePosixPath(scan.name)
        if path.suffix.lower() in PICTURES:
            continue  # whose numbers count slices
        for part in (*path.parts[1:-1], stem_of(path.name)):
            if part[: len(name)].casefold() == name.casefold() and (match := _NUMBER.match(part, len(name))):
                numbers[scan.subject].add(part[: match.end()])
    if several := _several(numbers):
        subject, names = several[0]
        rest = f", and so on for {len(several) - 1} more" if len(several) > 1 else ""
        yield f"{_listed(names)} count as one person, {subject}{rest}; if the number is a person's, {_SAY_SO}"


def _years_above(scans: Sequence[Scan]) -> Iterator[str]:
    """People below several years: 2018/001 and 2019/001, one of whom may be another."""
    years: dict[str, set[str]] = defaultdict(set)
    for scan in scans:
        parts = PurePosixPath(scan.name).parts
        name = scan.subject.rsplit("/", 1)[-1].casefold()
        at = next((number for number, part in enumerate(parts) if name in part.casefold()), 0)
        years[scan.subject].update(part for part in parts[1:at] if _YEAR.fullmatch(part))
    if several := _several(years):
        subject, places = several[0]
        rest = _more_ids(several)
        yield (
            f"{subject} in {_listed(places)} counts as one person{rest}; if numbers begin anew each year, {_SAY_SO}"
        )


def _collections(subjects: set[str]) -> Iterator[str]:
    """Known collections that share people, or whose ids are not people's."""

    def has(start: str) -> int:
        return sum(subject.casefold().startswith(start.casefold()) for subject in subjects)

    for first, second in _OVERLAPPING:
        if has(first) and has(second):
            yield f"{first} and {second} have some people in common, under other ids; they count twice without --table"
    if has(_SCAN_NUMBERS) > 1:
        yield f"{_SCAN_NUMBERS} numbers scans, two of each person; which are a pair only --table can say"


def _by_number(by_dataset: Mapping[str, Sequence[Scan]]) -> Iterator[str]:
    """Data sets with too few people, or as many as scans; people in several data sets."""
    for dataset, scans in sorted(by_dataset.items()):
        counts = Counter(scan.subject for scan in scans)
        subject, largest = counts.most_common(1)[0]
        nobody = [scan for scan in scans if scan.how == "the folder given"]
        sequences = {scan.sequence for scan in scans} - {"unknown"}
        stems = Counter(stem_of(PurePosixPath(scan.name).name) for scan in scans)
        stem, repeated = stems.most_common(1)[0]
        if len(scans) < _FEW:
            continue
        if len(nobody) >= _FEW:
            yield (
                f"{dataset}: the paths of {len(nobody)} scans don't say who was scanned; they count as one person"
            )
        elif len(counts) == 1:
            yield f"{dataset}: all {len(scans)} scans count as one person, {subject}"
        elif largest > len(scans) / 2 and (len(counts) > 2 or largest >= _FEW * min(counts.values())):
            yield f"{dataset}: {largest} of {len(scans)} scans count as one person, {subject}"
        elif (
            len(counts) == len(scans)
            and (repeated > 1 or len(sequences) > 1)
            and not _has_folders_of_one_scan(scans)
        ):
            why = (
                f"{repeated} are called {stem}"
                if repeated > 1
                else f"they are {', '.join(sorted(sequences))}"
            )
            yield (
                f"{dataset}: as many people as scans ({len(scans)}), though {why}; does each show a different person?"
            )
    homes: dict[str, set[str]] = defaultdict(set)
    for dataset, scans in by_dataset.items():
        for scan in scans:
            homes[scan.subject].add(dataset)
    shared = sorted(subject for subject, places in homes.items() if len(places) > 1)
    if shared:
        places = " and ".join(sorted(homes[shared[0]]))
        many = f"{len(shared)} people are" if len(shared) > 1 else "one person is"
        yield f"{many} in more than one data set, such as {shared[0]} in {places}"


def _has_folders_of_one_scan(scans: Sequence[Scan]) -> bool:
    """Whether each scan has its own outermost differing folder, apart from sites and the like: P01/T1, P02/T1.

    Then each folder is a person's, and one scan per person is normal.
    """
    paths = [PurePosixPath(scan.name).parts[:-1] for scan in scans]
    for level in range(1, min(map(len, paths))):
        different = {path[level].lower() for path in paths}
        if len(different) > 1 and any(parse(name).atoms for name in different):
            return len({path[: level + 1] for path in paths}) == len(scans)
    return False
