"""What a board brings back is checked before it becomes a run."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mri_transfer.errors import UserError
from mri_transfer.pretrain.graph.importing import MODEL, _card, _check_state
from mri_transfer.storage.files import sha256

CARD = {
    "files": {MODEL: "a"},
    "state": [{"name": "model/0000/kernel", "shape": [2]}],
    "encoder": {"conv/kernel": "model/0000/kernel"},
}
INFO = {
    **{"graph": "a", "fingerprint": "b", "budget": {"steps": 2}, "diverged": [], "finished": True, "step": 2},
    **{"seconds": 1.0, "share": 1.0, "rank": 2.5, "first_loss": 3.0, "last_loss": None},
    "data": {"store": "s", "slices": 9, "subjects": 3},
    "machine": {"board": None, "machine": "m", "python": "3.6", "tensorflow": "2.7", "numpy": "1.19"},
}
ARRAYS = {"model/0000/kernel": np.ones(2, np.float32)}


def test_a_whole_state(tmp_path):
    _check_state(tmp_path, CARD, ARRAYS, INFO)


@pytest.mark.parametrize(
    ("card", "arrays", "info", "words"),
    [
        ({}, {}, {"last_loss": "low"}, r"state/ is damaged \(last_loss\)"),
        ({}, {}, {"budget": {"steps": "2"}}, r"state/ is damaged \(budget\)"),
        ({}, {}, {"budget": {"init": 2}}, r"state/ is damaged \(budget\)"),
        ({"encoder": {"conv/kernel": "elsewhere"}}, {}, {}, r"not in state/ \(elsewhere\)"),
        ({}, {"model/0000/kernel": np.full(2, np.nan)}, {}, r"not finite \(model/0000/kernel\)"),
    ],
)
def test_values_that_no_board_keeps(tmp_path, card, arrays, info, words):
    with pytest.raises(UserError, match=rf"{words}; copy the whole folder from the board again"):
        _check_state(tmp_path, CARD | card, ARRAYS | arrays, INFO | info)


def test_a_loss_that_is_missing(tmp_path):
    info = {key: value for key, value in INFO.items() if key != "first_loss"}
    with pytest.raises(UserError, match=r"state/ is damaged \(first_loss\)"):
        _check_state(tmp_path, CARD, ARRAYS, info)


def graph(folder):
    """A folder with the card of a graph that is whole; returns the card."""
    (folder / "graph").mkdir()
    (folder / MODEL).write_bytes(b"graph")
    return {
        **{"format": 1, "backbone": "mobilenet", "method": "simclr", "size": 32, "batch": 4, "seed": 0},
        **{
            "made_by": "mri-transfer",
            "state": CARD["state"],
            "encoder": CARD["encoder"],
            "positives": "same",
        },
        "files": {MODEL: sha256(folder / MODEL)},
        **{"start": {"init": "random"}, "config": {"init": "random"}, "versions": {}},
        "slices": {"store": None, "fingerprint": None},
    }


def test_a_whole_card(tmp_path):
    card = graph(tmp_path)
    (tmp_path / "graph.json").write_text(json.dumps(card))
    assert _card(tmp_path) == card


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("size", 0), ("size", -32), ("size", 99_999), ("size", 10**200), ("batch", 0), ("seed", -1)),
        *(("start", {"init": []}), ("config", {"init": 3})),
    ],
)
def test_values_that_no_export_has(tmp_path, name, value):
    (tmp_path / "graph.json").write_text(json.dumps(graph(tmp_path) | {name: value}))
    with pytest.raises(
        UserError, match=rf"graph\.json: is not the card .* \(({name}|init).*\); copy the whole"
    ):
        _card(tmp_path)
