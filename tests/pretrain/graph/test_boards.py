"""Exported graphs under the TensorFlows that old boards have: train, kill, resume, import, compare.

The interpreters are named by the environment: MRI_TRANSFER_TF26, MRI_TRANSFER_TF27 and MRI_TRANSFER_TF212 hold the
paths of a Python 3.6 with TensorFlow 2.6.2, a 3.7 with 2.7.0 and a 3.8 with 2.12.0. `.ci/run` makes them.
"""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from mri_transfer.checkpoints.encoders import load_encoder, read_card
from mri_transfer.checkpoints.state import load_state
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.pairs.positives import PairSampler
from mri_transfer.pretrain.run.schedule import warmup_cosine
from mri_transfer.pretrain.run.trainer import Trainer
from tests.pretrain import small_network
from tests.pretrain.graph.boards import BOARD, export_small, save_always

pytestmark = pytest.mark.old_tensorflow
# On the board there is a Python, and this program is not.
NOTHING_OF_OURS = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
# Runs the graph of a folder on the batches that its runner would draw, and prints every loss.
CURVE = """
import json, sys
from pathlib import Path
folder, store, steps = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
sys.path.insert(0, str(folder))
import runner
from training import rate_share
card = runner.read_card(folder)
graph = runner.Graph(runner.tensorflow_for(card), folder, card)
pairs = runner.Pairs(runner.Slices(store), card["positives"], card["max_mm"], card["batch"], card["seed"], True)
losses = []
for step in range(steps):
    share = step / steps
    losses.append(graph.step(pairs(step), card["peak_rate"] * rate_share(share, card["warmup"]), share))
print(json.dumps([losses, [int(i) for i in pairs.indices(7)[1]], sys.version_info[:2]]))
"""


def interpreter(name: str) -> Path:
    path = os.environ.get(f"MRI_TRANSFER_{name}")
    if not path or not Path(path).is_file():
        pytest.fail(f"set MRI_TRANSFER_{name} to the Python that has this TensorFlow, see .ci/run")
    return Path(path)


