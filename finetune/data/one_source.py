"""The same question where a picture's origin can't tell its class: training and testing within one source.

In a set collected from several places, features that distinguish the places (size, margins, sharpness) help to
distinguish the classes, and a start may be better only at that. Pictures of one source with known persons and labels
offer few such shortcuts. So besides all images there is a second cell: models trained and tested within the source
alone. Scoring models of all images on its pictures would not do: they have learned the shortcuts.

The folds are those of all images, minus pictures from elsewhere: groups stay whole, and an encoder pretrained on a
fold's training images has not seen the cell's test images either.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from mri_transfer.datasets.tumors.persons.recognised import COLLECTIONS
from mri_transfer.datasets.tumors.tumors import TumorSet
from mri_transfer.finetune.data.protocol import Split
from mri_transfer.finetune.data.scored_images import Scored

NONE = "Not compared within one source: no picture was recognised as one whose patient and label are known."
FEATURE_MODES = ("probe", "nearest")
FEWEST = 2  # classes, and groups of each among scored images


@dataclasses.dataclass(frozen=True, eq=False)
class OneSource:
    """The images of one source.

    Attributes:
        source: its id.
        name: for display.
        images: bool (n,), over all distinct images.
        labels: int (n,), the source's labels 0..k-1; -1 elsewhere.
        classes: names of the k classes.
    """

    source: str
    name: str
    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def within(self, splits: Sequence[Split]) -> list[Split]:
        """The splits without the pictures from elsewhere."""
        return [
            dataclasses.replace(
                split,
                train=split.train[self.images[split.train]],
                test=split.test[self.images[split.test]],
                source=self,
            )
            for split in splits
        ]


def one_source(tumors: TumorSet, scored: Scored, splits: Sequence[Split]) -> tuple[OneSource | None, str]:
    """The source of most images, if it makes a cell.

    Args:
        tumors: the images.
        scored: those used for figures.
        splits: of all images.

    Returns:
        The cell and one sentence on it; or None and the reason.
    """
    truth = tumors.known.labels(tumors.classes)  # the source's label, whatever --labels believes elsewhere
    sources = np.array(tumors.known.sources, object)
    bound = tumors.known.bound & (truth >= 0)
    if not bound.any():
        return None, NONE
    names, counts = np.unique(sources[bound].astype(str), return_counts=True)
    source = str(names[counts.argmax()])
    images = bound & (sources == source)
    present = np.unique(truth[images])
    labels = np.full(len(tumors), -1)
    labels[images] = np.searchsorted(present, truth[images])
    cell = OneSource(
        source,
        COLLECTIONS.get(source, source).split(" (")[0],
        images,
        labels,
        tuple(tumors.classes[label] for label in present),
    )
    rows = images & scored.images
    groups = [len(np.unique(tumors.groups[rows & (labels == label)])) for label in range(len(present))]
    lacking = [split for split in cell.within(splits) if len(np.unique(labels[split.train])) < len(present)]
    if len(present) < FEWEST or min(groups, default=0) < FEWEST or lacking:
        return None, (
            f"Not compared within one source: of {int(images.sum()):,} pictures from {cell.name} too few are in a "
            "class or fold."
        )
    return cell, (
        f"Within one source: models trained and tested on pictures of {cell.name} alone, {len(present)} classes by "
        f"the source's labels; scored on {int(rows.sum()):,} pictures of {len(np.unique(tumors.groups[rows])):,} "
        "persons."
    )
