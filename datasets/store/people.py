"""The people of a store: who is who when it grows, and a table that shows it."""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

from mri_transfer.datasets.store.ledger import Ledger, source_of
from mri_transfer.datasets.volumes.find import Found, Source, printable
from mri_transfer.datasets.volumes.identity_table import BY_TABLE
from mri_transfer.datasets.volumes.naming import stem_of
from mri_transfer.datasets.volumes.people.decide import File, decide
from mri_transfer.errors import UserError

_MOST_ROWS = 40
_FEW = 4  # scans; of fewer nothing is odd
_STATED = ("known", "bids", "dicom", "told")  # evidence that names a person the same way every time


def to_record(evidence: File | None) -> dict[str, Any]:
    """Evidence as it is kept in a store's journal: what differs from the default."""
    if evidence is None:
        return {}
    kept = {}
    for each in dataclasses.fields(File):
        value = getattr(evidence, each.name)
        if each.default is dataclasses.MISSING or value != each.default:
            kept[each.name] = value
    return kept


def from_record(record: dict[str, Any]) -> File:
    """Evidence out of a journal."""
    known = {each.name for each in dataclasses.fields(File)}
    values = {key: value for key, value in record.items() if key in known}
    told = tuple((str(place), str(text)) for place, text in values.pop("told", ()))
    return File(**{**values, "parts": tuple(values["parts"]), "told": told})


def keep_people(ledger: Ledger, found: Found) -> None:
    """Give the files that were found the names that a store has for their people already.

    Who is who is decided over the store's files and those that were found. A volume keeps the subject, session and
    sequence it was stored with; a new file of a person that the store knows gets that person's name; a new person never
    gets a name that is taken.

    Raises:
        UserError: two people of the store would be one by now, or one would be two.
    """
    if not ledger.used:
        return
    stored = {entry["path"]: entry for entry in ledger.used}
    moved = {path: stored.get(note["of"]) for path, note in ledger.known.items() if path not in stored}
    here = {printable(str(source.path)) for source in found.sources}
    elsewhere = [entry for entry in ledger.used if entry["path"] not in here and entry.get("evidence")]
    files = [source.evidence for source in found.sources if source.evidence]
    whose = decide([*files, *(from_record(entry["evidence"]) for entry in elsewhere)])
    owners = [stored.get(printable(str(source.path))) for source in found.sources]
    subjects_of: dict[tuple[Hashable, ...], set[str]] = defaultdict(set)
    keys_of: dict[str, set[tuple[Hashable, ...]]] = defaultdict(set)
    for each, entry in zip(whose, [*owners, *elsewhere], strict=True):
        if entry is not None and entry.get("how") != BY_TABLE:
            subjects_of[each.key].add(entry["subject"])
            keys_of[entry["subject"]].add(each.key)
    untold = {entry["subject"] for entry in ledger.used if not entry.get("evidence")}
    taken = {entry["subject"] for entry in ledger.used}
    named: dict[tuple[Hashable, ...], str] = {}
    changed: list[tuple[Source, str, str]] = []
    for number, (source, entry) in enumerate(zip(found.sources, owners, strict=True)):
        who = whose[number]
        told = set(source.told)
        values: dict[str, str] = {}
        if entry is None and (before_it_moved := moved.get(printable(str(source.path)))):
            # Its slices are in the store already, under the name it had; its new path changes nobody.
            values = {key: before_it_moved[key] for key in ("subject", "session", "sequence")}
        elif entry is not None:
            values = {key: entry[key] for key in ("subject", "session", "sequence") if key not in told}
            mixed = len(subjects_of[who.key]) > 1 or len(keys_of[entry["subject"]]) > 1
            if mixed and "subject" not in told and entry.get("how") != BY_TABLE:
                changed.append((source, entry["subject"], who.subject))
        elif "subject" not in told:
            if who.key not in named:
                before = subjects_of.get(who.key, set())
                if len(before) > 1:
                    changed.append((source, " and ".join(sorted(before)), who.subject))
                named[who.key] = (
                    min(before) if before else _free_name(who.subject, who.dataset, who.key, taken, untold)
                )
                taken.add(named[who.key])
            values = {"subject": named[who.key]}
        found.sources[number] = dataclasses.replace(
            source, identity=dataclasses.replace(source.identity, **values)
        )
    if changed:
        _refuse(ledger, changed)


