"""The scripts that run on a board, on this machine's Python: they are plain, and do what the program itself does."""

import ast
import hashlib
import json
import os
import pty
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mri_transfer.checkpoints.state import load_state, save_state
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.pretrain.health.measures import effective_rank
from mri_transfer.pretrain.pairs.positives import PairSampler, mixture
from mri_transfer.pretrain.run.schedule import warmup_cosine
from tests.pretrain.graph.boards import BOARD, load_script

slices, states, training, runner = (load_script(name) for name in ("slices", "states", "training", "runner"))
Problem = runner.Problem  # `slices` and `states` imported by the runner are modules of their own
ARRAYS = {"model/0000/kernel": np.arange(6.0, dtype="float32"), "model/0001/seed": np.array([1, 2], "uint32")}


@pytest.mark.parametrize("script", ["runner", "slices", "states", "training"])
def test_scripts_are_python_3_6_and_need_numpy_and_tensorflow_alone(script):
    tree = ast.parse((BOARD / f"{script}.py").read_text(encoding="utf-8"), feature_version=(3, 6))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    assert "__future__" not in imported
    own = {"numpy", "tensorflow", "slices", "states", "training"}
    assert {name.partition(".")[0] for name in imported} - own <= sys.stdlib_module_names


@pytest.mark.parametrize("positives", ["adjacent", "same", "adjacent:0.7,same:0.3"])
def test_a_step_sees_the_pairs_that_the_program_itself_would_show_it(small_store, positives):
    ours = PairSampler(SliceStore.open(small_store), positives=positives, max_mm=6.0, batch=9, seed=3)
    theirs = slices.Pairs(slices.Slices(small_store), mixture(positives), 6.0, 9, 3, negatives=True)
    batches = theirs.read_ahead(0)
    for step in range(20):
        expected = ours(step)
        for name, array in zip(("a", "b", "subject"), next(batches), strict=True):
            np.testing.assert_array_equal(array, expected[name])
            assert array.dtype == expected[name].dtype
    batches.close()
    # They are pairs of different slices where they should be.
    a, b = theirs.indices(0)
    assert (a == b).all() if positives == "same" else (a != b).any()


@given(st.floats(0, 1.2), st.floats(0.001, 0.9))
def test_the_rate_follows_the_same_schedule(progress, warmup):
    assert training.rate_share(progress, warmup) == warmup_cosine(progress, warmup)


def test_the_rank_of_features_is_that_of_the_health_report():
    features = np.random.default_rng(0).normal(size=(20, 7)) * np.arange(7)
    assert runner.effective_rank(features) == pytest.approx(effective_rank(features), rel=1e-6)
    assert runner.effective_rank(np.ones((20, 7))) == pytest.approx(1)


@pytest.mark.parametrize("seconds", [100.0, 7.3])
def test_a_budget_in_time_is_used_up_at_its_end_whatever_the_speed(monkeypatch, seconds):
    clock = [training.STARTED]
    monkeypatch.setattr(training.time, "monotonic", lambda: clock[0])
    budget = training.Budget(None, seconds, 0.0, 0.0)
    budget.finishing = 0.5
    rng, step, shares = np.random.default_rng(0), 0, []
    while not budget.is_over(step):
        shares.append(budget.progress(step))
        duration = rng.uniform(0.1, 0.4) * (1 + step / 100)  # the machine slows down
        clock[0] += duration
        budget.note_step(duration)
        step += 1
    assert shares == sorted(shares)
    assert 0.9 < shares[-1] <= 1
    assert budget.elapsed() + 0.5 == pytest.approx(seconds, abs=0.5)
    # Continued from the middle, it goes on from there.
    clock[0] = training.STARTED
    assert training.Budget(None, seconds, 3.0, 0.25).progress(0) == 0.25
    assert training.Budget(8, None, 3.0, 0.0).progress(2) == 0.25


