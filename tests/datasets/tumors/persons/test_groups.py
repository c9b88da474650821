"""Groups: what is linked stays together, whatever the order it is met in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mri_transfer.datasets.tumors.copies.duplicates import Pairs, near_duplicates
from mri_transfer.datasets.tumors.copies.thumbnails import THUMBNAIL, thumbnail
from mri_transfer.datasets.tumors.persons.groups import (
    BLOCK,
    DISTANT,
    alike_links,
    connected,
    describe,
    guessed_links,
    neighbour_links,
    sequences,
)
from mri_transfer.datasets.tumors.persons.persons import person_groups

LINKS = st.integers(1, 30).flatmap(
    lambda n: st.tuples(
        st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=40)
    )
)
NONE = Pairs(np.empty(0, int), np.empty(0, int), np.empty(0, np.float32), np.empty(0, int))


@given(LINKS)
def test_connected_is_the_transitive_closure(case):
    n, links = case
    reach = np.eye(n, dtype=bool)
    for a, b in links:
        reach[a, b] = reach[b, a] = True
    for k in range(n):  # Warshall
        reach |= reach[:, [k]] & reach[[k]]
    groups = connected(np.array(links, dtype=int), n)
    assert np.array_equal(groups[:, None] == groups[None], reach)
    assert groups[0] == 0
    assert set(groups) == set(range(groups.max() + 1))


@given(LINKS, st.randoms())
def test_order_and_direction_of_links_do_not_matter(case, random):
    n, links = case
    shuffled = [(b, a) for a, b in links]
    random.shuffle(shuffled)
    assert np.array_equal(connected(np.array(links, int), n), connected(np.array(shuffled, int), n))


def smooth(rng: np.random.Generator) -> np.ndarray:
    return np.kron(rng.integers(0, 127, (8, 8)), np.ones((16, 16)))  # brighter ones may look like negatives


def stack(patients: int, slices: int, seed: int) -> np.ndarray:
    """Thumbnails of patients whose neighbouring slices correlate at about 0.85."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(patients):
        own = smooth(rng)
        images += [thumbnail((0.7 * own + 0.3 * smooth(rng)).astype(np.uint8)) for _ in range(slices)]
    return np.stack(images)


def grouped(thumbs: np.ndarray, numbers: np.ndarray, kept: np.ndarray | None = None) -> np.ndarray:
    kept = np.arange(len(numbers)) if kept is None else kept
    runs = sequences([("Training", "glioma", "gg (")] * len(numbers), numbers.tolist())
    return connected(guessed_links(NONE, runs, numbers, kept, thumbs)[0], len(thumbs))


def test_slices_of_a_patient_stay_together_and_blocks_are_filled():
    thumbs = stack(patients=12, slices=5, seed=0)
    groups = grouped(thumbs, np.arange(60))
    for patient in range(12):
        assert len(set(groups[5 * patient : 5 * patient + 5])) == 1
    sizes = np.bincount(groups)
    assert len(sizes) == 60 // BLOCK
    assert set(sizes) == {BLOCK}


def test_a_block_that_is_not_full_takes_the_whole_next_patient():
    sizes = np.bincount(grouped(stack(patients=16, slices=3, seed=0), np.arange(48)))
    assert sizes.tolist() == [12] * 4  # nine are fewer than a block


def test_unrelated_numbers_stay_single():
    rng = np.random.default_rng(1)
    thumbs = np.stack([thumbnail(smooth(rng).astype(np.uint8)) for _ in range(50)])
    assert len(set(grouped(thumbs, np.arange(50)))) > 45


def test_a_gap_in_the_numbers_parts_neighbours():
    thumbs = stack(patients=1, slices=4, seed=2)
    assert grouped(thumbs, np.array([1, 2, 3, 4])).tolist() == [0, 0, 0, 0]
    assert grouped(thumbs, np.array([1, 2, 30, 31])).tolist() == [0, 0, 1, 1]


def test_a_dropped_copy_still_links_its_neighbours():
    # Two files show image 0: one numbered 40, one numbered 1 and followed by image 1.
    thumbs = stack(patients=1, slices=2, seed=3)
    groups = grouped(thumbs, np.array([40, 1, 2]), kept=np.array([0, 0, 1]))
    assert groups.tolist() == [0, 0]


