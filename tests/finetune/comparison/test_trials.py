import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mri_transfer.finetune.comparison.trials import Trial, TrialStore, _content_digest, canonical, trial_key
from mri_transfer.finetune.config import Recipe
from mri_transfer.storage.arrays import save_npz

IDENTITY = {
    "mode": "finetune",
    "split": "grouped",
    "fraction": 0.25,
    "seed": 0,
    "fold": 1,
    "weights": "a" * 64,
    "data": "d",
    "size": 64,
    "recipe": dataclasses.asdict(Recipe()),
}


def trial(identity=IDENTITY) -> Trial:
    rng = np.random.default_rng(0)
    return Trial(
        identity,
        np.arange(5),
        rng.dirichlet(np.ones(4), 5).astype(np.float32),
        {"seconds": 1.5, "tried": {"0.1": 2}},
    )


def test_round_trip(tmp_path):
    store = TrialStore(tmp_path / "trials")
    assert store.load(IDENTITY) is None
    store.save(trial())
    result = store.load(IDENTITY)
    assert np.array_equal(result.probabilities, trial().probabilities)
    assert np.array_equal(result.test, trial().test)
    assert result.details == trial().details
    assert store.damaged == []


@pytest.mark.parametrize("name", list(IDENTITY))
def test_every_setting_has_its_own_trial(name):
    value = IDENTITY[name]
    other = (
        value + 1
        if isinstance(value, int | float)
        else {**value, "rate": 9.0}
        if isinstance(value, dict)
        else value + "x"
    )
    assert trial_key({**IDENTITY, name: other}) != trial_key(IDENTITY)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Recipe)])
def test_every_part_of_the_recipe_has_its_own_trial(field):
    value = getattr(Recipe(), field)
    if isinstance(value, bool):
        other = not value
    elif isinstance(value, str):
        other = f"no {value}"
    elif isinstance(value, tuple):
        other = (*value, 9.0)
    else:
        other = 7 if value is None else value + 1
    changed = dataclasses.replace(Recipe(), **{field: other})
    assert trial_key({**IDENTITY, "recipe": dataclasses.asdict(changed)}) != trial_key(IDENTITY)


def test_the_key_does_not_depend_on_the_order_of_settings():
    assert trial_key(dict(reversed(IDENTITY.items()))) == trial_key(IDENTITY)


@given(data=st.data())
def test_a_damaged_byte_or_a_cut_is_never_trusted(tmp_path_factory, data):
    store = TrialStore(tmp_path_factory.mktemp("t"))
    path = store.save(trial())
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:position]
    else:
        content[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content))
    result = store.load(IDENTITY)
    if result is None:
        assert store.damaged
        assert str(path) in store.damaged[0]
    else:  # a byte that means nothing, such as a date inside the archive
        assert np.array_equal(result.probabilities, trial().probabilities)
        assert result.details == trial().details


def test_a_file_of_other_settings_under_this_name_is_not_taken(tmp_path):
    store = TrialStore(tmp_path)
    other = {**IDENTITY, "size": 65}
    store.save(trial(other)).rename(store.path(IDENTITY))
    assert store.load(IDENTITY) is None
    assert "other settings" in store.damaged[0]


@pytest.mark.parametrize(
    "change",
    [
        {"test": np.arange(4)},
        {"test": np.array(["a"] * 5)},
        {"probabilities": np.zeros(5, np.float32)},
        {"probabilities": np.zeros((5, 4), int)},
        {"probabilities": np.zeros((5, 3), np.float32)},
        {"probabilities": np.full((5, 4), np.nan, np.float32)},
        {"probabilities": np.full((5, 4), -1, np.float32)},
        {"probabilities": np.full((5, 4), 100, np.float32)},
        {"details": []},
        {"details": {"seconds": "long"}},
        {"details": {"calibrated": {"ece": None}}},
        {"details": {"losses": 3}},
    ],
)
def test_a_trial_of_other_values_with_a_fitting_checksum_is_done_again(tmp_path, change):
    store = TrialStore(tmp_path)
    store.save(trial())
    values = dataclasses.asdict(trial()) | change
    texts = canonical(IDENTITY), json.dumps(values["details"])
    arrays = {name: values[name] for name in ("test", "probabilities")}
    digest = _content_digest(*arrays.values(), texts)
    arrays |= {name: np.array(text) for name, text in zip(("identity", "details"), texts, strict=True)}
    save_npz(store.path(IDENTITY), arrays | {"sha256": np.array(digest)})
    assert store.load(IDENTITY, classes=4) is None
    assert len(store.damaged) == 1


def test_nothing_pickled_is_loaded(tmp_path):
    store = TrialStore(tmp_path)
    np.savez(store.path(IDENTITY), test=np.array([print], dtype=object), probabilities=np.zeros(1))
    assert store.load(IDENTITY) is None