@pytest.mark.parametrize(
    "damage",
    [
        *(
            "no manifest",
            "short shard",
            "missing shard",
            "header",
            "table",
            "short rows",
            "manifest",
            "no pixels",
        ),
        "nowhere",
    ],
)
def test_a_damaged_store_is_named(small_store, tmp_path, damage):
    store = tmp_path / "store"
    shutil.copytree(small_store, store)
    shard = store / "shards" / "00000.npy"
    if damage == "no manifest":
        (store / "manifest.json").unlink()
    elif damage == "short shard":
        os.truncate(shard, shard.stat().st_size - 1)
    elif damage == "missing shard":
        shard.unlink()
    elif damage == "table":
        (store / "slices.csv").write_bytes((store / "slices.csv").read_bytes().replace(b"axial", b"axiaL", 1))
    elif damage == "header":
        shard.write_bytes(shard.read_bytes().replace(b"'shape'", b"'shap('", 1))
    elif damage == "short rows":
        table, manifest = store / "slices.csv", json.loads((store / "manifest.json").read_text())
        table.write_text(table.read_text() + "\nx\n")
        manifest["table"]["sha256"] = hashlib.sha256(table.read_bytes()).hexdigest()
        (store / "manifest.json").write_text(json.dumps(manifest))
    elif damage == "no pixels":
        manifest = json.loads((store / "manifest.json").read_text())
        (store / "manifest.json").write_text(json.dumps(manifest | {"settings": {"size": 0}}))
    elif damage == "manifest":
        (store / "manifest.json").write_text(json.dumps({"format": 1}))
    else:
        store = tmp_path / "nowhere"
    with pytest.raises(slices.Problem, match=str(tmp_path)) as error:
        slices.Slices(store)
    assert "\n" not in str(error.value)


def test_contrast_needs_two_subjects(small_store):
    store = slices.Slices(small_store)
    store.subject[:] = "only"
    with pytest.raises(slices.Problem, match="one subject"):
        slices.Pairs(store, {"same": 1.0}, 6.0, 4, 0, negatives=True)
    assert slices.Pairs(store, {"same": 1.0}, 6.0, 4, 0, negatives=False)(0)[0].shape[0] == 4


def test_states_are_those_of_the_program(tmp_path):
    info = {"step": 3, "seconds": 1.25, "share": 0.1, "where": "Zürich", "bytes": "\udcff"}
    states.save(tmp_path / "theirs", ARRAYS, info)
    save_state(tmp_path / "ours", ARRAYS, info)
    for load in (load_state, lambda folder: states.load(folder, print)):
        for folder in ("ours", "theirs"):
            arrays, content = load(tmp_path / folder)
            assert content == info
            assert arrays.keys() == ARRAYS.keys()
            for name, array in ARRAYS.items():
                np.testing.assert_array_equal(arrays[name], array)
                assert arrays[name].dtype == array.dtype


def test_two_generations_are_kept_and_a_damaged_one_is_passed_over(tmp_path):
    folder, lines = tmp_path / "state", []
    assert states.load(folder, lines.append) is None
    for step in range(4):
        states.save(folder, ARRAYS, {"step": step})
        (folder / "state-9.npz.part").write_bytes(b"left by a killed process")
    states.save(folder, ARRAYS, {"step": 4})
    assert sorted(path.name for path in folder.iterdir()) == [
        "state-3.json",
        "state-3.npz",
        "state-4.json",
        "state-4.npz",
    ]
    content = bytearray((folder / "state-4.npz").read_bytes())
    content[200] ^= 1
    (folder / "state-4.npz").write_bytes(content)
    assert states.load(folder, lines.append)[1] == {"step": 3}
    assert "state-4.npz" in lines[0]
    (folder / "state-3.json").write_text("{")
    with pytest.raises(states.Problem, match=r"state-4\.npz.*no older state"):
        states.load(folder, lines.append)


