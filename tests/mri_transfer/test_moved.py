"""A folder that is moved or removed while a command writes to it: one line, and no second folder in its place."""

from __future__ import annotations

import pkgutil
import shutil

import pytest

from tests.pretrain import small_network


@pytest.fixture
def small(monkeypatch):
    small_network.use(monkeypatch.setattr)


@pytest.fixture(scope="module")
def tumors(tmp_path_factory):
    from mri_transfer.datasets.synthetic.generate import write_tumors

    folder = tmp_path_factory.mktemp("heads") / "tumors"
    write_tumors(folder, per_class=14, seed=0)
    return folder


def command_of(name, volumes, store, tumors):
    network = ("--size", 32, "--backbone", "mobilenet")
    few = ("--folds", 2, "--seeds", 1, "--workers", 1, "--draws", 50)
    return {
        "slices": ("slices", volumes, "--size", 32, "--workers", 1),
        "audit": ("audit", tumors),
        "pretrain": ("pretrain", store, *network, "--steps", 4, "--batch", 4),
        "finetune": ("finetune", tumors, *network, "--init", "random", "--folds", 2, "--epochs", 0),
        "compare": ("compare", tumors, *network, "--arm", "random", "--arm", "pixels", *few),
    }[name]


# In the middle of each: a function that is called while the folder is held, and is not the last to write to it.
MIDDLE = {
    "slices": "mri_transfer.datasets.store.writer.StoreWriter.add",
    "audit": "mri_transfer.datasets.audit.audit.examine",
    "pretrain": "mri_transfer.pretrain.run.trainer.Trainer.step",
    "finetune": "mri_transfer.finetune.heads.features.extract_features",
    "compare": "mri_transfer.finetune.comparison.trials.TrialStore.save",
}


@pytest.mark.parametrize("what", ["moved", "removed"])
@pytest.mark.parametrize(
    "name",
    [
        name if name in ("slices", "pretrain") else pytest.param(name, marks=pytest.mark.slow)
        for name in MIDDLE
    ],
)
def test_one_line_and_nothing_in_its_place(
    small, name, what, small_volumes, small_store, tumors, cli, tmp_path, monkeypatch
):
    out, destination = tmp_path / "out", tmp_path / "elsewhere"
    path, _, attribute = MIDDLE[name].rpartition(".")
    owner = pkgutil.resolve_name(path)
    original, calls = getattr(owner, attribute), []

    def disturbed(*arguments, **options):
        calls.append(1)
        if len(calls) == 1:
            shutil.move(out, destination) if what == "moved" else shutil.rmtree(out)
        return original(*arguments, **options)

    monkeypatch.setattr(owner, attribute, disturbed)
    command = command_of(name, small_volumes, small_store, tumors)
    done = cli(*command, "--out", out)
    assert calls
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert f"mri-transfer {name}: {out}: was moved or removed" in last
    assert not out.exists()
    if what == "moved":  # what was done is in the folder, and goes on
        assert cli(*command, "--out", destination).returncode == 0
