"""Distances against the covariance written out, the threshold, and the way to disk and back."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from mri_transfer.errors import UserError
from mri_transfer.finetune.prediction import out_of_distribution
from mri_transfer.finetune.prediction.out_of_distribution import (
    CARD,
    fit,
    load_in_distribution,
    save_in_distribution,
)
from mri_transfer.storage.arrays import read_arrays, write_arrays
from mri_transfer.storage.files import read_object, write_card


@pytest.fixture
def features():
    """Features (400, 20) in which 3 directions hold most of the variance."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(3, 20))
    return (rng.normal(size=(400, 3)) @ mixing * 3 + rng.normal(size=(400, 20)) * 0.5 + 7).astype(np.float32)


def test_distances_are_mahalanobis_with_the_modelled_covariance(features):
    model = fit(features, features[:50])
    rank = model.directions.shape[1]
    assert 1 <= rank < 19
    outside = np.eye(20) - model.directions @ model.directions.T
    covariance = model.directions @ np.diag(model.variances) @ model.directions.T + model.rest * outside
    standard = (features - features.mean(0)) / features.std(0)
    expected = np.einsum("ni,ij,nj->n", standard, np.linalg.inv(covariance), standard) / 20
    np.testing.assert_allclose(model.distances(features), expected, rtol=1e-3)
    # The model keeps the total variance of the features.
    assert np.trace(covariance) == pytest.approx(20, rel=0.01)
    assert model.distances(features).mean() == pytest.approx(1, abs=0.1)


def test_units_of_features_do_not_matter(features):
    scaled = features * np.logspace(-6, 3, 20, dtype=np.float32)
    first, second = fit(features, features[:50]), fit(scaled, scaled[:50])
    np.testing.assert_allclose(first.distances(features), second.distances(scaled), rtol=0.01)


def test_the_threshold_lets_the_stated_share_through(features):
    rng = np.random.default_rng(1)
    train, held_out = features[:200], features[200:]
    model = fit(train, held_out)
    beyond = (model.distances(held_out) > model.threshold).mean()
    assert beyond <= 1 - out_of_distribution.QUANTILE
    assert beyond > 0
    strange = rng.normal(7, 30, (50, 20))
    assert (model.distances(strange) > model.threshold).all()
    assert np.isinf(model.distances(np.full((1, 20), np.nan))).all()


def test_few_images_and_none_held_out():
    rng = np.random.default_rng(2)
    model = fit(rng.normal(size=(5, 30)), np.zeros((0, 30)))
    assert model.threshold == np.inf
    assert np.isfinite(model.distances(rng.normal(size=(3, 30)))).all()
    same = fit(np.ones((6, 4)), np.ones((2, 4)))
    assert np.isfinite(same.distances(np.ones((2, 4)))).all()


@pytest.fixture
def run(tmp_path):
    """A run folder as far as an encoder's card goes."""
    folder = tmp_path / "run" / "encoder"
    folder.mkdir(parents=True)
    card = {"format": 1, "backbone": "efficientnet_lite0", "size": 64, "weights_sha256": "ab" * 32}
    card |= {"weights": "encoder-abababab.npz", "provenance": {}}
    (folder / "encoder.json").write_text(json.dumps(card))
    return tmp_path / "run"


def test_to_disk_and_back(features, run):
    assert load_in_distribution(run) is None
    model = fit(features, features[:50])
    save_in_distribution(model, run)
    copy = load_in_distribution(run)
    assert np.array_equal(model.distances(features), copy.distances(features))
    assert (copy.threshold, copy.quantile, copy.held_out) == (model.threshold, model.quantile, 50)
    save_in_distribution(fit(features, features[:0]), run)
    assert load_in_distribution(run).threshold == np.inf


def test_damage_and_another_encoder_are_named(features, run):
    save_in_distribution(fit(features, features[:50]), run)
    arrays = run / "familiarity.npz"
    content = arrays.read_bytes()
    arrays.write_bytes(content[:-1] + b"x")
    with pytest.raises(UserError, match=r"familiarity\.npz: is damaged"):
        load_in_distribution(run)
    arrays.write_bytes(content)
    text = (run / CARD).read_text()
    (run / CARD).write_text(text.replace('"held_out": 50', '"held_out": 51'))
    with pytest.raises(UserError, match="changed after it was written"):
        load_in_distribution(run)
    (run / CARD).write_text(text)
    card = read_object(run / CARD)
    for change, words in (
        ({"format": 99}, "newer"),
        ({"rest": "x"}, "damaged"),
        ({"rest": -1.0}, "damaged .rest"),
        ({"threshold": -1.0, "quantile": 1.5}, "damaged .threshold, quantile"),
        ({"encoder_sha256": "cd" * 32}, "another encoder"),
    ):
        (run / CARD).write_text(json.dumps(card | change))
        with pytest.raises(UserError, match=words):
            load_in_distribution(run)


@pytest.mark.parametrize(("away", "least", "most"), [(0.0, 0.0, 0.08), (30.0, 0.99, 1.0)])
def test_a_class_left_out_is_marked_only_where_it_lies_elsewhere(away, least, most):
    """The measurement of benchmarks/left_out.py, on generated features: a disease is no matter of being marked."""
    script = Path(__file__).resolve().parents[3] / "benchmarks" / "left_out.py"
    rng = np.random.default_rng(0)
    labels, groups = np.repeat(np.arange(4), 100), np.repeat(np.arange(80), 5)
    features = rng.normal(size=(400, 12)) + 0.5 * rng.normal(size=(80, 12))[groups]
    features[labels == 2] += away
    shares = runpy.run_path(str(script))["left_out"](features.astype(np.float32), labels, groups, 2)
    assert least <= shares["marked"] <= most
    assert shares["known_marked"] < 0.1
    assert shares["answer"] != 2


@pytest.mark.parametrize(
    ("name", "value"),
    [("mean", np.nan), ("scale", 0), ("scale", np.inf), ("directions", np.inf), ("variances", 0)],
)
def test_arrays_of_impossible_numbers_with_a_fitting_checksum(features, run, name, value):
    save_in_distribution(fit(features, features[:50]), run)
    with pytest.raises(UserError, match=r"familiarity\.npz: is damaged \(mean has the wrong length"):
        load_in_distribution(run, features.shape[1] + 1)
    path, card = run / "familiarity.npz", read_object(run / CARD)
    arrays = read_arrays(path, card["arrays_sha256"], "")
    digest = write_arrays(path, arrays | {name: np.full_like(arrays[name], value)})
    write_card(run / CARD, card | {"arrays_sha256": digest})
    with pytest.raises(UserError, match=r"familiarity\.npz: is damaged"):
        load_in_distribution(run)


@pytest.mark.parametrize("name", ["mean", "directions", "variances"])
@pytest.mark.parametrize(
    "change", [lambda array: array[:-1], lambda array: array[None], lambda array: array > 0]
)
def test_arrays_of_another_shape_with_a_fitting_checksum(features, run, name, change):
    save_in_distribution(fit(features, features[:50]), run)
    path, card = run / "familiarity.npz", read_object(run / CARD)
    arrays = read_arrays(path, card["arrays_sha256"], "")
    digest = write_arrays(path, arrays | {name: change(arrays[name])})
    write_card(run / CARD, card | {"arrays_sha256": digest})
    with pytest.raises(UserError, match=r"familiarity\.npz: is damaged"):
        load_in_distribution(run)
