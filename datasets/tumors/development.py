"""Which groups of tumour images may steer choices: a fixed fifth, which no headline figure is scored on.

Whoever compares methods, settings or defaults by their tumour score tunes on the images it is computed from. So a fifth
of the groups, which are persons where persons are known, is set apart for that, the same on every machine, and results
to be believed come from the rest.
"""

from __future__ import annotations

import hashlib

import numpy as np

from mri_transfer.datasets.tumors.tumors import TumorSet

SHARE = 0.2


def is_development(name: str) -> bool:
    """Whether the group that is known by `name` is one of the fifth, by the SHA-256 of its name."""
    return (
        int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big") / 2**64
        < SHARE
    )


def development_images(tumors: TumorSet) -> np.ndarray:
    """Which images belong to development groups, bool (n,).

    A person whom a source names is known by source and person, so that the same people are set apart whatever the
    files are called; any other group by the first of its files' paths in alphabetical order, copies included.
    """
    names: dict[int, str] = {}
    known = tumors.known
    people: dict[int, str] = {}
    for group, source, person in zip(tumors.groups.tolist(), known.sources, known.persons, strict=True):
        if source:
            people[group] = min(people.get(group, f"{source}/{person}"), f"{source}/{person}")
    for file, image in zip(tumors.files, tumors.image_of, strict=True):
        group, path = int(tumors.groups[image]), file.path.replace("\\", "/")
        names[group] = min(names.get(group, path), path)
    groups = {group for group, name in (names | people).items() if is_development(name)}
    return np.isin(tumors.groups, sorted(groups))
