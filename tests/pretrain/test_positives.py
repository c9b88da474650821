import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.errors import UserError
from mri_transfer.pretrain.positives import PairSampler, read_ahead


class TableOnly:
    """As much of a store as the sampler sees."""

    folder = "store"

    def __init__(self, subject, volume, plane, position):
        self.table = {
            "subject": np.asarray(subject),
            "volume": np.asarray(volume),
            "plane": np.asarray(plane),
            "position_mm": np.asarray(position, dtype=float),
        }

    def __len__(self):
        return len(self.table["volume"])


@st.composite
def tables(draw):
    n = draw(st.integers(2, 60))
    volume = draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
    volume[:2] = [0, 3]  # two subjects at least
    plane = draw(st.lists(st.sampled_from(["axial", "coronal"]), min_size=n, max_size=n))
    position = draw(st.lists(st.integers(-20, 20), min_size=n, max_size=n))
    subject = [f"s{v // 2}" for v in volume]
    return TableOnly(subject, volume, plane, position)


@settings(max_examples=60)
@given(tables(), st.integers(0, 1000), st.sampled_from([2.0, 6.0]))
def test_partners_are_near_in_the_same_volume_and_plane(store, step, max_mm):
    sampler = PairSampler(store, positives="adjacent", max_mm=max_mm, batch=16, seed=1)
    a, b = sampler.indices(step)
    table = store.table
    assert (table["volume"][a] == table["volume"][b]).all()
    assert (table["plane"][a] == table["plane"][b]).all()
    assert (np.abs(table["position_mm"][a] - table["position_mm"][b]) <= max_mm).all()


def test_every_neighbour_within_reach_is_drawn_and_no_other():
    store = TableOnly(["s"] * 6 + ["t"], [0] * 6 + [1], ["axial"] * 6 + ["axial"], [0, 3, 6, 9, 12, 15, 0])
    sampler = PairSampler(store, positives="adjacent", max_mm=6, batch=64, seed=0)
    partners = {i: set() for i in range(7)}
    for step in range(60):
        for a, b in zip(*sampler.indices(step), strict=True):
            partners[a].add(int(b))
    assert partners == {
        0: {0, 1, 2}, 1: {0, 1, 2, 3}, 2: {0, 1, 2, 3, 4}, 3: {1, 2, 3, 4, 5}, 4: {2, 3, 4, 5}, 5: {3, 4, 5}, 6: {6},
    }  # fmt: skip


def test_same_pairs_a_slice_with_itself(small_store):
    sampler = PairSampler(SliceStore.open(small_store), positives="same", max_mm=99, batch=32, seed=0)
    a, b = sampler.indices(3)
    np.testing.assert_array_equal(a, b)


def test_a_batch_is_a_function_of_seed_and_step(small_store):
    store = SliceStore.open(small_store)

    def batch(seed, step):
        return PairSampler(store, positives="adjacent", max_mm=6, batch=8, seed=seed)(step)

    for name, array in batch(0, 7).items():
        np.testing.assert_array_equal(array, batch(0, 7)[name])
    assert not np.array_equal(batch(0, 7)["a"], batch(0, 8)["a"])
    assert not np.array_equal(batch(0, 7)["a"], batch(1, 7)["a"])


def test_subjects_are_drawn_by_the_square_root_of_their_slices():
    subject = ["a"] * 100 + ["b"] * 25 + ["c"]
    store = TableOnly(subject, [ord(s) for s in subject], ["axial"] * 126, np.arange(126))
    sampler = PairSampler(store, positives="same", max_mm=1, batch=1000, seed=0)
    drawn = np.concatenate([sampler.indices(step)[0] for step in range(20)])
    share = [(drawn < 100).mean(), ((drawn >= 100) & (drawn < 125)).mean(), (drawn == 125).mean()]
    np.testing.assert_allclose(share, np.array([10, 5, 1]) / 16, atol=0.015)


def test_batches_read_ahead_are_in_order_and_leave_no_thread(small_store):
    sampler = PairSampler(SliceStore.open(small_store), positives="same", max_mm=1, batch=4, seed=0)
    batches = read_ahead(sampler, 5)
    for step in range(5, 12):
        np.testing.assert_array_equal(next(batches)["a"], sampler(step)["a"])
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("batches")]


def test_one_subject_has_no_negatives():
    store = TableOnly(["s", "s"], [0, 1], ["axial", "axial"], [0, 1])
    with pytest.raises(UserError, match="one subject"):
        PairSampler(store, positives="same", max_mm=1, batch=2, seed=0)
