"""From a graph to a run and back, with this machine's TensorFlow; `test_boards.py` has the real old ones."""

import json
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from mri_transfer.checkpoints.encoders import load_encoder, read_card, save_encoder
from mri_transfer.checkpoints.state import load_state, save_state
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.export import ExportConfig
from mri_transfer.options import as_dict
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.graph.settings import settings_of
from mri_transfer.pretrain.pairs.positives import PairSampler
from mri_transfer.pretrain.run.schedule import warmup_cosine
from mri_transfer.pretrain.run.trainer import Trainer
from tests.pretrain import small_network
from tests.pretrain.graph.boards import export_small, load_script

STEPS = 6
EXPORT = ("export", "--format", "training-graph", "--for", "tf2.7")


@pytest.fixture(scope="module")
def patched():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal, "signal", lambda *_: None)  # the runner's would stay when it is over
        small_network.use(patch.setattr)
        yield


@pytest.fixture(scope="module")
def exported(small_store, patched, tmp_path_factory):
    return export_small(tmp_path_factory.mktemp("graph") / "night", small_store)


@pytest.fixture(scope="module")
def trained(exported, small_store):
    """The folder after the runner has trained it here, and what the runner said of every step."""
    runner = load_script("runner", exported)
    losses, step = [], runner.Graph.step

    def listening(self, *arguments):
        losses.append((step(self, *arguments), *arguments[1:]))
        return losses[-1][0]

    runner.Graph.step = listening
    assert runner.main([str(small_store), "--steps", str(STEPS)]) == 0
    return exported, losses


@pytest.fixture
def copied(trained, tmp_path):
    """A copy that a test may damage."""
    shutil.copytree(trained[0], tmp_path / "night")
    return tmp_path / "night"


def test_the_graph_trains_as_the_program_does(trained, small_store):
    """Weights, batches, views and rates are the same, so the losses are, and so is the encoder that comes of it."""
    folder, losses = trained
    settings = PretrainConfig(store=small_store, out=folder, steps=STEPS, batch=4, size=32)
    trainer = Trainer(settings, "mobilenet", small_network.build_small(size=32), size=32)
    sampler = PairSampler(SliceStore.open(small_store), positives="adjacent", max_mm=6.0, batch=4, seed=0)
    assert len(losses) == STEPS
    for step, (loss, rate, share) in enumerate(losses):
        assert (rate, share) == (1e-3 * warmup_cosine(step / STEPS, 0.05), step / STEPS)
        assert trainer.step(sampler(step), rate, share) == pytest.approx(loss, rel=2e-4)
    arrays, info = load_state(folder / "state")
    assert (info["step"], info["finished"], info["data"]["subjects"]) == (STEPS, True, 5)
    for name, array in trainer.arrays().items():
        np.testing.assert_allclose(arrays[name], array, rtol=1e-3, atol=1e-4, err_msg=name)


def test_what_was_trained_becomes_a_run(trained, cli, tmp_path):
    folder, losses = trained
    out = tmp_path / "run"
    done = cli("import-graph", folder, "--out", out)
    assert done.returncode == 0, done.stderr
    card, encoder = read_card(out), load_encoder(out)
    arrays, info = load_state(folder / "state")
    mapping = json.loads((folder / "graph.json").read_text())["encoder"]
    assert len(mapping) == len(encoder.weights)
    for name, key in mapping.items():
        layer, _, kind = name.partition("/")
        variable = next(v for v in encoder.get_layer(layer).weights if v.name == kind)
        np.testing.assert_array_equal(variable, arrays[key])
    provenance = card["provenance"]
    assert provenance["start"]["init"] == "random"
    assert (provenance["method"], provenance["steps"], provenance["config"]["seed"]) == ("simclr", STEPS, 0)
    assert provenance["data"]["fingerprint"] == info["fingerprint"]
    assert SliceStore.open(Path(provenance["config"]["store"])).fingerprint == info["fingerprint"]
    assert provenance["trained_on"]["tensorflow"] == provenance["versions"]["tensorflow"]
    assert provenance["metrics"]["last_loss"] == pytest.approx(losses[-1][0])
    assert provenance["seconds"] > 0
    # Again, for instance after more steps: the same run. From another graph: refused.
    assert cli("import-graph", folder, "--out", out).returncode == 0
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [
            "SHA256SUMS",
            "config.json",
            "encoder",
            "folder.json",
            "imported.json",
            "metrics.jsonl",
            "start.json",
            "summary.json",
        ]
    )


def test_the_folder_says_what_to_do(exported):
    text = (exported / "README.txt").read_text()
    assert f"python3 {exported.name}/runner.py STORE --hours 8" in text
    assert "TensorFlow 2.7" in text


