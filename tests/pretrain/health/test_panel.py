"""The slices of the panel: deterministic, nested, spread."""

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mri_transfer.pretrain.health.panel import choose, free_labels, position_bins


def table(rng, n, sequences=("T1", "T2"), planes=("axial", "coronal"), subjects=5, weights=None):
    return {
        "sequence": rng.choice(sequences, n, p=weights),
        "plane": rng.choice(planes, n),
        "subject": rng.choice([f"s{i}" for i in range(subjects)], n),
        "position": rng.random(n),
    }


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(1, 120), st.integers(1, 150), st.integers(0, 5))
def test_each_once_the_same_again_and_nested(seed, n, count, draw):
    columns = table(np.random.default_rng(seed), n)
    rows = choose(columns, count, draw)
    assert len(rows) == min(n, count) == len(set(rows.tolist()))
    np.testing.assert_array_equal(rows, choose(columns, count, draw))
    np.testing.assert_array_equal(rows[: count // 2], choose(columns, count // 2, draw)[: len(rows)])


def test_another_seed_chooses_others():
    columns = table(np.random.default_rng(0), 1000)
    assert set(choose(columns, 50, 0)) != set(choose(columns, 50, 1))


def test_rare_kinds_and_small_subjects_are_seen_as_often_as_others():
    rng = np.random.default_rng(0)
    columns = table(rng, 4000, subjects=8, weights=(0.9, 0.1))
    rows = choose(columns, 320, 0)
    kinds = collections.Counter(zip(columns["sequence"][rows], columns["plane"][rows], strict=True))
    assert set(kinds.values()) == {80}
    subjects = collections.Counter(columns["subject"][rows])
    assert max(subjects.values()) == min(subjects.values()) == 40


def test_what_is_rare_is_taken_whole_and_the_rest_fills_up():
    columns = table(np.random.default_rng(0), 500)
    columns["sequence"][:] = "T1"
    columns["sequence"][[3, 77]] = "T2"
    rows = choose(columns, 100, 0)
    assert {3, 77} <= set(rows.tolist())
    assert len(rows) == 100


def test_positions_are_fifths_of_the_slices_of_a_plane():
    rng = np.random.default_rng(0)
    columns = table(rng, 2000)
    axial = columns["plane"] == "axial"
    columns["position"][axial] = columns["position"][axial] ** 4  # most slices near one end
    all_rows = np.arange(2000)
    bins = position_bins(columns, all_rows)
    for plane in ("axial", "coronal"):
        mask = columns["plane"] == plane
        counts = collections.Counter(bins[mask])
        assert set(counts) == set("12345")
        assert max(counts.values()) - min(counts.values()) <= 2
        highest = [columns["position"][mask & (bins == name)].max() for name in "12345"]
        assert highest == sorted(highest)
    # Which bin a slice is in does not depend on what else is asked for.
    some = rng.permutation(2000)[:30]
    np.testing.assert_array_equal(position_bins(columns, some), bins[some])


def test_free_labels_are_those_of_the_table():
    columns = table(np.random.default_rng(0), 50)
    rows = choose(columns, 20, 0)
    labels = free_labels(columns, rows)
    np.testing.assert_array_equal(labels["plane"]["labels"], columns["plane"][rows])
    np.testing.assert_array_equal(labels["sequence"]["labels"], columns["sequence"][rows])
    np.testing.assert_array_equal(labels["position"]["within"], columns["plane"][rows])


def test_one_position_for_all_is_one_bin():
    columns = table(np.random.default_rng(0), 30)
    columns["position"][:] = 0.5
    assert len(set(position_bins(columns, np.arange(30)))) == 1


@pytest.mark.parametrize("missing", ["unknown", ""])
def test_unknown_planes_are_a_kind_like_any(missing):
    columns = table(np.random.default_rng(0), 60)
    columns["plane"][:20] = missing
    assert len(choose(columns, 60, 0)) == 60