def test_near_duplicates_join_across_sequences():
    rng = np.random.default_rng(4)
    images = [smooth(rng).astype(np.uint8) for _ in range(4)]
    thumbs = np.stack([thumbnail(image) for image in [*images, np.ascontiguousarray(images[2][:, ::-1])]])
    copies = near_duplicates(thumbs, threshold=0.97)
    links, _ = guessed_links(copies, {}, np.zeros(5, int), np.arange(5), thumbs)
    groups = person_groups([""] * 5, copies, links)
    assert groups.tolist() == [0, 1, 2, 3, 2]


def test_images_alike_as_they_are_are_linked_whatever_the_chunk():
    rng = np.random.default_rng(5)
    images = rng.integers(0, 255, (7, THUMBNAIL, THUMBNAIL))
    images[5] = np.clip(images[1] * 0.9 + 20, 0, 255)
    for chunk in (1, 3, 100):
        assert alike_links(images.astype(np.uint8), chunk).tolist() == [[1, 5]]


def correlations(thumbs: np.ndarray) -> np.ndarray:
    """NumPy's, of thumbnails at half their size."""
    halves = thumbs.astype(float).reshape(len(thumbs), THUMBNAIL // 2, 2, THUMBNAIL // 2, 2).mean((2, 4))
    return np.corrcoef(halves.reshape(len(thumbs), -1))


@pytest.mark.parametrize("files", [DISTANT, DISTANT + 1, 30])
def test_what_is_measured_of_a_sequence(files):
    thumbs = stack(patients=6, slices=5, seed=6)[:files]
    likeness, place = correlations(thumbs), np.arange(files)
    copies = Pairs(np.array([3]), np.array([4]), np.ones(1, np.float32), np.zeros(1, int))
    numbers = np.where(place < 10, place, place + 5)  # five are missing before the eleventh
    runs = {"a": place, "b": place[:1]}
    _, measured = neighbour_links(runs, numbers, place, thumbs, copies)
    neighbours = np.median([likeness[i, i + 1] for i in range(files - 1) if i not in (3, 9)])
    distant = np.median(np.diagonal(likeness, DISTANT)) if files > DISTANT else None
    assert list(measured) == ["a"]  # one file has no neighbour
    assert measured["a"]["files"] == files
    assert measured["a"]["neighbours"] == pytest.approx(neighbours, abs=1e-5)
    assert measured["a"]["distant"] == (None if distant is None else pytest.approx(distant, abs=1e-5))
    assert measured["a"]["numbers_follow_patients"] == (distant is not None and neighbours - distant > 0.15)


def test_one_number_may_be_missing_between_neighbours_and_not_two():
    thumbs = stack(patients=1, slices=3, seed=7)
    assert grouped(thumbs[:2], np.array([1, 2])).tolist() == [0, 0]
    assert grouped(thumbs, np.array([1, 3, 6])).tolist() == [0, 0, 1]


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_groups_are_described_by_their_sizes_and_by_what_they_still_share(chunk):
    thumbs = stack(patients=2, slices=4, seed=8)
    groups = np.array([0, 1, 1, 2, 1, 3, 3, 4])
    outside = np.where(groups[:, None] == groups, -1, correlations(thumbs)).max(axis=1)
    assert outside.max() < 0.99
    description = describe(groups, thumbs, chunk)
    shared = description.pop("correlation_with_other_groups")
    assert description == {
        "number": 5, "largest": [3, 2, 1, 1, 1], "single_images": 3, "median_size": 1.0,
        "group_size_of_median_image": 2.0,
    }  # fmt: skip
    expected = {
        "median": np.median(outside),
        "percentile_99": np.quantile(outside, 0.99),
        "max": outside.max(),
    }
    assert shared == pytest.approx(expected, abs=1e-5)
    assert (
        describe(np.zeros(8, int), thumbs, chunk)["correlation_with_other_groups"]["max"] == -1
    )  # no others
    assert (
        len(describe(np.arange(8).repeat(2)[:12], np.concatenate([thumbs, thumbs[:4]]), chunk)["largest"])
        == 6
    )
    many = describe(np.arange(12), np.concatenate([thumbs, thumbs[:4]]), chunk)
    assert (many["number"], many["largest"]) == (12, [1] * 10)
