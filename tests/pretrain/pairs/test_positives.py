import json
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.errors import UserError
from mri_transfer.pretrain.pairs.positives import KINDS, PairSampler, mixture, mixture_text, read_ahead


class TableOnly:
    """As much of a store as the sampler sees."""

    folder = "store"

    def __init__(self, subject, volume, plane, position, sequence=None, fraction=None):
        n = len(subject)
        self.table = {
            "subject": np.asarray(subject),
            "session": np.full(n, ""),
            "sequence": np.asarray(sequence or ["T1"] * n),
            "volume": np.asarray(volume),
            "plane": np.asarray(plane),
            "position_mm": np.asarray(position, dtype=float),
            "position": np.asarray([0.5] * n if fraction is None else fraction),
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


def test_draws_are_those_of_numpys_choice():
    """Runs that were begun with an earlier version go on with the same batches."""
    rng = np.random.default_rng(3)
    volume = np.sort(rng.integers(0, 12, 300))
    store = TableOnly([f"s{v // 2}" for v in volume], volume, ["axial"] * 300, rng.integers(0, 60, 300))
    sampler = PairSampler(store, positives="adjacent", max_mm=6, batch=32, seed=7)
    a, b = sampler.indices(5)
    rng = np.random.default_rng([7, 5])
    subjects = rng.choice(len(sampler.weights), size=32, p=sampler.weights)
    rows = [np.flatnonzero(sampler.subject == subject) for subject in subjects]
    place = rng.integers(np.zeros(32, int), [len(candidates) for candidates in rows])
    np.testing.assert_array_equal(a, [candidates[i] for candidates, i in zip(rows, place, strict=True)])
    assert (store.table["volume"][a] == store.table["volume"][b]).all()


def two_sequences(subjects=6, slices=10, with_partner=4):
    """Slices 5 mm apart; the first `with_partner` subjects have T1 and T2 on one grid, the others T1 alone."""
    rows = []
    for subject in range(subjects):
        for sequence in ("T1", "T2") if subject < with_partner else ("T1",):
            volume = len({row[:2] for row in rows})
            rows += [
                (f"s{subject}", volume, "axial", 5.0 * i, sequence, (i + 0.5) / slices) for i in range(slices)
            ]
    subject, volume, plane, mm, sequence, fraction = (list(column) for column in zip(*rows, strict=True))
    return TableOnly(subject, volume, plane, mm, sequence, fraction)


def test_a_mixture_is_drawn_in_its_shares_and_what_has_no_partner_by_the_others():
    store = two_sequences()
    text = "adjacent:5,sequence:3,same:2"
    sampler = PairSampler(store, positives=text, max_mm=6, batch=500, seed=0)
    draws = [sampler.pairs(step) for step in range(20)]
    a, b, kind = (np.concatenate(parts) for parts in zip(*draws, strict=True))
    table = store.table
    has = np.isin(table["subject"][a], ["s0", "s1", "s2", "s3"])
    for name, share, alone in (("adjacent", 0.5, 5 / 7), ("sequence", 0.3, 0), ("same", 0.2, 2 / 7)):
        assert (kind == name)[has].mean() == pytest.approx(share, abs=0.02)
        assert (kind == name)[~has].mean() == pytest.approx(alone, abs=0.03)
    assert (a == b)[kind == "same"].all()
    other = kind == "sequence"
    assert (table["sequence"][a] != table["sequence"][b])[other].all()
    assert (table["position_mm"][a] == table["position_mm"][b])[other].all()
    assert (table["subject"][a] == table["subject"][b]).all()
    near = kind == "adjacent"
    assert (table["volume"][a] == table["volume"][b])[near].all()
    assert set(np.abs(table["position_mm"][a] - table["position_mm"][b])[near]) == {0.0, 5.0}


def test_other_sequences_alone_fall_back_to_adjacent_slices():
    sampler = PairSampler(two_sequences(), positives="sequence", max_mm=6, batch=500, seed=0)
    a, _, kind = sampler.pairs(0)
    has = np.isin(sampler.store.table["subject"][a], ["s0", "s1", "s2", "s3"])
    assert (kind[has] == "sequence").all()
    assert (kind[~has] == "adjacent").all()


def test_what_a_store_offers_is_counted():
    sampler = PairSampler(two_sequences(), positives="adjacent:0.5,sequence:0.5", max_mm=6, batch=500, seed=0)
    description = sampler.describe()
    assert description["slices"] == 100
    assert description["with_sequence"] == 80
    assert description["with_adjacent"] == 100
    assert description["sequences"] == {"T1 with T2": 40, "T2 with T1": 40}
    kinds = np.concatenate([sampler.pairs(step)[2] for step in range(20)])
    for kind, share in description["drawn"].items():
        assert (kinds == kind).mean() == pytest.approx(share, abs=0.02)
    assert "80 with a partner in another sequence" in sampler.sentence()
    json.dumps(description)


def test_a_store_without_partners_is_told_so():
    with pytest.raises(UserError, match=r"no slice has a partner.*--positives adjacent"):
        PairSampler(two_sequences(with_partner=0), positives="same,sequence", max_mm=6, batch=2, seed=0)


def test_mixtures_are_read_whatever_their_order():
    assert mixture("adjacent") == {"adjacent": 1.0}
    assert mixture("same:1, sequence:3") == {"sequence": 0.75, "same": 0.25}
    assert mixture_text("same:2,adjacent:6") == "adjacent:0.75,same:0.25"
    assert mixture_text("same:0.3") == "same"
    assert mixture_text(mixture_text("same:1,adjacent:1,sequence:1")) == mixture_text(
        "sequence,same,adjacent"
    )


@given(st.dictionaries(st.sampled_from(KINDS), st.floats(0.01, 100), min_size=1))
def test_shares_add_up_to_one(weights):
    shares = mixture(",".join(f"{kind}:{weight}" for kind, weight in weights.items()))
    assert sum(shares.values()) == pytest.approx(1)
    assert tuple(shares) == tuple(kind for kind in KINDS if kind in weights)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("near", "there are adjacent, sequence, same"),
        ("", "there are adjacent"),
        ("same:0", "above 0"),
        ("same:x", "above 0"),
        ("same:-1,adjacent", "above 0"),
        ("same,same:2", "twice"),
        ("same:", "above 0"),
    ],
)
def test_wrong_mixtures_are_told_with_a_remedy(text, says):
    with pytest.raises(ValueError, match=says):
        mixture(text)


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
    draws = np.concatenate([sampler.indices(step)[0] for step in range(20)])
    share = [(draws < 100).mean(), ((draws >= 100) & (draws < 125)).mean(), (draws == 125).mean()]
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
    sampler = PairSampler(store, positives="same", max_mm=1, batch=2, seed=0, negatives=False)
    assert set(np.concatenate(sampler.indices(0))) <= {0, 1}


