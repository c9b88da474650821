"""Methods as a user names them: a run ends with an encoder and says by what it was made."""

import pytest

from mri_transfer.checkpoints.encoders import read_card
from tests.pretrain import small_network

RUN = ("--steps", 2, "--batch", 4, "--size", 64, "--backbone", "mobilenet")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["moco", "dino", "vicreg", "masked", "hybrid"])
def test_a_run_by_any_method_leaves_an_encoder(method, small_store, cli, tmp_path, monkeypatch):
    if method != "masked":  # which depends on the network and its last map
        small_network.use(monkeypatch.setattr)
    done = cli("pretrain", small_store, "--out", tmp_path / "run", "--method", method, *RUN)
    assert done.returncode == 0, done.stderr
    provenance = read_card(tmp_path / "run")["provenance"]
    assert (provenance["method"], provenance["steps"]) == (method, 2)


def test_settings_of_another_method_are_refused_before_anything_is_written(small_store, refuses, tmp_path):
    out = tmp_path / "run"
    run = ("pretrain", small_store, "--out", out, *RUN)
    refuses(
        *run, "--method", "byol", "--temperature", 0.1, words=("--temperature", "byol", "simclr, moco, dino")
    )
    refuses(*run, "--method", "moco", "--decoupled", words=("--decoupled", "moco", "leave it out"))
    refuses(*run, "--method", "simclr", "--lesions", 0.5, words=("--lesions", "simclr", "hybrid"))
    refuses(*run, "--method", "moco", "--label-weight", 2, words=("--label-weight", "moco", "hybrid"))
    assert not out.exists()
