"""Remarks on a store's people and volumes, made before spending a night on it."""

from __future__ import annotations

from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.datasets.store.subjects import outdated
from mri_transfer.datasets.store.unwanted import REMEDY, unwanted
from mri_transfer.words import counted

FEW = 10  # people; with fewer, a batch's other slices are mostly the same heads
WHO_IS_WHO = "say who is who with `slices --subject PATTERN` (or --table), into another --out"


def remarks(store: SliceStore) -> list[str]:
    """Lines on a store with very few people, or one made under older rules for identifying people or scans."""
    people = len({volume["subject"] for volume in store.volumes})
    scans = len(store.volumes)
    lines = []
    if people < FEW:
        persons = "one person" if people == 1 else f"{people} people"
        lines.append(
            f"{store.folder} has scans of only {persons} ({counted(scans, 'scan')}), and an encoder "
            f"needs many to learn from; if there are more (see {store.folder / 'summary.html'}), {WHO_IS_WHO}"
        )
    if not store.manifest.get("people_decided_together") and (wrong := outdated(store.volumes)):
        lines.append(
            f"{store.folder}: {wrong}; unless a table said so, make the store again, or {WHO_IS_WHO}"
        )
    if remark := unwanted(
        [volume["source"] for volume in store.volumes], store.manifest.get("asked_for", ())
    ):
        lines.append(f"{store.folder}: {remark}; {REMEDY}")
    return lines