def test_a_distance_means_itself_where_positions_are_rounded():
    store = TableOnly(["s"] * 3 + ["t"], [0] * 3 + [1], ["axial"] * 4, [0, 6.000003, 12.1, 0])
    sampler = PairSampler(store, positives="adjacent", max_mm=6, batch=2, seed=0)
    (candidates,) = sampler._kinds
    near = [
        sorted(candidates.slices[f:t].tolist())
        for f, t in zip(candidates.first, candidates.last, strict=True)
    ]
    assert near == [[0, 1], [0, 1], [2], [3]]
    assert sampler.describe() == {
        "positives": {"adjacent": 1.0}, "slices": 4, "subjects": 2, "drawn": {"adjacent": 1.0}, "with_adjacent": 2,
    }  # fmt: skip
    assert sampler.sentence() == (
        "pairs: 100% adjacent; 4 slices of 2 subjects, 2 with another slice within 6 mm"
    )


def test_a_batch_holds_the_slices_that_were_drawn(small_store):
    store = SliceStore.open(small_store)
    sampler = PairSampler(store, positives="adjacent", max_mm=6, batch=8, seed=0)
    whole, (a, b) = sampler(3), sampler.indices(3)
    np.testing.assert_array_equal(whole["a"], store.images(a))
    np.testing.assert_array_equal(whole["b"], store.images(b))
    assert whole["subject"].dtype == np.int32
    names = np.asarray(store.table["subject"])
    np.testing.assert_array_equal(np.unique(names)[whole["subject"]], names[a])
    bare = PairSampler(store, positives="adjacent", max_mm=6, batch=8, seed=0, negatives=False)(3)
    assert sorted(bare) == ["a", "b"]
    np.testing.assert_array_equal(bare["b"], whole["b"])


def test_no_more_batches_are_read_ahead_than_said():
    steps = []
    batches = read_ahead(steps.append, 7, depth=2)
    next(batches)
    deadline = time.monotonic() + 10
    while len(steps) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)  # enough for more, if more were to come
    batches.close()
    assert steps == [7, 8, 9]


def test_a_share_of_a_mixture_is_stored_with_six_digits():
    assert mixture_text("same:1,adjacent:2") == "adjacent:0.666667,same:0.333333"
