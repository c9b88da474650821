"""What recognised images reveal about a set: counts, persons, contradicted labels, and persons in both splits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mri_transfer.datasets.tumors.images import ImageFile
from mri_transfer.datasets.tumors.persons.originals import FIGSHARE
from mri_transfer.datasets.tumors.persons.persons import UNKNOWN, Known
from mri_transfer.words import counted


def account(
    files: Sequence[ImageFile],
    image_of: np.ndarray,
    classes: Sequence[str],
    known: Known,
    persons: Sequence[str],
    groups: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
) -> dict[str, Any]:
    """Figures for `audit.json`.

    Args:
        files: every readable one.
        image_of: int (files,), the distinct image that each shows.
        classes: names of the labels.
        known: for the `n` distinct images.
        persons: of the distinct images, "" if unknown.
        groups: int (n,).
        train, test: bool (files,), the published split.

    Returns:
        "images", "bound", "unknown",
        "unknown_with_person", "by_source" ({source: {"images", "persons", "patients", "tumours", "planes"}}),
        "by_class" ({class: {source: images}}), "persons", "images_with_person", "largest_person" (images),
        "persons_in_several_groups", "groups_of_several_persons", and of the published split "test_files",
        "test_with_person", "test_person_in_training" (files) with "..._by_class".
    """
    sources = np.array([source or "unknown" for source in known.sources])
    person = np.array(list(persons), dtype=object)
    has_person = person != UNKNOWN
    labels = np.array([file.label for file in files], int)
    label_of = np.empty(len(sources), int)
    label_of[image_of[::-1]] = labels[::-1]  # the first file of each image

    def count(values: Sequence[str], mask: np.ndarray) -> dict[str, int]:
        names, numbers = np.unique(np.array(values)[mask], return_counts=True)
        return {str(name) or "unknown": int(number) for name, number in zip(names, numbers, strict=True)}

    trained = set(person[image_of[train]]) - {UNKNOWN}
    leaked = test & np.array([person[image] in trained for image in image_of], bool)
    of_group: dict[int, set[str]] = {}
    of_person: dict[str, set[int]] = {}
    for image in np.flatnonzero(has_person):
        of_group.setdefault(int(groups[image]), set()).add(person[image])
        of_person.setdefault(person[image], set()).add(int(groups[image]))
    return {
        "images": len(sources),
        "bound": int((sources != "unknown").sum()),
        "unknown": int((sources == "unknown").sum()),
        "unknown_with_person": int(((sources == "unknown") & has_person).sum()),
        "by_source": {
            str(source): {
                "images": int((sources == source).sum()),
                "persons": len(set(person[sources == source]) - {UNKNOWN}),
                "patients": len(set(np.array(known.patients, object)[sources == source]) - {UNKNOWN}),
                "tumours": count(known.tumours, sources == source),
                "planes": count(known.planes, sources == source),
            }
            for source in np.unique(sources)
            if source != "unknown"
        },
        "by_class": {
            name: {
                str(source): int(((sources == source) & (label_of == label)).sum())
                for source in np.unique(sources)
            }
            for label, name in enumerate(classes)
        },
        "persons": len(of_person),
        "images_with_person": int(has_person.sum()),
        "largest_person": max((int((person == name).sum()) for name in of_person), default=0),
        "persons_in_several_groups": sum(len(members) > 1 for members in of_person.values()),
        "groups_of_several_persons": sum(len(members) > 1 for members in of_group.values()),
        "test_files": int(test.sum()),
        "test_with_person": int((test & has_person[image_of]).sum()),
        "test_person_in_training": int(leaked.sum()),
        "test_person_in_training_by_class": {
            name: int((leaked & (labels == label)).sum()) for label, name in enumerate(classes)
        },
    }


COLLECTIONS = {
    FIGSHARE: "Cheng's collection (Figshare 1512427, CC BY 4.0, doi 10.6084/m9.figshare.1512427; cite doi "
    "10.1371/journal.pone.0140381)"
}
"""Display names of the sources."""


def sentences(audit: dict[str, Any]) -> list[str]:
    """The account in words.

    Args:
        audit: of a set, with "sources" from :func:`account`, "source_conflicts" from :func:`conflicts`, "labels"
            ({"from", "changed"}) and "groups" ("from": "inferred", or their table).
    """
    sources, conflicts, labels = audit["sources"], audit["source_conflicts"], audit["labels"]
    table = None if audit["groups"]["from"] == "inferred" else audit["groups"]["from"]
    if table is None:
        sentence = "Who they show is unknown; the groups are inferred."
    elif not sources["unknown_with_person"]:
        sentence = f"{table} groups them."
    else:
        sentence = (
            f"{table} names the person on {sources['unknown_with_person']:,} of them and groups the others."
        )
    if not sources["bound"]:
        none = "None of the pictures was recognised as a slice of a collection whose patients are known"
        if table is not None:
            return [f"{none}. {sentence}"]
        return [
            f"{none}, so who they show is unknown. Groups are inferred from copies, similarity and file "
            "numbers."
        ]
    lines = []
    for source, counts in sources["by_source"].items():
        tumours = ", ".join(f"{number:,} {tumour}" for tumour, number in counts["tumours"].items())
        visits = counts["patients"] - counts["persons"]
        lines.append(
            f"{counts['images']:,} of {sources['images']:,} pictures are slices of {COLLECTIONS.get(source, source)}: "
            f"{tumours}. They show {counted(counts['persons'], 'person')}"
            + (
                f", {visits} of whose {counts['patients']:,} patient ids are further visits."
                if visits
                else "."
            )
        )
    if sources["unknown"]:
        by_class = ", ".join(
            f"{name} {number}"
            for name, count in sources["by_class"].items()
            if (number := count.get("unknown"))
        )
        lines.append(
            f"{sources['unknown']:,} pictures were not recognised as slices of a known collection ({by_class}). "
            f"{sentence}"
        )
    if sources["test_files"] and sources["test_with_person"]:
        lines.append(
            f"Of {sources['test_files']} images in the published test split, {sources['test_with_person']} show a "
            f"known person; {sources['test_person_in_training']} of these show one who is in the training split, too."
        )
    if conflicts:
        lines.append(
            f"{counted(len(conflicts), 'file')} lie in another class than the source says"
            + (
                f"; the source's label is taken ({labels['changed']} distinct images change)."
                if labels["from"] == "source"
                else "; the folder's label is kept."
            )
        )
    return lines


def origin_tells_class(sources: dict[str, Any]) -> str | None:
    """Why a picture's origin predicts its class; None if it doesn't, or nothing is known.

    This holds if a class is entirely from one place and others are mostly from another.
    """
    shares = {
        name: (sum(count.values()) - count.get("unknown", 0)) / max(1, sum(count.values()))
        for name, count in sources["by_class"].items()
    }
    elsewhere = [name for name, share in shares.items() if share < 0.05]
    mostly = [name for name, share in shares.items() if share > 0.5]
    if not elsewhere or not mostly:
        return None
    return (
        f"Where a picture comes from tells its class: {_words(elsewhere)} comes from other places than most of "
        f"{_words(mostly)}. Pictures of one place share size, sharpness, contrast agent and margins, so a network can "
        "learn to tell the places apart and seem to know the disease. A score over all classes counts that as skill; "
        "among pictures of one source it does not help."
    )


def _words(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def conflicts(
    files: Sequence[ImageFile], image_of: np.ndarray, classes: Sequence[str], known: Known
) -> list[dict[str, Any]]:
    """Files in a different class from the one their source says: {"file", "label", "source_label", "source"}."""
    source_labels = known.labels(classes)
    return [
        {
            "file": file.path,
            "label": classes[file.label],
            "source_label": classes[source_labels[image]],
            "source": f"{known.sources[image]} {known.originals[image]}",
        }
        for file, image in zip(files, image_of.tolist(), strict=True)
        if source_labels[image] >= 0 and source_labels[image] != file.label
    ]
