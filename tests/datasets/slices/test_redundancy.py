"""What is left out as redundant, and that it depends on nothing but the pixels."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mri_transfer.datasets.extraction.extract import SlicesConfig, extract
from mri_transfer.datasets.slices.cut import Slices
from mri_transfer.datasets.slices.redundancy import (
    Repeats,
    correlations,
    distinct,
    neighbour_correlations,
    subset,
    thumbnails,
    without_redundant,
)
from mri_transfer.datasets.store.store import SliceStore


def drift(count: int, size: int = 64, step: float = 0.5, seed: int = 0) -> np.ndarray:
    """Pictures that change slowly from each to the next."""
    rng = np.random.default_rng(seed)
    walk = rng.normal(0, 1, (1, 8, 8)) + step * np.cumsum(rng.normal(0, 1, (count, 8, 8)), axis=0)
    coarse = np.clip(128 + 40 * walk, 0, 255).astype(np.uint8)
    return coarse.repeat(size // 8, axis=1).repeat(size // 8, axis=2)


def as_slices(images: np.ndarray, planes=None) -> Slices:
    places = tuple(float(i) for i in range(len(images)))
    return Slices(images, tuple(planes or ["axial"] * len(images)), places, places)


@pytest.mark.parametrize("size", [16, 32, 45, 64, 100, 160, 174, 224, 1024])
def test_thumbnails_are_sums_over_boxes(size):
    images = np.random.default_rng(size).integers(0, 256, (3, size, size), dtype=np.uint8)
    pictures = thumbnails(images)
    box = max(1, round(size / 32))
    side = size // box
    assert pictures.shape == (3, side**2)
    first = (size - side * box) // 2
    for row, column in ((0, 0), (1, side - 1), (side - 1, side // 2)):
        top, left = first + row * box, first + column * box
        expected = images[:, top : top + box, left : left + box].sum(axis=(1, 2), dtype=np.int64)
        np.testing.assert_array_equal(pictures.reshape(3, side, side)[:, row, column], expected)


@given(seed=st.integers(0, 1000), n=st.integers(1, 9), m=st.integers(1, 9))
def test_correlations_are_pearsons(seed, n, m):
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(0, 6000, (count, 50)).astype(np.float32) for count in (n, m))
    a[0] = 7  # of one value
    table = correlations(a, b)
    expected = np.corrcoef(np.vstack([a[1:], b]).astype(np.float64))[: n - 1, n - 1 :] if n > 1 else []
    assert not table[0].any()
    np.testing.assert_allclose(table[1:], np.reshape(expected, (n - 1, m)), atol=1e-9)


@given(seed=st.integers(0, 10_000), limit=st.floats(0.5, 0.999))
def test_kept_pictures_differ_and_each_dropped_one_is_like_one_kept_before_it(seed, limit):
    pictures = thumbnails(drift(20, seed=seed))
    kept = distinct(pictures, limit)
    reference = np.corrcoef(pictures.astype(np.float64))
    np.testing.assert_allclose(neighbour_correlations(pictures), np.diagonal(reference, 1), atol=1e-9)
    for index in range(20):
        nearest = max((reference[index, before] for before in kept if before < index), default=-1.0)
        if abs(nearest - limit) > 1e-9:
            assert (index in kept) == (nearest <= limit)


def test_brightness_and_contrast_do_not_matter_and_a_limit_of_one_keeps_all():
    images = drift(2, step=0.9)
    repeated = np.concatenate([images, (images // 2 + 30)])
    assert without_redundant(as_slices(repeated), 0.99).redundant == 2
    assert without_redundant(as_slices(np.concatenate([images, images])), 1.0).redundant == 0


def test_planes_are_not_compared_with_each_other():
    stack = drift(1)
    kept = without_redundant(
        as_slices(np.concatenate([stack, stack, stack]), ("axial", "coronal", "axial")), 0.9
    )
    assert kept.plane == ("axial", "coronal")
    assert kept.position == (0.0, 1.0)
    assert kept.redundant == 1


def test_repeated_scans_of_a_subject_whether_remembered_or_read_back():
    scans = [as_slices(drift(12, seed=seed)) for seed in (0, 1, 0, 1)]
    scans[3] = as_slices(np.concatenate([scans[1].images, drift(3, seed=9)]))

    def run(restart_before: int) -> list[Slices]:
        stored: list[tuple[list[str], np.ndarray]] = []
        repeats = Repeats(0.97, lambda subject, sequence: stored)
        result = []
        for number, scan in enumerate(scans):
            if number == restart_before:
                repeats = Repeats(0.97, lambda subject, sequence: stored)
            new = repeats.filter(without_redundant(scan, 0.97), "anna", "T1")
            stored.append((list(new.plane), new.images))
            result.append(new)
        return result

    at_once = run(restart_before=99)
    assert len(at_once[0].plane) > 1
    assert len(at_once[1].plane) > 1
    assert len(at_once[2].plane) == 0
    assert at_once[2].redundant == 12
    assert 1 <= len(at_once[3].plane) <= 3
    for number in range(4):
        for expected, actual in zip(at_once, run(restart_before=number), strict=True):
            np.testing.assert_array_equal(expected.images, actual.images)
            assert expected.redundant == actual.redundant


def test_slices_in_order_whatever_plane_they_are_of():
    images = drift(4, step=3)
    kept = without_redundant(as_slices(images[[0, 1, 0, 2, 1, 3]], ("b", "a", "b", "a", "a", "b")), 0.9)
    assert kept.position == (0.0, 1.0, 3.0, 5.0)
    assert kept.plane == ("b", "a", "a", "b")
    assert kept.redundant == 2
    np.testing.assert_array_equal(kept.images, images[[0, 1, 2, 3]])
    pair = subset(kept, np.array([0, 2]))
    assert pair.redundant == 4  # with those of before
    assert subset(kept, np.arange(4)) is kept


def test_at_a_limit_of_one_repeats_are_kept_and_nothing_is_read_back():
    def images(subject, sequence):
        raise AssertionError

    scan = as_slices(drift(3))
    assert Repeats(1.0, images).filter(scan, "anna", "T1") is scan


def test_only_the_same_subject_sequence_and_plane_is_compared():
    scan, requests = as_slices(drift(3, step=3)), []

    def earlier(subject, sequence):
        requests.append((subject, sequence))
        return [(["axial"] * 3, scan.images)] if (subject, sequence) == ("anna", "T1") else []

    repeats = Repeats(0.97, earlier)
    assert len(repeats.filter(scan, "anna", "T1").plane) == 0
    assert repeats.filter(scan, "anna", "T2") is scan
    assert repeats.filter(scan, "bert", "T1") is scan
    assert len(repeats.filter(as_slices(scan.images, ["coronal"] * 3), "anna", "T1").plane) == 3
    assert len(repeats.filter(as_slices(scan.images, ["coronal"] * 3), "anna", "T1").plane) == 0  # now held
    assert requests.count(("anna", "T1")) == 1


def test_the_pictures_of_the_latest_subjects_and_slices_are_held(monkeypatch):
    from mri_transfer.datasets.slices import redundancy

    monkeypatch.setattr(redundancy, "_SUBJECTS", 2)
    monkeypatch.setattr(redundancy, "_LATEST", 4)
    scan, requests = as_slices(drift(3, step=3)), []

    def earlier(subject, sequence):
        requests.append(subject)
        return [(["axial"] * 3, scan.images)]

    repeats = Repeats(0.97, earlier)
    for subject in "abacab":  # b is the longest unused when c comes
        assert len(repeats.filter(scan, subject, "T1").plane) == 0
    assert requests == ["a", "b", "c", "b"]
    other = as_slices(drift(3, step=3, seed=5))
    repeats = Repeats(0.97, earlier)
    assert len(repeats.filter(other, "a", "T1").plane) == 3
    # Of six slices the latest four are held: one of the first three.
    assert len(repeats.filter(other, "a", "T1").plane) == 0
    assert len(repeats.filter(scan, "a", "T1").plane) == 2


@pytest.fixture
def sessions(tmp_path, head, save):
    """A subject scanned three times: again with a little noise, and later another head's scan under the same name."""
    folder = tmp_path / "ds"
    rng = np.random.default_rng(0)
    first = head((40, 48, 44), seed=1) * (1 + 0.2 * np.sin(np.arange(44) / 2))
    second = first + rng.normal(0, 0.5, first.shape)
    other = head((36, 50, 44), seed=2)
    for session, voxels in (("1", first), ("2", second), ("3", other)):
        for subject in ("a", "b"):
            path = (
                folder
                / f"sub-{subject}"
                / f"ses-{session}"
                / "anat"
                / f"sub-{subject}_ses-{session}_T1w.nii.gz"
            )
            save(
                path,
                voxels + (rng.normal(0, 0.1, voxels.shape) if subject == "b" else 0),
                zooms=(4.0, 4.0, 4.0),
                dtype=np.float32,
            )
    return folder