def test_exporting_again_changes_nothing_and_other_settings_are_refused(trained, small_store, cli, refuses):
    folder, _ = trained
    before = (folder / "graph.json").stat().st_mtime_ns
    same = (
        *EXPORT,
        "--out",
        folder,
        "--store",
        small_store,
        "--batch",
        4,
        "--size",
        32,
        "--backbone",
        "mobilenet",
    )
    assert cli(*same).returncode == 0
    assert (folder / "graph.json").stat().st_mtime_ns == before
    refuses(*same, "--method", "byol", words=(folder, "other settings"))


def test_a_finished_training_is_left_alone_and_other_budgets_and_slices_are_refused(
    trained, copied, small_store, tmp_path, capfd, patched
):
    def ends(code, *arguments, words):
        assert load_script("runner", copied).main([str(argument) for argument in arguments]) == code
        output = capfd.readouterr().err
        assert all(str(word) in output for word in words), output

    ends(0, small_store, "--steps", STEPS, words=("already finished", "import-graph"))
    ends(2, small_store, "--steps", 99, words=(f"--steps {STEPS}",))
    ends(2, small_store, "--hours", 1, words=(f"--steps {STEPS}",))
    with load_script("runner", copied).lock(copied):
        ends(2, small_store, "--steps", STEPS, words=(copied, "another runner"))
    other = tmp_path / "other"
    shutil.copytree(small_store, other)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**manifest, "fingerprint": "0" * 64}))
    ends(2, other, "--steps", STEPS, words=(other, "other slices"))
    ends(2, tmp_path / "nowhere", "--steps", STEPS, words=("no such folder",))
    manifest["settings"]["size"] = 40
    (other / "manifest.json").write_text(json.dumps(manifest))
    ends(2, other, "--steps", STEPS, words=(other,))