def old(name: str, *arguments: object) -> subprocess.CompletedProcess:
    """Run the old Python to its end."""
    return subprocess.run(
        [str(interpreter(name)), *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=NOTHING_OF_OURS,
        timeout=600,
    )


@pytest.fixture
def small(monkeypatch):
    """The network of three layers instead of a backbone; views are the real ones."""
    from mri_transfer.checkpoints import backbones, encoders

    for module in (backbones, encoders):
        monkeypatch.setattr(module, "build_encoder", small_network.build_small)


@pytest.mark.parametrize(
    ("name", "target", "python", "options"),
    [
        ("TF27", "tf2.7", [3, 7], {}),
        ("TF26", "tf2.6", [3, 6], {}),
        ("TF212", "tf2.12", [3, 8], {}),
        ("TF27", "tf2.7", [3, 7], {"method": "dino", "micro_batch": 2}),
        ("TF27", "tf2.7", [3, 7], {"method": "moco", "recompute": "always", "size": 48}),
        ("TF212", "tf2.7", [3, 8], {"method": "masked", "size": 64}),  # newer than what it was made for
    ],
)
def test_the_loss_follows_that_of_today(small, small_store, tmp_path, name, target, python, options):
    """From the same weights, with the same batches, views and rates."""
    steps = 10
    folder = export_small(tmp_path / "night", small_store, for_=target, **options)
    done = old(name, "-c", CURVE, folder, small_store, steps)
    assert done.returncode == 0, done.stderr
    losses, partners, version = json.loads(done.stdout)
    assert version == python
    size = options.get("size", 32)
    settings = {"batch": 4, "size": size, **options}
    config = PretrainConfig(store=small_store, out=tmp_path / "run", steps=steps, **settings)
    encoder = small_network.build_small(size=size)
    trainer = Trainer(config, "mobilenet", encoder, size=size, micro_batch=config.micro_batch)
    sampler = PairSampler(SliceStore.open(small_store), positives="adjacent", max_mm=6.0, batch=4, seed=0)
    expected = [
        trainer.step(sampler(step), 1e-3 * warmup_cosine(step / steps, 0.05), step / steps)
        for step in range(steps)
    ]
    np.testing.assert_allclose(losses, expected, rtol=2e-3)
    assert np.std(expected) > 100 * np.abs(np.subtract(losses, expected)).max()  # it did change meanwhile
    assert partners == sampler.indices(7)[1].tolist()


@pytest.fixture(scope="module")
def exported(small_store, command, tmp_path_factory):
    """A graph of a real backbone, by the command."""
    folder = tmp_path_factory.mktemp("graph") / "night"
    options = ("--batch", 4, "--size", 32, "--backbone", "mobilenet")
    done = command(
        *("export", "--format", "training-graph", "--for", "tf2.7", "--store", small_store, "--out", folder),
        *options,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_a_night_on_an_old_board(exported, small_store, command, tmp_path):
    """TensorFlow 2.7.0: trained, killed, resumed, imported, and `compare` accepts the encoder."""
    save_always(exported)
    steps, train = 40, (exported / "runner.py", small_store, "--save-minutes", 0.001)
    process = subprocess.Popen(
        [str(interpreter("TF27")), *map(str, train), "--steps", str(steps)],
        stderr=subprocess.PIPE,
        env=NOTHING_OF_OURS,
    )
    deadline = time.monotonic() + 500
    while _saved_step(exported) < 2:
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    saved = _saved_step(exported)
    assert 2 <= saved < steps
    done = old("TF27", *train, "--steps", steps)
    assert done.returncode == 0, done.stderr
    assert f"continuing at step {saved}," in done.stderr
    info = load_state(exported / "state")[1]
    assert (info["step"], info["finished"], info["machine"]["tensorflow"]) == (steps, True, "2.7.0")

    run = tmp_path / "mri"
    done = command("import-graph", exported, "--out", run)
    assert done.returncode == 0, done.stderr
    assert read_card(run)["provenance"]["versions"]["tensorflow"] == "2.7.0"
    weights = np.concatenate([np.ravel(weight) for weight in load_encoder(run).get_weights()])
    assert np.isfinite(weights).all()

    from mri_transfer.datasets.synthetic.generate import write_tumors

    write_tumors(tmp_path / "tumors", per_class=12, seed=0)
    arms = ("--arm", "random", "--arm", f"mri={run}")
    done = command(
        *("compare", tmp_path / "tumors", *arms, "--out", tmp_path / "report", "--backbone", "mobilenet"),
        *("--size", 32, "--seeds", 1, "--folds", 3, "--quiet"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert "mri" in json.dumps(report)


def _saved_step(folder: Path) -> int:
    state = load_state(folder / "state") if (folder / "state").is_dir() else None
    return state[1]["step"] if state else 0


def test_what_the_interrupted_training_ends_with_is_what_an_undisturbed_one_does(
    small, small_store, tmp_path
):
    """SIGTERM saves and ends it with code 130; the same command continues, and not a bit of the result differs."""
    folders = [export_small(tmp_path / "undisturbed", small_store), tmp_path / "stopped"]
    shutil.copytree(*folders)
    save_always(folders[1])
    train = ("--steps", 1000, "--save-minutes", 0.001)
    done = old("TF27", folders[0] / "runner.py", small_store, *train)
    assert done.returncode == 0, done.stderr
    process = subprocess.Popen(
        [str(interpreter("TF27")), str(folders[1] / "runner.py"), str(small_store), *map(str, train)],
        stderr=subprocess.PIPE,
        env=NOTHING_OF_OURS,
    )
    while not (folders[1] / "state" / "state-1.json").is_file():
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.01)
    process.terminate()
    output = process.communicate()[1].decode()
    assert process.returncode == 130, output
    assert "saving what is done" in output
    assert 0 < _saved_step(folders[1]) < 1000
    done = old("TF27", folders[1] / "runner.py", small_store, *train)
    assert done.returncode == 0, done.stderr
    (expected, _), (actual, _) = (load_state(folder / "state") for folder in folders)
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, err_msg=name)


def test_a_graph_for_a_newer_tensorflow_is_refused_by_an_older_one(small, small_store, tmp_path):
    folder = export_small(tmp_path / "night", small_store, for_="tf2.7")
    done = old("TF26", folder / "runner.py", small_store, "--hours", 1)
    assert done.returncode == 2
    assert (
        done.stderr.strip().splitlines()[-1].startswith("runner.py: this graph needs TensorFlow 2.7 or newer")
    )


def test_help_and_wrong_options_on_python_3_6(small_store):
    done = old("TF26", BOARD / "runner.py", "--help")
    assert done.returncode == 0
    assert "--hours" in done.stdout
    for wrong in ((small_store,), (small_store, "--hours", 0), (small_store, "--hours", 1, "--steps", 2)):
        assert old("TF26", BOARD / "runner.py", *wrong).returncode == 2
    done = old("TF26", BOARD / "runner.py", small_store, "--steps", 2)  # beside it lies no graph
    assert (done.returncode, "graph.json" in done.stderr) == (2, True)