def test_arrays_that_are_none_with_a_fitting_checksum(tmp_path):
    states.save(tmp_path, ARRAYS, {"step": 0})
    (tmp_path / "state-0.npz").write_bytes(b"no arrays")
    path = tmp_path / "state-0.json"
    digest = hashlib.sha256(b"no arrays").hexdigest()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sha256": digest}))
    with pytest.raises(states.Problem, match=r"state-0\.npz.*no older state"):
        states.load(tmp_path, print)


def test_a_full_disk_leaves_what_was_saved(tmp_path):
    """A process whose files may not grow past a few bytes, as on a full disk."""
    states.save(tmp_path, ARRAYS, {"step": 1})
    code = f"""
import resource, signal, sys
sys.path.insert(0, {str(BOARD)!r})
import numpy, states
from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    states.save(Path({str(tmp_path)!r}), {{"kernel": numpy.zeros(100)}}, {{"step": 2}})
except OSError as error:
    print("refused:", error.errno == 27)
"""
    done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("refused: True\n", "")
    assert states.load(tmp_path, print)[1] == {"step": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state-0.json", "state-0.npz"]


def test_a_closed_terminal_ends_nothing_and_what_is_said_goes_on_in_a_file(tmp_path):
    code = f"""
import sys, time
sys.path.insert(0, {str(BOARD)!r})
import states, training
from pathlib import Path
training.Interrupts(Path({str(tmp_path / "output.log")!r}))
states.say("ready")
while sys.stderr.isatty():
    time.sleep(0.01)
time.sleep(0.1)
states.say("went on")
"""
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", code])
    output = b""
    while b"ready" not in output:
        output += os.read(terminal, 1000)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (tmp_path / "output.log").read_text() == "went on\n"


def test_lines_of_undone_steps_and_torn_ones_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = states.Lines(path, 0)
    for step in (1, 2, 3):
        lines.add({"step": step, "loss": 0.5})
    with path.open("ab") as file:
        file.write(b'{"step": 4, "lo')
    states.Lines(path, 2).add({"step": 3, "loss": 0.25})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1, "loss": 0.5},
        {"step": 2, "loss": 0.5},
        {"step": 3, "loss": 0.25},
    ]


@pytest.mark.parametrize("version", ["2.6.2", "1.15.0", "2.4.1+nv21.3"])
def test_an_older_tensorflow_is_told_which_one_is_needed(monkeypatch, version):
    import types

    monkeypatch.setitem(sys.modules, "tensorflow", types.SimpleNamespace(__version__=version))
    with pytest.raises(Problem, match=rf"needs TensorFlow 2\.7 or newer, and this is {version[:3]}"):
        runner.tensorflow_for({"tensorflow": "2.7"})


