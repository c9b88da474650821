"""The run as a whole, through the command line: budgets, resuming, bad input."""

import json
import signal
import time

import numpy as np
import pytest

from mri_transfer.checkpoints.encoders import read_card
from mri_transfer.pretrain.run.metrics_file import Metrics
from mri_transfer.storage.json_lines import line_of
from tests.forked import Forked
from tests.pretrain import small_network
from tests.pretrain.finished_runs import same

SMALL = ("--batch", 4, "--size", 32, "--backbone", "mobilenet")
# Saves at every occasion however little is trained between, and steps take their time: so a few hold many saves.
SLOWLY = """
import time
from mri_transfer.pretrain.run import saving
from mri_transfer.pretrain.run.trainer import Trainer
saving.SHARE, step = 1e9, Trainer.step
def slow(*given):
    time.sleep(0.2)
    return step(*given)
Trainer.step = slow
"""


def start(*arguments, first=""):
    """The command with the small network."""
    return Forked("pretrain", *arguments, first=first + small_network.USE)


def finish(*arguments):
    process = start(*arguments)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    return output


@pytest.fixture
def small(monkeypatch):
    """The small network for this process."""
    small_network.use(monkeypatch.setattr)


@pytest.fixture(scope="module")
def undisturbed(small_store, tmp_path_factory):
    """A finished run of 12 steps."""
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    finish(small_store, "--out", out, "--steps", 12, *SMALL)
    return out


