"""Keep the identities of a store's people stable while it grows."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Hashable, Sequence
from pathlib import PurePosixPath
from typing import Any

from mri_transfer.datasets.store.ledger import Ledger
from mri_transfer.datasets.volumes.find import Inventory, Source, printable
from mri_transfer.datasets.volumes.identity_table import BY_TABLE
from mri_transfer.datasets.volumes.naming import stem_of
from mri_transfer.datasets.volumes.people.decide import decide
from mri_transfer.datasets.volumes.people.evidence import File
from mri_transfer.errors import UserError

_STATED = ("known", "bids", "dicom", "told")  # evidence that always names a person the same way


def to_record(evidence: File | None) -> dict[str, Any]:
    """Evidence as stored in a journal: fields that differ from the default."""
    if evidence is None:
        return {}
    record = {}
    for field in dataclasses.fields(File):
        value = getattr(evidence, field.name)
        if field.default is dataclasses.MISSING or value != field.default:
            record[field.name] = value
    return record


def from_record(record: dict[str, Any]) -> File:
    """Evidence from a journal."""
    names = {field.name for field in dataclasses.fields(File)}
    values = {key: value for key, value in record.items() if key in names}
    texts = tuple((str(place), str(text)) for place, text in values.pop("told", ()))
    return File(**{**values, "parts": tuple(values["parts"]), "told": texts})


def keep_people(ledger: Ledger, inventory: Inventory) -> None:
    """Give files found now the names that a store already has for their people.

    People are identified over the store's files and those found now. A volume keeps the subject, session and sequence
    it was stored with; a new file of a known person gets that person's name; a new person never gets a name already in
    use.

    Raises:
        UserError: two people of the store would now be one, or one would be two.
    """
    if not ledger.used:
        return
    entry_of = {entry["path"]: entry for entry in ledger.used}
    moved = {path: entry_of.get(note["of"]) for path, note in ledger.known.items() if path not in entry_of}
    paths = {printable(str(source.path)) for source in inventory.sources}
    elsewhere = [entry for entry in ledger.used if entry["path"] not in paths and entry.get("evidence")]
    files = [source.evidence for source in inventory.sources if source.evidence]
    persons = decide([*files, *(from_record(entry["evidence"]) for entry in elsewhere)])
    owners = [entry_of.get(printable(str(source.path))) for source in inventory.sources]
    subjects_of: dict[tuple[Hashable, ...], set[str]] = defaultdict(set)
    keys_of: dict[str, set[tuple[Hashable, ...]]] = defaultdict(set)
    for stored_person, entry in zip(persons, [*owners, *elsewhere], strict=True):
        if entry is not None and entry.get("how") != BY_TABLE:
            subjects_of[stored_person.key].add(entry["subject"])
            keys_of[entry["subject"]].add(stored_person.key)
    untold = {entry["subject"] for entry in ledger.used if not entry.get("evidence")}
    used_names = {entry["subject"] for entry in ledger.used}
    name_of: dict[tuple[Hashable, ...], str] = {}
    changed: list[tuple[Source, str, str]] = []
    for number, (source, entry) in enumerate(zip(inventory.sources, owners, strict=True)):
        person = persons[number]
        stated_fields = set(source.stated)
        values: dict[str, str] = {}
        if entry is None and (before_it_moved := moved.get(printable(str(source.path)))):
            # Its slices are already in the store under its old name; the new path changes no identities.
            values = {key: before_it_moved[key] for key in ("subject", "session", "sequence")}
        elif entry is not None and entry.get("how") == BY_TABLE and not stated_fields:
            values = {}  # made with a table not given now: `collection` reports it, if it matters
        elif entry is not None:
            values = {
                key: entry[key] for key in ("subject", "session", "sequence") if key not in stated_fields
            }
            mixed = len(subjects_of[person.key]) > 1 or len(keys_of[entry["subject"]]) > 1
            if mixed and "subject" not in stated_fields and entry.get("how") != BY_TABLE:
                changed.append((source, entry["subject"], person.subject))
        elif "subject" not in stated_fields:
            if person.key not in name_of:
                before = subjects_of.get(person.key, set())
                if len(before) > 1:
                    changed.append((source, " and ".join(sorted(before)), person.subject))
                name_of[person.key] = (
                    min(before)
                    if before
                    else _free_name(person.subject, person.dataset, person.key, used_names, untold)
                )
                used_names.add(name_of[person.key])
            values = {"subject": name_of[person.key]}
        inventory.sources[number] = dataclasses.replace(
            source, identity=dataclasses.replace(source.identity, **values)
        )
    if changed:
        _refuse(ledger, changed)


def _free_name(
    name: str, dataset: str, key: tuple[Hashable, ...], used_names: set[str], untold: set[str]
) -> str:
    """A name unique in the store; a person named by the same evidence keeps theirs."""
    if name not in used_names or (key[0] in _STATED and name in untold):
        return name
    longer = f"{dataset}/{name}"
    number = 1
    while longer in used_names:
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
    """How a store's own file names contradict its subjects, in one line; empty if they don't.

    For stores made before subjects were decided over all files.

    Args:
        volumes: of a :class:`SliceStore`, each with source and subject.
    """
    files, subjects, names = [], [], []
    for volume in volumes:
        path = PurePosixPath(volume["source"])
        stem = stem_of(path.name)
        if stem == path.name or len(path.parts) < 2:
            continue  # a DICOM series, whose tags are unknown
        files.append(File((*path.parts[:-1], stem), f"/{path.parts[0]}"))
        subjects.append(volume["subject"])
        names.append(volume["source"])
    subjects_of, keys_of = defaultdict(set), defaultdict(set)
    persons = decide(files)
    for person, subject in zip(persons, subjects, strict=True):
        subjects_of[person.key].add(subject)
        keys_of[subject].add(person.key)
    wrong = [
        (name, subject, person.subject)
        for person, subject, name in zip(persons, subjects, names, strict=True)
        if len(keys_of[subject]) > 1 or len(subjects_of[person.key]) > 1
    ]
    if not wrong:
        return ""
    name, before, now = wrong[0]
    return (
        f"{len(wrong)} of {len(volumes)} volumes seem to be filed under other people than their paths say (such as "
        f"{name}: {before}, and by its path {now})"
    )
