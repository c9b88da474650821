"""Images that may show one person, if no source identifies them: guessed from file numbers and similarity.

Known persons come first (:mod:`mri_transfer.datasets.tumors.persons.persons`); this is for the rest. The guess is poor:
of 202 persons known in 2,292 pictures of the public four-class set, it splits 163, and 176 of its groups mix several
persons. It was derived from the set's 2,870 distinct images:

- Numbers follow patients in most of its file sequences: consecutive numbers correlate 0.83-0.93 (median),
  numbers twenty apart 0.45-0.55. In others (the test folders, "no_tumor", prefix "m1") they hardly do: 0.23-0.55
  against 0.20-0.46.
- Neighbouring slices of one patient mostly correlate above 0.70, and below it where patient or plane changes.
- Above 0.965, in any two files, both images show the same patient. Down to 0.94 most still do, but slices near the
  vertex of different patients begin, and linking those would chain a hundred images together.

So three kinds of links are made, besides those of copies:

1. consecutive numbers of one sequence that correlate by at least `NEIGHBOUR`;
2. in a sequence whose numbers follow patients, a run of neighbours shorter than `BLOCK` is joined with the
   next run until it has that many: such a seam seldom splits the slices of one patient;
3. any two images that correlate by at least `SAME_PATIENT`.

With plain blocks of ten numbers 214 images of 1,978 have their most similar image, a numbered neighbour, in another
group; with these rules 12 do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from mri_transfer.datasets.tumors.copies.duplicates import Pairs, correlation_of
from mri_transfer.datasets.tumors.copies.thumbnails import coarse, normalised
from mri_transfer.evaluation.numbering import numbered

NEIGHBOUR = 0.70
SAME_PATIENT = 0.965
BLOCK = 10
FOLLOWS = (
    0.15  # if neighbours' median correlation exceeds that of distant numbers by this, numbers follow patients
)
DISTANT = 20  # difference between distant numbers


def connected(links: np.ndarray, n: int) -> np.ndarray:
    """The group of each of `n` items, from pairs that belong together; numbered by first appearance.

    Args:
        links: int (links, 2).
        n: number of items.

    Returns:
        int (n,).
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    links = np.asarray(links, dtype=int).reshape(-1, 2)
    graph = coo_matrix((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(n, n))
    _, component = connected_components(graph, directed=False)
    return numbered(component)[1]


def sequences(keys: Sequence[tuple[str, str, str]], numbers: Sequence[int]) -> dict[str, np.ndarray]:
    """Files numbered together, in order of their numbers.

    Args:
        keys: (split, class, prefix) of each file.
        numbers: the number in each file's name.

    Returns:
        "split/class/prefix" to int positions.
    """
    members: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for position, key in enumerate(keys):
        members[key].append(position)
    return {
        "/".join(key): np.array(sorted(positions, key=lambda position: (numbers[position], position)))
        for key, positions in sorted(members.items())
    }


def neighbour_links(
    runs: dict[str, np.ndarray],
    numbers: np.ndarray,
    image_of: np.ndarray,
    thumbs: np.ndarray,
    near: Pairs,
) -> tuple[np.ndarray, dict[str, dict]]:
    """Links 1 and 2 of the module's list.

    Args:
        runs: from :func:`sequences`.
        numbers: int (files,).
        image_of: int (files,), the distinct image that each file shows.
        thumbs: uint8 (images, side, side).
        near: pairs of the same picture; they don't show whether numbers follow patients.

    Returns:
        Links between distinct images, int (links, 2), and the measurements of each sequence.
    """
    links: list[tuple[int, int]] = []
    copies = set(zip(near.first.tolist(), near.second.tolist(), strict=True))
    figures: dict[str, dict] = {}
    for name, files in runs.items():
        if len(files) < 2:
            continue
        images = image_of[files]
        similarity = correlation_of(thumbs, images[:-1], images[1:])
        steps = zip(images[:-1].tolist(), images[1:].tolist(), strict=True)
        copied = np.array([a == b or (min(a, b), max(a, b)) in copies for a, b in steps])
        adjacent = np.diff(numbers[files]) <= 2  # one number may be missing
        telling = similarity[adjacent & ~copied]
        neighbours = float(np.median(telling)) if len(telling) else None
        distant = None
        if len(files) > DISTANT:
            distant = float(np.median(correlation_of(thumbs, images[:-DISTANT], images[DISTANT:])))
        follows = neighbours is not None and distant is not None and neighbours - distant > FOLLOWS
        run = 1
        for step in range(len(similarity)):
            linked = similarity[step] >= NEIGHBOUR or (follows and run < BLOCK)
            if linked and adjacent[step]:
                links.append((images[step], images[step + 1]))
                run += 1
            else:
                run = 1
        figures[name] = {
            "files": len(files),
            "neighbours": neighbours,
            "distant": distant,
            "numbers_follow_patients": follows,
        }
    return np.array(links, dtype=int).reshape(-1, 2), figures


def alike_links(thumbs: np.ndarray, chunk: int = 1024) -> np.ndarray:
    """Link 3 of the module's list: pairs that correlate without alignment; int (links, 2)."""
    vectors = normalised(coarse(thumbs))
    links = [np.empty((0, 2), int)]
    for start in range(0, len(vectors), chunk):
        rows, columns = np.nonzero(vectors[start : start + chunk] @ vectors.T >= SAME_PATIENT)
        rows += start
        links.append(np.stack([rows, columns], axis=1)[rows < columns])
    return np.concatenate(links)


def guessed_links(
    near: Pairs,
    runs: dict[str, np.ndarray],
    numbers: np.ndarray,
    image_of: np.ndarray,
    thumbs: np.ndarray,
) -> tuple[np.ndarray, dict[str, dict]]:
    """Pairs of distinct images that may show one person, by the module's rules.

    Args:
        near: pairs that are the same picture.
        runs, numbers, kept, thumbs: as in :func:`neighbour_links`.

    Returns:
        int (links, 2), and the measurements of each sequence of files.
    """
    neighbours, figures = neighbour_links(runs, numbers, image_of, thumbs, near)
    return np.concatenate([neighbours, alike_links(thumbs)]), figures


def describe(groups: np.ndarray, thumbs: np.ndarray, chunk: int = 1024) -> dict:
    """Sizes of groups, and remaining similarity of images in different groups (upright, without borders)."""
    sizes = np.sort(np.bincount(groups))[::-1]
    vectors = normalised(coarse(thumbs))
    outside = np.empty(len(groups), np.float32)
    for start in range(0, len(groups), chunk):
        correlation = vectors[start : start + chunk] @ vectors.T
        correlation[groups[start : start + chunk, None] == groups[None]] = -1
        outside[start : start + chunk] = correlation.max(axis=1, initial=-1)
    return {
        "number": len(sizes),
        "largest": sizes[:10].tolist(),
        "single_images": int((sizes == 1).sum()),
        "median_size": float(np.median(sizes)),
        "group_size_of_median_image": float(np.median(np.bincount(groups)[groups])),
        "correlation_with_other_groups": {
            "median": float(np.median(outside)),
            "percentile_99": float(np.quantile(outside, 0.99)),
            "max": float(outside.max()),
        },
    }