def test_no_tensorflow_at_all(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(Problem, match=r"TensorFlow 2\.12 or newer is needed"):
        runner.tensorflow_for({"tensorflow": "2.12"})


def card_of(folder):
    """graph.json of a graph whose files are whole, as an export writes it."""
    (folder / "graph").mkdir()
    (folder / training.GRAPH).write_bytes(b"graph")
    card = {
        **{"format": 1, "tensorflow": "2.7", "method": "simclr", "backbone": "mobilenet", "size": 32},
        **{"slice_size": 64, "batch": 4, "seed": 0, "positives": {"adjacent": 1.0}, "max_mm": 6.0},
        **{"negatives": True, "peak_rate": 1e-3, "warmup": 0.05, "chance": None},
        "files": {training.GRAPH: states.sha256(folder / training.GRAPH)},
        "state": [{"name": "model/0000/kernel", "shape": [6], "dtype": "float32"}],
    }
    (folder / "graph.json").write_text(json.dumps(card))
    return card


def test_every_entry_of_a_card_is_needed_and_of_its_kind(tmp_path):
    card = card_of(tmp_path)
    assert runner.read_card(tmp_path) == card
    for name in set(card) - {"format"}:
        for damaged in ({key: card[key] for key in card if key != name}, {**card, name: [[3]]}):
            (tmp_path / "graph.json").write_text(json.dumps(damaged))
            with pytest.raises(Problem, match=rf"graph\.json: is damaged \({name}\); copy the whole folder"):
                runner.read_card(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("files", {}), ("tensorflow", "new"), ("slice_size", 0), ("batch", 0), ("batch", 10**9)),
        *(("batch", True), ("seed", -1), ("positives", {}), ("positives", {"adjacent": "1"})),
        *(("positives", {"sequence": 1.0}), ("max_mm", -1), ("peak_rate", 0), ("warmup", 1)),
        *(("state", [3]), ("state", [{"name": "a", "shape": [6]}])),
    ],
)
def test_entries_that_no_export_writes(tmp_path, name, value):
    (tmp_path / "graph.json").write_text(json.dumps({**card_of(tmp_path), name: value}))
    with pytest.raises(Problem, match=rf"graph\.json: is damaged \({name}\); copy the whole folder"):
        runner.read_card(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[" * 99_999, '{"a": NaN}', '{"a": 1e999}', '{"a": %s}' % ("1" * 400), "\xff"]
)
def test_what_is_no_json(tmp_path, text):
    (tmp_path / "graph.json").write_text(text, encoding="latin-1")
    with pytest.raises(Problem, match=r"graph\.json: not readable as JSON .*; copy it again"):
        runner.read_card(tmp_path)


def test_a_file_whose_name_none_can_have(tmp_path):
    card = card_of(tmp_path)
    (tmp_path / "graph.json").write_text(json.dumps({**card, "files": {**card["files"], "a\0": "b"}}))
    with pytest.raises(Problem, match="missing; copy the whole folder"):
        runner.read_card(tmp_path)


INFO = {
    **{"step": 3, "seconds": 1.5, "share": 0.5, "first_loss": 2.5, "last_loss": None, "rate_scale": 1.0},
    **{"diverged": [], "finished": False, "graph": "a", "budget": {"steps": 5}, "fingerprint": "b"},
}


def check(info):
    import types

    store = types.SimpleNamespace(folder="store", fingerprint="b")
    options = types.SimpleNamespace(steps=5, seconds=None)
    runner.check_same_training(info, {"files": {training.GRAPH: "a"}}, options, store)


def test_every_entry_of_a_state_is_needed_and_of_its_kind():
    check(INFO)
    for name in INFO:
        for damaged in ({key: INFO[key] for key in INFO if key != name}, {**INFO, name: {"a": []}}):
            with pytest.raises(Problem, match=rf"state/: is damaged \({name}\); .* remove it to start over"):
                check(damaged)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("step", -1), ("seconds", -0.5), ("share", 2), ("rate_scale", 0), ("budget", {})),
        *(("budget", {"steps": "5"}), ("budget", {"steps": 5, "hours": 1})),
    ],
)
def test_entries_that_no_runner_saves(name, value):
    with pytest.raises(Problem, match=rf"state/: is damaged \({name}\); .* remove it to start over"):
        check({**INFO, name: value})


def test_text_for_weights():
    import types

    graph = object.__new__(runner.Graph)
    graph.folder = BOARD
    graph.variables = {"a": types.SimpleNamespace(shape=types.SimpleNamespace(as_list=lambda: [2]))}
    with pytest.raises(Problem, match=r"weights are not of this graph \(a differs\)"):
        graph.assign({"a": np.array(["b", "c"])})


def test_a_graph_for_other_batches():
    import types

    def refuse(*inputs):
        raise TypeError("Binding inputs to tf.function failed")

    graph = object.__new__(runner.Graph)
    graph.tf = types.SimpleNamespace(
        constant=lambda value, kind=None: value, errors=types.SimpleNamespace(ResourceExhaustedError=OSError)
    )
    graph.folder, graph.module = BOARD, types.SimpleNamespace(train_step=refuse)
    images = np.zeros((3, 8, 8), np.uint8)
    with pytest.raises(Problem, match=r"does not take 3 pairs of 8 px .*; copy the whole folder again"):
        graph.step((images, images, np.arange(3)), 0.1, 0.5)
