"""Volumes accepted into a store by older rules that current rules would leave out by name."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import PurePosixPath

from mri_transfer.datasets.volumes.left_out import left_out
from mri_transfer.datasets.volumes.names_of_maps import tissue_classes
from mri_transfer.datasets.volumes.naming import stem_of
from mri_transfer.words import counted

REMEDY = "unless they were asked for, make the store again with another --out"


def is_unwanted(name: str) -> bool:
    """Whether a file would be left out by its name unless requested."""
    return bool(left_out(PurePosixPath(name)))


def unwanted(names: Sequence[str], asked_for: Collection[str] = ()) -> str:
    """The volumes that would be left out today, in one line without the remedy; empty if none.

    Args:
        names: the sources of a store's volumes.
        asked_for: those the user wanted nevertheless.
    """
    # A DICOM series has no suffix; the names of its files, which were checked, are no longer known.
    files = [name for name in names if stem_of(PurePosixPath(name).name) != PurePosixPath(name).name]
    wanted_names = set(asked_for)
    classes = {name: f"a tissue class of {scan} by its name" for name, scan in tissue_classes(files).items()}
    reasons = {
        name: classes.get(name) or (left_out(PurePosixPath(name)) or "").split(";")[0]
        for name in dict.fromkeys(files)
        if name not in wanted_names
    }
    exclusions = [(name, reason) for name, reason in reasons.items() if reason]
    if not exclusions:
        return ""
    name, reason = exclusions[0]
    return (
        f"{len(exclusions)} of {counted(len(names), 'volume')} would be left out today "
        f"(such as {name}: {reason})"
    )
