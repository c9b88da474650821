"""Trees of files as lines of text, and whether the persons of a tree come out as they are."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Sequence
from pathlib import Path

from mri_transfer.datasets.volumes.people.decide import decide
from mri_transfer.datasets.volumes.people.evidence import File, Whose

KINDS = Path(__file__).with_name("kinds.txt")


def kinds() -> dict[str, list[tuple[str, str]]]:
    """The cases of `kinds.txt`: name → pairs of person and path."""
    cases: dict[str, list[tuple[str, str]]] = {}
    for line in KINDS.read_text(encoding="utf-8").splitlines():
        if line.startswith("="):
            rows = cases.setdefault(line[1:].strip(), [])
        elif line and not line.startswith("#"):
            person, rest = line.split(" ", 1)
            rows += [(person, path) for path in re.split(r" (?=(?:d|x|one|two|ADNI|subjects)[/|])", rest)]
    return cases


def file_of(path: str, **more) -> File:
    """`top/below/name`, or `above/top|below/name`, as it is when `top` was given."""
    top, below = path.split("|" if "|" in path else "/", 1)
    return File((top.rsplit("/", 1)[-1], *below.split("/")), f"/data/{top}", **more)


def whose(paths: Sequence[str], **more) -> list[Whose]:
    """Of each path as :func:`file_of` takes it."""
    return decide([file_of(path, **more) for path in paths])


def mixed_up(people: Sequence[Hashable], answers: Sequence[Whose]) -> dict[str, set]:
    """Persons that came out as several subjects, and subjects that are several persons; empty if all is right."""
    subjects, persons = defaultdict(set), defaultdict(set)
    for person, answer in zip(people, answers, strict=True):
        subjects[f"person {person}"].add(answer.subject)
        persons[f"subject {answer.subject}"].add(person)
    return {key: values for key, values in (subjects | persons).items() if len(values) > 1}
