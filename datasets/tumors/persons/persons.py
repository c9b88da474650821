"""The person each image shows, if a source names one, and otherwise the images that must stay together.

A known person *is* the group. Inference from file numbers and similarity (see
:mod:`mri_transfer.datasets.tumors.persons.groups`) joins only images whose person is unknown: a guess must neither add
to what is known nor contradict it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mri_transfer.datasets.tumors.copies.duplicates import Pairs
from mri_transfer.datasets.tumors.persons.binding import Binding
from mri_transfer.datasets.tumors.persons.groups import connected
from mri_transfer.datasets.tumors.persons.originals import Originals, person_of

UNKNOWN = ""
LARGEST = 0.25  # of a class, in one group of a table


@dataclass(frozen=True, eq=False)
class Known:
    """What sources say about `n` images. "" and -1 mean unknown.

    Attributes:
        sources: each image's collection.
        originals: its slice's name there.
        patients: id of the patient there, for one visit.
        persons: the person, across visits.
        planes: "axial", "coronal" or "sagittal".
        tumours: "glioma", "meningioma" or "pituitary".
    """

    sources: tuple[str, ...]
    originals: tuple[str, ...]
    patients: tuple[str, ...]
    persons: tuple[str, ...]
    planes: tuple[str, ...]
    tumours: tuple[str, ...]

    @property
    def bound(self) -> np.ndarray:
        """bool (n,), the images whose original is known."""
        return np.array([source != UNKNOWN for source in self.sources], bool)

    def labels(self, classes: Sequence[str]) -> np.ndarray:
        """Each image's class by its source, int (n,); -1 if unknown or if no class has that name."""
        number = {tumour: _class_of(tumour, classes) for tumour in set(self.tumours)}
        return np.array([number[tumour] for tumour in self.tumours], int)


def _class_of(tumour: str, classes: Sequence[str]) -> int:
    labels = [label for label, name in enumerate(classes) if tumour and tumour in name.lower()]
    return labels[0] if len(labels) == 1 else -1


def recognise(bindings: Iterable[tuple[Originals, Binding]], near: Pairs, n: int) -> Known:
    """What collections of originals say about `n` images.

    Args:
        bindings: collections, and the slice each image shows; later ones win if several know an image.
        near: pairs of the same picture: what is known of one holds for the other.
        n: number of images.
    """
    rows: list[tuple[str, str, str, str, str]] = [(UNKNOWN,) * 5] * n
    for originals, binding in bindings:
        for image, place in enumerate(binding.original):
            if place >= 0:
                rows[image] = (
                    originals.source,
                    originals.names[place],
                    originals.patients[place],
                    originals.planes[place],
                    originals.labels[place],
                )
    _hand_on(rows, near)
    source, name, patient, plane, tumour = zip(*rows, strict=True) if rows else ((),) * 5
    persons = tuple(person_of(name) for name in patient)
    return Known(source, name, patient, persons, plane, tumour)


def _hand_on(rows: list[tuple[str, str, str, str, str]], near: Pairs) -> None:
    """Extend what is known of a picture to its copies; the most similar copy first."""
    while True:
        before = len(rows) - rows.count((UNKNOWN,) * 5)
        for first, second in zip(near.first.tolist(), near.second.tolist(), strict=True):
            has_source = [bool(rows[first][0]), bool(rows[second][0])]
            if has_source == [True, False]:
                rows[second] = rows[first]
            elif has_source == [False, True]:
                rows[first] = rows[second]
        if len(rows) - rows.count((UNKNOWN,) * 5) == before:
            return


def person_groups(
    persons: Sequence[str], near: Pairs, guessed: np.ndarray, *, sure: np.ndarray | None = None
) -> np.ndarray:
    """Groups, which are persons where known.

    Args:
        persons: of each of `n` images; "" if unknown.
        near: pairs of images that are the same picture. They stay together unless both images are `sure`: then they are
            known to be two pictures, however similar.
        guessed: int (links, 2), pairs that may show one person; they join only images whose person is unknown.
        sure: bool (n,), of images whose original is known; None: of none.

    Returns:
        int (n,), numbered by first appearance.
    """
    has_person = np.array([person != UNKNOWN for person in persons], bool)
    sure = np.zeros(len(persons), bool) if sure is None else sure
    copies = np.stack([near.first, near.second], axis=1)
    copies = copies[~(sure[near.first] & sure[near.second])]
    guessed = np.asarray(guessed, int).reshape(-1, 2)
    guessed = guessed[~has_person[guessed].any(axis=1)]
    number = {person: n for n, person in enumerate(dict.fromkeys(persons))}
    members = np.array([(n, len(persons) + number[p]) for n, p in enumerate(persons) if p], int).reshape(
        -1, 2
    )
    return connected(np.concatenate([members, copies, guessed]), len(persons) + len(number))[: len(persons)]


def too_large(
    labels: np.ndarray, groups: np.ndarray, usual: np.ndarray, classes: Sequence[str]
) -> str | None:
    """The fault of given groups if one holds more than `LARGEST` of a class, else None.

    Args:
        labels, groups: int (n,).
        usual: int (n,), groups without the given ones: if as large there, the given groups are not at fault.
        classes: names of the labels.
    """
    for label, name in enumerate(classes):
        rows = labels == label
        count, usual_count = (int(np.bincount(grouping[rows]).max(initial=0)) for grouping in (groups, usual))
        if count > max(usual_count, LARGEST * rows.sum()):
            return (
                f"one group holds {count} of the {rows.sum()} images of {name} ({count / rows.sum():.0%}), so that one "
                "fold tests on them all and no other is trained without them"
            )
    return None
