"""What a board brings back is checked before it becomes a run."""

from __future__ import annotations

import numpy as np
import pytest

from mri_transfer.errors import UserError
from mri_transfer.pretrain.graph.importing import MODEL, _check_state

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