def test_a_run_leaves_an_encoder_that_knows_where_it_comes_from(undisturbed):
    card = read_card(undisturbed)
    provenance = card["provenance"]
    assert provenance["method"] == "simclr"
    assert provenance["steps"] == 12
    assert provenance["data"]["subjects"] == 5
    assert provenance["config"]["batch"] == 4
    assert provenance["pairs"]["drawn"] == {"adjacent": 1.0}
    assert provenance["seconds"] > 0
    assert "keras" in provenance["versions"]
    summary = json.loads((undisturbed / "summary.json").read_text())
    assert summary["views"] == 12 * 8
    assert summary["health"]["state"] == "too early to tell"  # of 12 steps nothing can be said
    assert "Too early to tell" in (undisturbed / "run.html").read_text(encoding="utf-8")
    assert list((undisturbed / "tensorboard").iterdir())
    lines = [json.loads(line) for line in (undisturbed / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 12
    assert all(np.isfinite(line["loss"]) for line in lines)
    assert not (undisturbed / "state").exists()


@pytest.mark.slow
def test_the_same_command_gives_the_same_bits(small_store, start_command, cli, tmp_path):
    """In another process, with a real network and real views."""
    first, second = (
        ("pretrain", small_store, "--out", tmp_path / name, "--steps", 12, *SMALL) for name in "ab"
    )
    process = start_command(*first)
    assert process.wait() == 0, process.communicate()[0]
    assert cli(*second).returncode == 0
    assert same(tmp_path / "a", tmp_path / "b")


def saved_step(out):
    return max((int(path.stem.split("-")[1]) for path in (out / "state").glob("state-*.json")), default=0)


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_killed_and_continued_equals_undisturbed_to_the_last_bit(undisturbed, small_store, small, tmp_path):
    out = tmp_path / "killed"
    arguments = (small_store, "--out", out, "--steps", 12, *SMALL, "--save-minutes", 0.0001)
    process = start(*arguments, first=SLOWLY)
    wait_for(lambda: saved_step(out) >= 1, process)  # neither before the first step nor after the last
    process.kill()
    process.communicate()
    assert not (out / "summary.json").exists()
    assert "continuing" in finish(*arguments)
    assert same(undisturbed, out)
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert steps[-1] == 12


@pytest.mark.slow
def test_sigterm_saves_and_the_run_goes_on(undisturbed, small_store, small, tmp_path):
    out = tmp_path / "terminated"
    arguments = (small_store, "--out", out, "--steps", 12, *SMALL)
    process = start(*arguments)
    wait_for((out / "metrics.jsonl").exists, process)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=120)[0]
    if process.returncode != 0:  # on a fast machine it may have finished first
        assert process.returncode == 130, output
        assert "run the same command again" in output
        finish(*arguments)
    assert same(undisturbed, out)


@pytest.mark.slow
@pytest.mark.timed
def test_a_time_budget_is_kept(small_store, command, tmp_path):
    started = time.monotonic()
    done = command("pretrain", small_store, "--out", tmp_path / "run", "--minutes", 0.75, *SMALL)
    assert done.returncode == 0, done.stderr
    seconds = json.loads((tmp_path / "run" / "summary.json").read_text())["training_seconds"]
    assert seconds == pytest.approx(45, rel=0.03)
    assert time.monotonic() - started < 45 * 1.03 + 15  # Python and TensorFlow start before the clock does


def test_a_finished_run_is_left_alone(undisturbed, small_store, small, cli):
    before = (undisturbed / "encoder" / "encoder.json").read_bytes()
    done = cli("pretrain", small_store, "--out", undisturbed, "--steps", 12, *SMALL)
    assert done.returncode == 0
    assert "already finished" in done.stderr
    assert (undisturbed / "encoder" / "encoder.json").read_bytes() == before


def test_bad_input_gets_one_line(undisturbed, small_store, refuses, tmp_path):
    """Beside what `tests/mri_transfer/test_mistakes.py` has."""
    full, out, steps = tmp_path / "full", tmp_path / "r", ("--steps", 12)
    full.mkdir()
    (full / "thesis.txt").write_text("years of work")
    refuses("pretrain", undisturbed, "--out", out, *steps, words=("pretraining run", "slice store"))
    refuses("pretrain", small_store, "--out", full, *steps, words=(full, "something else"))
    assert (full / "thesis.txt").read_text() == "years of work"
    start = ("--init", undisturbed, "--backbone", "mobilenet_v2")
    words = ("is an encoder of mobilenet", "--backbone")
    refuses("pretrain", small_store, "--out", out, *steps, *start, words=words)
    other = (*steps, *SMALL, "--seed", 1)
    refuses("pretrain", small_store, "--out", undisturbed, *other, words=("--seed was 0", "another --out"))
    assert not out.exists()


def test_a_diverged_run_says_so(small_store, small, cli, tmp_path):
    done = cli(
        "pretrain", small_store, "--out", tmp_path / "r", "--steps", 40, *SMALL, "--learning-rate", 1e30
    )
    last_line = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2
    assert "diverged" in last_line
    assert "--learning-rate" in last_line


@pytest.mark.slow
def test_a_full_disk_loses_nothing(small_store, small_disk, small, undisturbed):
    """On a real file system that is full: the line says so, and with room again the run continues."""
    disk = small_disk("12m")
    filler = disk / "filler"
    filler.write_bytes(bytes((12 << 20) - 400_000))  # the state alone takes a megabyte
    arguments = (small_store, "--out", disk / "run", "--steps", 12, *SMALL)
    process = start(*arguments)
    output = process.communicate()[0]
    assert process.returncode == 2
    assert "no space left" in output.strip().splitlines()[-1]
    filler.unlink()
    finish(*arguments)
    assert same(undisturbed, disk / "run")


def test_lines_that_a_power_cut_tore_or_undid_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 5}\n{"step": 9}\n{"ste')
    metrics = Metrics(path, 5)
    assert path.read_bytes() == line_of({"step": 1}) + line_of({"step": 5})
    assert metrics.last == {"step": 5}


def test_a_damaged_line_of_figures_is_named_and_left_out(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    metrics = Metrics(path, 0)
    for step in (1, 2, 3):
        metrics.add({"step": step, "loss": 0.25})
    path.write_bytes(path.read_bytes().replace(b'2, "loss": 0.25', b'2, "loss": 0.27'))
    assert [line["step"] for line in Metrics(path, 3).lines] == [1, 3]
    assert "metrics.jsonl: line 2 is damaged and left out" in capsys.readouterr().err
    assert path.read_bytes() == b"".join(line_of({"step": step, "loss": 0.25}) for step in (1, 3))


def test_a_line_of_other_values_is_named_and_left_out(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    faults = {"step": "2", "loss": "low", "temperatures_c": [50], "power_w": "9 W", "throttle_events": []}
    path.write_bytes(b"".join(line_of({"step": 1, name: value}) for name, value in faults.items()))
    assert Metrics(path, 3).lines == []
    output = capsys.readouterr().err
    assert all(f"is damaged ({name}) and left out" in output for name in faults)


@pytest.mark.slow
def test_smaller_views_come_first_and_a_resumed_run_goes_through_the_same(small_store, small, cli, tmp_path):
    """Killed before and after the change of size."""
    grow = ("--steps", 8, "--batch", 4, "--backbone", "mobilenet", "--first-size", 32, "--size", 48)
    done = cli("pretrain", small_store, "--out", tmp_path / "whole", *grow)
    assert done.returncode == 0, done.stderr
    assert "step 4: views of 48 px" in done.stderr
    assert read_card(tmp_path / "whole")["size"] == 48
    parted = cli("pretrain", small_store, "--out", tmp_path / "first", *grow, "--first-share", 1)
    assert parted.returncode == 0
    assert not same(tmp_path / "whole", tmp_path / "first")
    out = tmp_path / "killed"
    arguments = (small_store, "--out", out, *grow, "--save-minutes", 0.0001)
    for step in (2, 5):
        process = start(*arguments, first=SLOWLY)
        wait_for(lambda step=step: saved_step(out) >= step, process)
        process.kill()
        process.communicate()
    finish(*arguments)
    assert same(tmp_path / "whole", out)


@pytest.mark.slow
def test_one_subject_is_enough_where_nothing_is_contrasted(small_volumes, small, cli, tmp_path):
    store = tmp_path / "store"
    assert cli("slices", small_volumes / "sub-00_T1w.nii.gz", "--out", store, "--size", 48).returncode == 0
    done = cli("pretrain", store, "--out", tmp_path / "simclr", "--steps", 2, *SMALL)
    assert done.returncode == 2
    assert "--method without negatives" in done.stderr
    done = cli("pretrain", store, "--out", tmp_path / "byol", "--steps", 2, "--method", "byol", *SMALL)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "byol" / "run.html").is_file()