def _free_name(name: str, dataset: str, key: tuple[Hashable, ...], taken: set[str], untold: set[str]) -> str:
    """A name that no other person of the store has; that of a person whom the same evidence names is the same."""
    if name not in taken or (key[0] in _STATED and name in untold):
        return name
    longer = f"{dataset}/{name}"
    number = 1
    while longer in taken:
        number += 1
        longer = f"{dataset}/{name} ({number})"
    return longer


def _refuse(ledger: Ledger, changed: Sequence[tuple[Source, str, str]]) -> None:
    source, before, now = changed[0]
    old = any(not entry.get("evidence") for entry in ledger.used)
    why = "was made when people were told apart by single file names" if old else "with these files"
    raise UserError(
        f"{ledger.folder}: {why}, {len(changed)} of {len(ledger.used)} volumes would belong to other people now "
        f"(such as {source.name}: {before} before, {now} now); make the store again with another --out, or say who is "
        "who as it has it, with --subject or --table"
    )


def outdated(volumes: Sequence[dict[str, str]]) -> str:
    """What a store's own file names say against its subjects, in one line; empty if nothing.

    For stores made before subjects were decided over all files.

    Args:
        volumes: of a :class:`SliceStore`: source and subject each.
    """
    files, subjects, names = [], [], []
    for volume in volumes:
        path = PurePosixPath(volume["source"])
        stem = stem_of(path.name)
        if stem == path.name or len(path.parts) < 2:
            continue  # a DICOM series, of which the tags are not known
        files.append(File((*path.parts[:-1], stem), f"/{path.parts[0]}"))
        subjects.append(volume["subject"])
        names.append(volume["source"])
    subjects_of, keys_of = defaultdict(set), defaultdict(set)
    whose = decide(files)
    for each, subject in zip(whose, subjects, strict=True):
        subjects_of[each.key].add(subject)
        keys_of[subject].add(each.key)
    wrong = [
        (name, subject, each.subject)
        for each, subject, name in zip(whose, subjects, names, strict=True)
        if len(keys_of[subject]) > 1 or len(subjects_of[each.key]) > 1
    ]
    if not wrong:
        return ""
    name, before, now = wrong[0]
    return (
        f"{len(wrong)} of {len(volumes)} volumes seem to be filed under other people than their paths say (such as "
        f"{name}: {before}, and by its path {now})"
    )


@dataclasses.dataclass(frozen=True)
class Scan:
    """A volume for the table."""

    dataset: str
    subject: str
    session: str
    sequence: str
    name: str
    how: str


def scans_of(sources: Iterable[Source]) -> list[Scan]:
    """Of files that were found."""
    return [
        Scan(
            each.identity.dataset or each.name.split("/")[0],
            *(each.identity.subject, each.identity.session, each.identity.sequence, each.name),
            each.identity.how,
        )
        for each in sources
    ]


def scans_in(ledger: Ledger) -> list[Scan]:
    """Of volumes that a store has."""
    return [
        Scan(
            each.get("dataset") or source_of(each),
            *(each["subject"], each["session"], each["sequence"], each["source"]),
            each.get("how") or "",
        )
        for each in ledger.used
    ]