def test_a_repeated_session_adds_nothing_and_the_figure_is_shown(tmp_path, sessions, capfd, monkeypatch):
    # The page has tests of its own.
    monkeypatch.setattr(
        "mri_transfer.datasets.store.summary.store_page.write_page", lambda *about: about[3].touch()
    )
    options = {"size": 48, "workers": 1}
    baseline = extract(SlicesConfig((sessions,), tmp_path / "all", max_correlation=1.0, **options))
    capfd.readouterr()
    summary = extract(SlicesConfig((sessions,), tmp_path / "store", max_correlation=0.97, **options))
    assert baseline["redundant"] == 0
    assert summary["slices"] + summary["redundant"] == baseline["slices"]
    assert {skip["file"] for skip in summary["skipped"]} == {
        f"ds/sub-{subject}/ses-2/anat/sub-{subject}_ses-2_T1w.nii.gz" for subject in "ab"
    }
    assert all("--max-correlation" in skip["reason"] for skip in summary["skipped"])
    # Two subjects who look the same stay two subjects.
    store = SliceStore.open(tmp_path / "store")
    assert len(set(np.unique(store.table["subject"], return_counts=True)[1].tolist())) == 1
    share = 100 * summary["redundant"] / baseline["slices"]
    sentence = f"{summary['redundant']} of {baseline['slices']} slices dropped as redundant ({share:.1f}%)"
    assert sentence in capfd.readouterr().err
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_text())
    assert manifest["settings"]["max_correlation"] == 0.97
    # In two runs, as after an interruption, with other numbers of workers: the same store.
    first = sessions / "sub-a" / "ses-1"
    extract(SlicesConfig((first,), tmp_path / "later", size=48, workers=1))
    extract(SlicesConfig((sessions,), tmp_path / "later", size=48, workers=2))
    np.testing.assert_array_equal(
        SliceStore.open(tmp_path / "later").images(range(len(store))), store.images(range(len(store)))
    )
