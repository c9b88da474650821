"""Each arm's colour and marker, the same in every figure and table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mri_transfer.pages.figures import COLOURS

MARKERS = ("D", "^", "v", "P", "X")
RANDOM_COLOUR = "#7d838c"


@dataclass(frozen=True)
class Look:
    """Colour and marker of an arm, the same in every figure."""

    colour: str
    marker: str


def looks(arms: Sequence[str]) -> dict[str, Look]:
    """A look for each arm: grey for random weights, orange for ImageNet, the other colours in order."""
    fixed = {"random": Look(RANDOM_COLOUR, "o"), "imagenet": Look(COLOURS[1], "s")}
    colours = [colour for colour in COLOURS if colour != COLOURS[1]]
    by_arm: dict[str, Look] = {}
    for arm in arms:
        position = sum(other not in fixed for other in by_arm)
        by_arm[arm] = fixed.get(arm) or Look(
            colours[position % len(colours)], MARKERS[position % len(MARKERS)]
        )
    return by_arm
