"""A comparison's scored images: by default those not used for any choice.

All images train, in the folds of every arm. Out-of-fold predictions of development groups (see
:mod:`mri_transfer.datasets.tumors.development`) are excluded from every figure, interval and picture of the report:
otherwise, methods and settings would be scored on the images that chose them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from mri_transfer.datasets.tumors.development import development_images
from mri_transfer.datasets.tumors.tumors import TumorSet
from mri_transfer.errors import UserError

_WHERE = {
    "headline": "outside the development groups",
    "development": "among the development groups",
    "all": "",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Scored:
    """The scored part of a tumour set.

    Attributes:
        which: "headline", "development" or "all".
        images: bool (n,).
        about: {"which", "images", "groups", "left_out": {"images", "groups"}, "words"}, for the report.
    """

    which: str
    images: np.ndarray
    about: dict[str, Any]


def scored_images(tumors: TumorSet, which: str) -> Scored:
    """Choose the scored images.

    Raises:
        UserError: a class would have no scored group, or only one group would be scored.
    """
    development = development_images(tumors)
    mask = {"headline": ~development, "development": development}.get(which, np.ones(len(tumors), dtype=bool))
    remedy = "add patients" if which == "all" else "use --scored all, or add patients"
    missing = np.setdiff1d(np.arange(len(tumors.classes)), tumors.labels[mask])
    if len(missing):
        raise UserError(
            f"--scored {which}: class {tumors.classes[missing[0]]} has no group {_WHERE[which]}; {remedy}"
        )
    groups = len(np.unique(tumors.groups[mask]))
    if groups < 2:
        raise UserError(f"--scored {which}: all scored images are in one group; {remedy}")
    left_out = {"images": int((~mask).sum()), "groups": len(np.unique(tumors.groups[~mask]))}
    facts = {"which": which, "images": int(mask.sum()), "groups": groups, "left_out": left_out}
    return Scored(which, mask, facts | {"words": _words(facts)})


def _words(facts: dict[str, Any]) -> str:
    images, groups, left_out = facts["images"], facts["groups"], facts["left_out"]
    if facts["which"] == "headline":
        return (
            f"Scored on {images:,} images in {groups:,} groups. Another {left_out['images']:,} images in "
            f"{left_out['groups']:,} groups, reserved for choosing methods and settings, are used for training but "
            "never scored."
        )
    if facts["which"] == "development":
        return (
            f"Scored on the {images:,} images of the {groups:,} development groups only: figures for choosing "
            "settings, not results."
        )
    return (
        f"Scored on all {images:,} images in {groups:,} groups, development groups among them: to be trusted only "
        "if no method or setting was chosen on these images."
    )
