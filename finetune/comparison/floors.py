"""Floors: scores of the same folds without a network. A start that isn't above them has shown nothing.

Every report has two by default: a linear probe on the image itself at 24 pixels a side, and a random forest on global
figures of the picture (brightness, margins, extent, entropy). They aren't arms: they are in no pair and don't count in
Holm's correction; each arm's difference to them has an interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mri_transfer.finetune.arms.arms import Arm
from mri_transfer.finetune.arms.starts import FIGURES, PIXELS
from mri_transfer.finetune.comparison import statistics
from mri_transfer.finetune.comparison.runner import Job
from mri_transfer.finetune.data.protocol import Split

MODES = {PIXELS: "probe", FIGURES: "forest"}
WORDS = {
    PIXELS: "raw pixels (the image at 24 pixels a side, a linear probe)",
    FIGURES: "global figures of the picture (brightness, margins, extent, entropy; a random forest)",
}


def floor_jobs(splits: Sequence[Split], fraction: float) -> list[Job]:
    """A trial of each floor on each split of one label fraction."""
    return [
        Job(Arm(name, name, ""), mode, split)
        for split in splits
        if split.fraction == fraction
        for name, mode in MODES.items()
    ]


def floor_entries(
    scores: dict[str, np.ndarray], floors: dict[str, np.ndarray], resampling: statistics.Resampling
) -> list[dict[str, Any]]:
    """The report's entries for the floors.

    Args:
        scores: macro-F1 (1 + draws, seeds) of each arm of the headline cell.
        floors: the same of each floor.

    Returns:
        {"floor", "words", "macro_f1": interval, "arms": {arm: {"difference": interval of arm minus floor, "above":
        whether all of it is above zero}}} for each floor, highest first.
    """
    entries = []
    for name, floor in floors.items():
        arms = {}
        for arm, score in scores.items():
            difference = statistics.estimate(score - floor, resampling).interval()
            low = difference["low"]
            arms[arm] = {"difference": difference, "above": low is not None and low > 0}
        interval = statistics.estimate(floor, resampling).interval(0.0, 1.0)
        entries.append({"floor": name, "words": WORDS[name], "macro_f1": interval, "arms": arms})
    return sorted(entries, key=lambda entry: -(entry["macro_f1"]["estimate"] or 0.0))