def overview(scans: Sequence[Scan]) -> dict[str, Any]:
    """Who is who, for people to check.

    Returns:
        "rows": one a data set: dataset, people, sessions, scans, scans_a_person [fewest, median, most], read [{"how",
        "scans", "file", "subject"}, ...] with an example each; "odd": sentences on what looks wrong.
    """
    by_dataset: dict[str, list[Scan]] = defaultdict(list)
    for scan in scans:
        by_dataset[scan.dataset].append(scan)
    rows = []
    for dataset, members in sorted(by_dataset.items()):
        counts = Counter(scan.subject for scan in members)
        ways: dict[str, list[Scan]] = defaultdict(list)
        for scan in members:
            ways[scan.how].append(scan)
        rows.append(
            {
                "dataset": dataset,
                "people": len(counts),
                "sessions": len({(scan.subject, scan.session) for scan in members}),
                "scans": len(members),
                "scans_a_person": [
                    min(counts.values()),
                    statistics.median(counts.values()),
                    max(counts.values()),
                ],
                "read": [
                    {"how": how, "scans": len(some), "file": some[0].name, "subject": some[0].subject}
                    for how, some in sorted(ways.items(), key=lambda item: -len(item[1]))
                ],
            }
        )
    return {"rows": rows, "odd": _odd(by_dataset)}


def _odd(by_dataset: dict[str, list[Scan]]) -> list[str]:
    odd = []
    for dataset, scans in sorted(by_dataset.items()):
        counts = Counter(scan.subject for scan in scans)
        subject, most = counts.most_common(1)[0]
        nobody = [scan for scan in scans if scan.how == "the folder given"]
        sequences = {scan.sequence for scan in scans} - {"unknown"}
        stems = Counter(stem_of(PurePosixPath(scan.name).name) for scan in scans)
        stem, repeated = stems.most_common(1)[0]
        if len(scans) < _FEW:
            continue
        if len(nobody) >= _FEW:
            odd.append(
                f"{dataset}: nothing in the paths of {len(nobody)} scans says whose they are; they count as one person"
            )
        elif len(counts) == 1:
            odd.append(f"{dataset}: all {len(scans)} scans count as one person, {subject}")
        elif most > len(scans) / 2 and len(counts) > 2:
            odd.append(f"{dataset}: {most} of {len(scans)} scans count as one person, {subject}")
        elif len(counts) == len(scans) and (repeated > 1 or len(sequences) > 1):
            why = (
                f"{repeated} are called {stem}"
                if repeated > 1
                else f"they are {', '.join(sorted(sequences))}"
            )
            odd.append(
                f"{dataset}: as many people as scans ({len(scans)}), though {why}; is each of another person?"
            )
    homes: dict[str, set[str]] = defaultdict(set)
    for dataset, scans in by_dataset.items():
        for scan in scans:
            homes[scan.subject].add(dataset)
    shared = sorted(subject for subject, places in homes.items() if len(places) > 1)
    if shared:
        places = " and ".join(sorted(homes[shared[0]]))
        many = f"{len(shared)} people are" if len(shared) > 1 else "one person is"
        odd.append(f"{many} in more than one data set, such as {shared[0]} in {places}")
    return odd


def table_lines(table: dict[str, Any]) -> list[str]:
    """The table as text: heading, a line a data set, what was read from where, what is odd."""
    rows = table["rows"][:_MOST_ROWS]
    heading = ("data set", "people", "sessions", "scans", "scans a person")
    cells = [
        (row["dataset"], str(row["people"]), str(row["sessions"]), str(row["scans"]), range_text(row))
        for row in rows
    ]
    widths = [max(len(line[at]) for line in (heading, *cells)) for at in range(5)]
    lines = []
    for line in (heading, *cells):
        first, *rest = (
            text.ljust(widths[0]) if not at else text.rjust(widths[at]) for at, text in enumerate(line)
        )
        lines.append("  ".join((first, *rest)))
    if more := len(table["rows"]) - len(rows):
        lines.append(f"and {more} more data sets")
    for row in rows[:8]:
        for read in row["read"][:2]:
            lines.append(f"{read['file']}: {read['subject']}" + (f" ({read['how']})" if read["how"] else ""))
    lines += [f"odd: {sentence}" for sentence in table["odd"]]
    return lines


def range_text(row: dict[str, Any]) -> str:
    """Scans a person: `2`, or `1 to 5`."""
    fewest, _, most = row["scans_a_person"]
    return str(fewest) if fewest == most else f"{fewest} to {most}"
