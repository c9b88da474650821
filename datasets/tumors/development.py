"""Groups of tumour images for making choices: a fixed fifth, on which no headline figure is scored.

Comparing methods, settings or defaults by tumour score tunes on the images scored. So a fifth of the groups (persons,
where known), the same on every machine, is reserved for that, and reported results come from the rest.
"""

from __future__ import annotations

import hashlib

import numpy as np

from mri_transfer.datasets.tumors.tumors import TumorSet

SHARE = 0.2


def is_development(name: str) -> bool:
    """Whether the group `name` is in that fifth, by the SHA-256 of its name."""
    return (
        int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big") / 2**64
        < SHARE
    )


def development_images(tumors: TumorSet) -> np.ndarray:
    """The images in development groups, bool (n,).

    A person named by a source is identified by source and person, so that the same people are reserved whatever the
    file names; any other group by the alphabetically first path of its files, copies included.
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