def test_what_the_system_refuses_on_the_board_is_one_line(copied, small_store, capfd, monkeypatch):
    runner = load_script("runner", copied)

    def refused(options):
        raise PermissionError(13, "Permission denied", "shards/0.npy")

    monkeypatch.setattr(runner, "run", refused)
    assert runner.main([str(small_store), "--steps", "8"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "Permission denied: 'shards/0.npy'; fix that and run the same command again" in line


def test_a_graph_and_weights_that_disagree_are_refused(
    copied, small_store, tmp_path, capfd, refuses, patched
):
    """On the board and here; each line names the file."""
    arrays, info = load_state(copied / "state")

    def board_says(*words):
        assert load_script("runner", copied).main([str(small_store), "--steps", str(STEPS)]) == 2
        output = capfd.readouterr().err.strip()
        assert len(output.splitlines()) == 1, output
        assert all(word in output for word in words), output

    save_state(copied / "state", arrays, {**info, "graph": "0" * 64})
    board_says("state/", "another graph")
    refuses("import-graph", copied, "--out", tmp_path / "run", words=(copied, "state/ is of another graph"))
    fewer = {name: array for name, array in arrays.items() if "kernel" not in name}
    save_state(copied / "state", fewer, {**info, "finished": False})
    board_says("state", "not of this graph")
    refuses("import-graph", copied, "--out", tmp_path / "run", words=(copied, "missing"))
    save_state(copied / "state", arrays, {**info, "machine": {**info["machine"], "tensorflow": 2}})
    refuses("import-graph", copied, "--out", tmp_path / "run", words=("state/ is damaged (machine)",))
    save_state(copied / "state", arrays, info)
    card = json.loads((copied / "graph.json").read_text())
    for field, value in {"state": [True], "encoder": {"a": 1}, "files": {}, "slices": {}}.items():
        (copied / "graph.json").write_text(json.dumps(card | {field: value}))
        refuses("import-graph", copied, "--out", tmp_path / "run", words=("graph.json", f"({field})"))
    (copied / "graph.json").write_text(json.dumps(card))
    model = copied / "graph" / "saved_model.pb"
    model.write_bytes(model.read_bytes() + b"\0")
    board_says("saved_model.pb", "copy the whole folder")
    refuses("import-graph", copied, "--out", tmp_path / "run", words=("saved_model.pb", "graph.json"))
    assert not (tmp_path / "run").exists()
    (copied / "graph.json").write_text("{}")
    refuses("import-graph", copied, "--out", tmp_path / "run", words=("graph.json",))


def test_a_graph_that_was_not_trained_can_not_be_imported(exported, tmp_path, small_store, refuses):
    fresh = tmp_path / "fresh"
    shutil.copytree(exported, fresh, ignore=lambda *_: ["state"])
    refuses("import-graph", fresh, "--out", tmp_path / "run", words=("not trained yet", "runner.py STORE"))
    refuses("import-graph", small_store, "--out", tmp_path / "run", words=("slice store",))


def test_a_loss_that_is_not_finite_sends_it_back_once(copied, small_store, capfd, patched):
    """From the last save with half the rate; the second time it ends, saved."""
    shutil.rmtree(copied / "state")
    runner = load_script("runner", copied)
    step, rates = runner.Graph.step, []

    def broken(self, batch, rate, share):
        rates.append(rate)
        return float("nan") if len(rates) in (3, 6) else step(self, batch, rate, share)

    runner.Graph.step = broken
    assert runner.main([str(small_store), "--steps", "8"]) == 2
    output = capfd.readouterr().err
    assert "half the learning rate" in output
    assert "diverged" in output
    assert rates[4] == pytest.approx(rates[1] / 2)
    _, info = load_state(copied / "state")
    assert (info["step"], info["diverged"], info["rate_scale"]) == (0, [2, 2], 0.25)


def test_a_full_disk_is_survived_and_lost_slices_end_it_saved(
    copied, small_store, capfd, patched, monkeypatch
):
    shutil.rmtree(copied / "state")
    runner = load_script("runner", copied)
    training = sys.modules["training"]
    monkeypatch.setattr(training, "SAVING_SHARE", 1e9)
    save, saves, draw = training.states.save, [], runner.Pairs.__call__

    def full_once(*arguments):
        saves.append(arguments[-1]["step"])
        if len(saves) == 3:
            raise OSError(28, "No space left on device")
        save(*arguments)

    def lost(self, step):
        if step == 4:
            raise OSError(5, "Input/output error")
        return draw(self, step)

    monkeypatch.setattr(training.states, "save", full_once)
    monkeypatch.setattr(runner.Pairs, "__call__", lost)
    assert runner.main([str(small_store), "--steps", "8", "--save-minutes", "1e-9"]) == 2
    output = capfd.readouterr().err
    assert saves == [0, 1, 2, 3, 4, 4]
    assert "No space left on device" in output
    assert "training continues" in output
    assert "Input/output error" in output.splitlines()[-1]
    assert "4 steps are saved" in output.splitlines()[-1]
    assert load_state(copied / "state")[1]["step"] == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("export", "--format", "training-graph", "--size", 32), ("--for", "JetPack")),
        (EXPORT, ("--store", "--size")),
        ((*EXPORT, "--size", 32, "--positives", "sequence"), ("--positives",)),
        ((*EXPORT, "--size", 32, "--method", "hybrid"), ("--method hybrid", "simclr")),
        ((*EXPORT, "--size", 32, "--init", "nowhere"), ("nowhere",)),
        ((*EXPORT, "--size", 32, "--backbone", "resnet51"), ("--backbone",)),
        ((*EXPORT, "--size", 32, "--method", "byol", "--temperature", 0.1), ("--temperature",)),
        ((*EXPORT, "nowhere"), ("nowhere", "no such folder")),
        ((*EXPORT, "--store", "nowhere"), ("nowhere",)),
    ],
)
def test_bad_input(refuses, tmp_path, arguments, words):
    refuses(*arguments, "--out", tmp_path / "night", words=words)
    assert not (tmp_path / "night").exists()


def test_a_run_gives_its_settings_and_its_encoder(small_store, patched, tmp_path):
    """What is not said is as in the run; the training continues from its encoder."""
    run, store = tmp_path / "run", str(small_store)
    before = PretrainConfig(
        store=store, out=run, steps=1, method="byol", batch=6, strength=0.5, view=("jpeg=0",)
    )
    encoder = small_network.build_small(size=32)
    provenance = {"config": as_dict(before), "method": "byol"}
    save_encoder(encoder, run / "encoder", backbone="mobilenet", size=32, provenance=provenance)
    options = {"run": run, "format": "training-graph", "out": tmp_path / "night"}
    settings, slices = settings_of(ExportConfig(**options, batch=8))
    assert (settings.method, settings.batch, settings.strength, settings.size) == ("byol", 8, 0.5, 32)
    assert (settings.backbone, settings.init, settings.view) == ("mobilenet", str(run), ("jpeg=0",))
    assert slices["size"] == 48
    settings, _ = settings_of(ExportConfig(**options, init="imagenet", method="simclr", strength=0.0, seed=0))
    assert (settings.init, settings.method, settings.strength) == ("imagenet", "simclr", 0.0)
    assert settings.backbone == "mobilenet"
