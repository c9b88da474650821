"""The page of a run: complete, self-contained, and no name can break it."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest

from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.pretrain.health import run_charts
from mri_transfer.pretrain.health.embedding_map import pca, tsne
from mri_transfer.pretrain.health.monitor import MARK, PAGE, HealthMonitor
from mri_transfer.words import hours_minutes_seconds
from tests.html_page import Page

EVIL = '"><script>alert(1)</script>&amp;'


@pytest.fixture(scope="module")
def finished(small_loop):
    """A loop after its run, with the page written."""
    loop, monitor = small_loop(), HealthMonitor()
    loop.run(6, monitor, every=2)
    loop.live = (loop.out / PAGE).read_text(encoding="utf-8")
    (loop.out / "start.json").write_text('{"init": "imagenet", "backbone": "efficientnet_lite0"}')
    for line in loop.lines:
        line |= {"temperature_c": 61.5, "throttled": line["step"] == 3, "cpu_mhz": 2000}
    return loop, monitor, loop.finish(monitor)


def test_it_tells_all_of_the_run_and_loads_nothing(finished):
    loop, _, summary = finished
    html = (loop.out / PAGE).read_text(encoding="utf-8")
    page = Page(html)
    assert not page.open
    assert all(address.startswith(("data:image/", "#")) for address in page.addresses)
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert "url(http" not in html
    assert summary["page"] == str(loop.out / PAGE)
    state, rest = summary["sentence"].split(": ", 1)
    assert state.capitalize() in page.text
    assert rest[1:] in page.text  # as a sentence of its own, it begins with a capital
    for words in (
        "SimCLR", "starting from ImageNet", "At the start", "At the end", "Throttled",
        "in 1 of 6 readings", "62 to 62 °C", "It was not interrupted", "No licence file was found",
        "keras", str(loop.config.store), "Temperature0.1 (not given)",
        "Backboneefficientnet_lite0 (not given)", "Learning rate0.001 (not given)", f"Size{loop.config.size} ",
        "Viewnot given",
    ):  # fmt: skip
        assert words in page.text, words
    assert html.count("<figure>") >= 12
    assert "so far" not in page.text
    assert "generated" not in page.text


def test_it_is_written_while_the_run_goes_on(finished):
    page = Page(finished[0].live)
    assert "so far" in page.text
    assert "not finished" in page.text


def test_a_run_that_ends_worse_than_it_began_says_so_in_its_heading(finished, tmp_path):
    loop, monitor, _ = finished
    start, *_, end = (line for line in loop.lines if MARK in line)
    sound = {
        "spread": 0.5,
        "rankme": 9.0,
        "embedding_spread": 0.8,
        "embedding_rank": 9.0,
        "score_error": 0.01,
    }
    start = start | sound | {"score": 0.6, "alignment_ratio": 1.0}
    view = loop.view()
    view.out, view.config = tmp_path, dataclasses.replace(view.config, init="imagenet")
    view.metrics = [start, end | sound | {"step": 200, "share": 1.0, "score": 0.3, "alignment_ratio": 0.5}]
    summary = monitor.finish(view, {"step": 200, "seconds": 200.0})
    assert summary["health"]["state"] == "worse than its start"
    assert summary["health"]["worse_than_start"]
    html = (tmp_path / PAGE).read_text(encoding="utf-8")
    page = Page(html)
    assert page.text.count("Worse than its start") == 2  # in the title, too
    assert '<h1 class="wrong">' in html
    assert "(0.30, 0.60 at the start)" in page.text


def test_pictures_are_those_of_the_panel_and_neighbours_are_of_others(finished):
    from mri_transfer.pretrain.health.run_page import _neighbours

    loop, monitor, _ = finished

    @dataclasses.dataclass
    class Seen:
        panel = monitor._panel
        store = loop.store
        before = None
        after = monitor._features

    for entry in _neighbours(Seen()):
        assert list(entry["nearest"]) == ["now"]
        assert len(entry["nearest"]["now"]) == 4
        assert all(card["subject"] != entry["query"]["subject"] for card in entry["nearest"]["now"])


def test_names_are_escaped_and_generated_data_are_marked(finished, small_store, tmp_path):
    loop, monitor, _ = finished
    copy = tmp_path / "store"
    shutil.copytree(small_store, copy)
    summary = json.loads((copy / "summary.json").read_text())
    summary |= {"banner": "generated <heads>, no evidence", "licences": [{"file": EVIL, "text": EVIL}]}
    (copy / "summary.json").write_text(json.dumps(summary))
    store = SliceStore.open(copy)
    store.table["subject"] = np.array([f"{name}{EVIL}" for name in store.table["subject"]])
    view = loop.view()
    view.store, view.out = store, tmp_path
    monitor.finish(view, {"step": 6, "seconds": 6.0})
    html = (tmp_path / PAGE).read_text(encoding="utf-8")
    assert "<script" not in html
    page = Page(html)
    assert not page.open
    assert EVIL in page.text
    assert "[generated &lt;heads&gt;, no evidence]" in html
    assert page.text.count("generated <heads>, no evidence") >= html.count("<figure>") + 4


@pytest.mark.parametrize(
    "licences", [3, "terms", {"file": "a"}, [3, None, {"file": "a"}, {"file": 1, "text": []}]]
)
def test_a_summary_of_the_store_with_other_values(small_store, tmp_path, licences):
    from mri_transfer.pretrain.health.run_page import _about_the_store

    copy = tmp_path / "store"
    shutil.copytree(small_store, copy)
    expected = SliceStore.open(copy).manifest["counts"]
    (copy / "summary.json").write_text(json.dumps({"licences": licences, "banner": ["x"]}))
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["counts"], manifest["card_sha256"]  # the store's identity does without its counts
    (copy / "manifest.json").write_text(json.dumps(manifest))
    facts = _about_the_store(SliceStore.open(copy))
    assert all(isinstance(text, str) for licence in facts["licences"] for text in licence.values())
    assert facts["counts"] == {name: expected[name] for name in facts["counts"]}


def test_long_runs_are_drawn_with_few_points():
    lines = [{"step": i, "seconds": 5.0 * i, "loss": float(i % 2)} for i in range(10_000)]
    seconds, values = run_charts.series(lines, "loss")
    assert len(seconds) == len(values) == run_charts.MOST_POINTS
    np.testing.assert_allclose(values, 0.5, atol=0.02)
    assert (np.diff(seconds) > 0).all()
    assert "hours" in run_charts.draw(lines)["loss"][0].svg
    assert run_charts.draw([]) == {"loss": [], "health": [], "machine": []}


def test_the_map_keeps_what_varies_most():
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 1, 300)
    features = np.stack([np.cos(angle), np.sin(angle), 0.01 * rng.normal(size=300)], axis=1)
    points = pca(features)
    assert abs(np.corrcoef(points[:, 0], angle)[0, 1]) > 0.99
    # A rotation of the features changes nothing, and the distances in the map are theirs.
    turned = pca(features @ np.linalg.qr(rng.normal(size=(3, 3)))[0])
    np.testing.assert_allclose(turned, points, atol=1e-8)
    z = features / np.linalg.norm(features, axis=1, keepdims=True)
    z = z - z.mean(axis=0)
    np.testing.assert_allclose((points**2).sum(axis=0), np.linalg.svd(z, compute_uv=False)[:2] ** 2)
    assert pca(np.ones((4, 3))).tolist() == np.zeros((4, 2)).tolist()


@pytest.mark.slow
def test_near_points_are_of_one_kind_in_the_better_map():
    rng = np.random.default_rng(0)
    kind = np.repeat(np.arange(4), 60)
    features = np.eye(4)[kind] @ rng.normal(size=(4, 50)) + 0.1 * rng.normal(size=(240, 50))
    points = tsne(features)
    distances = ((points[:, None] - points[None, :]) ** 2).sum(axis=2) + 1e9 * np.eye(240)
    assert (kind[distances.argmin(axis=1)] == kind).mean() > 0.98
    np.testing.assert_array_equal(points, tsne(features))
    assert tsne(features[:20]).shape == (20, 2)


def test_times_for_people():
    assert [hours_minutes_seconds(s) for s in (8, 75, 4000, 28_800)] == [
        "8 s",
        "1 min 15 s",
        "1 h 6 min",
        "8 h 0 min",
    ]
