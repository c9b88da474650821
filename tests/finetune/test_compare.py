"""The whole comparison on generated heads at 64 px: numbers, continuing, damage, bad input."""

import csv
import dataclasses
import json
import shlex
import shutil
import time

import numpy as np
import pytest

from mri_transfer.datasets.tumors.development import development_images
from mri_transfer.datasets.tumors.persons.group_table import write_groups
from mri_transfer.datasets.tumors.tumors import load_tumors
from mri_transfer.errors import UserError
from mri_transfer.finetune.compare import compare
from mri_transfer.finetune.comparison import runner
from mri_transfer.finetune.config import CompareConfig
from mri_transfer.finetune.reporting import command_line
from mri_transfer.storage.locks import alone_in

SMALL = {"size": 64, "seeds": 1, "folds": 3, "fractions": (0.5, 1.0), "draws": 200, "workers": 1}


@pytest.fixture(scope="module")
def settings(tumor_folder, encoder_folder):
    """Keyword arguments of one small comparison of three arms."""
    return {"tumors": tumor_folder, "arm": ("random", "imagenet", f"mri={encoder_folder}"), **SMALL}


@pytest.fixture(scope="module")
def finished(settings, tmp_path_factory):
    """Folder and summary of an undisturbed comparison."""
    out = tmp_path_factory.mktemp("compare") / "report"
    return out, compare(CompareConfig(out=out, **settings))


def report_of(folder) -> dict:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def numbers(folder) -> dict:
    return {key: report_of(folder)[key] for key in ("results", "pairs", "published", "verdict")}


def test_one_entry_per_arm_mode_and_fraction(finished):
    report = report_of(finished[0])
    cells = [(entry["arm"], entry["mode"], entry["fraction"]) for entry in report["results"]]
    assert sorted(cells) == sorted(
        (arm, "probe", f) for arm in ("random", "imagenet", "mri") for f in (0.5, 1.0)
    )
    for entry in report["results"]:
        assert set(entry["macro_f1"]) >= {"estimate", "low", "high"}
    assert len(report["pairs"]) == 3 * 2
    assert {entry["arm"] for entry in report["published"]} == {"random", "imagenet", "mri"}


def test_floors_are_there_unasked(finished):
    report = report_of(finished[0])
    assert {floor["floor"] for floor in report["floors"]} == {"pixels", "figures"}
    for floor in report["floors"]:
        assert set(floor["arms"]) == {"random", "imagenet", "mri"}
        assert floor["macro_f1"]["low"] <= floor["macro_f1"]["estimate"] <= floor["macro_f1"]["high"]
    page = (finished[0] / "report.html").read_text(encoding="utf-8")
    assert "Above the floors?" in page
    assert "a random forest" in page


def test_a_comparison_of_before_there_were_floors_is_reported_anew(finished, settings, tmp_path):
    old = tmp_path / "report"
    shutil.copytree(finished[0], old)
    for path in (old / "trials").iterdir():
        with np.load(path) as trial:
            mode, weights = (json.loads(str(trial["identity"]))[key] for key in ("mode", "weights"))
        if mode == "forest" or weights.startswith("pixels"):
            path.unlink()
    summary = compare(CompareConfig(out=old, **settings))
    assert summary["trials_done_before"] == summary["trials"]
    assert report_of(old)["floors"] == report_of(finished[0])["floors"]
    assert numbers(old) == numbers(finished[0])


def test_everything_needed_to_repeat_it_is_kept(finished, settings):
    report = report_of(finished[0])
    assert report["settings"]["command"].startswith(f"mri-transfer compare {settings['tumors']} --out ")
    assert "--fractions 0.5,1" in report["settings"]["command"]
    assert report["versions"]["keras"]
    arms = {arm["name"]: arm for arm in report["arms"]}
    assert arms["mri"]["provenance"]["method"] == "simclr"
    assert len(arms["imagenet"]["sha256"]) == 64
    assert report["settings"]["data_fingerprint"]
    assert "gone/store is not here" in json.dumps(report["leaks_with_pretraining"])
    assert (finished[0] / "report.html").read_text(encoding="utf-8").lower().startswith("<!doctype html>")


def test_the_scores_follow_from_the_trials_on_disk(finished):
    """Macro-F1 of the table's own files, computed by scikit-learn, equals the report's."""
    from sklearn.metrics import f1_score

    out, config = finished[0], report_of(finished[0])["settings"]["options"]
    tumors = load_tumors(config["tumors"], config["size"], cache=out / "cache")
    with (out / "trials.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 3 * 2 + 3
    answers = np.full(len(tumors), -1)
    for row in rows:
        if (row["arm"], row["split"], row["fraction"]) == ("imagenet", "grouped", "1"):
            with np.load(out / "trials" / row["file"]) as trial:
                assert (answers[trial["test"]] == -1).all()
                answers[trial["test"]] = trial["probabilities"].argmax(-1)
    entry = next(e for e in report_of(out)["results"] if (e["arm"], e["fraction"]) == ("imagenet", 1.0))
    scored = ~development_images(tumors)
    expected = f1_score(tumors.labels[scored], answers[scored], average="macro")
    assert expected == pytest.approx(entry["macro_f1"]["estimate"])
    assert report_of(out)["images"] == scored.sum() < len(tumors)


def test_run_again_it_does_nothing_and_says_the_same(finished, settings, monkeypatch):
    before = numbers(finished[0])
    monkeypatch.setattr(runner, "feature_trial", None)
    monkeypatch.setattr(runner, "extract_features", None)
    summary = compare(CompareConfig(out=finished[0], **settings))
    assert summary["trials_done_before"] == summary["trials"]
    assert numbers(finished[0]) == before


@pytest.mark.slow
def test_pretraining_of_each_seed_has_its_own_trials(settings, encoder_of_each_seed, tmp_path):
    changed = {"seeds": 2, "fractions": (1.0,), "arm": ("random", f"mri={encoder_of_each_seed}")}
    compare(CompareConfig(out=tmp_path / "report", **{**settings, **changed}))
    report = report_of(tmp_path / "report")
    (entry,) = [arm for arm in report["arms"] if arm["name"] == "mri"]
    assert len(entry["sha256"]) == 2
    assert list(entry["encoders"]) == [encoder_of_each_seed.replace("{seed}", seed) for seed in "01"]
    assert "mri" in {entry["arm"] for entry in report["published"]}
    assert report["leaks_with_pretraining"]["not checked 1"].count("gone/store is not here") == 1
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "Pretrained anew for each seed: mri" in page
    assert "Pretrained once" not in page
    with (tmp_path / "report" / "trials.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["arm"] == "mri"]
    weights = {}
    for row in rows:
        with np.load(tmp_path / "report" / "trials" / row["file"]) as trial:
            weights.setdefault(row["seed"], set()).add(json.loads(str(trial["identity"]))["weights"])
    assert [len(digests) for digests in weights.values()] == [1, 1]
    assert weights["0"] != weights["1"]


def test_the_published_split_goes_with_all_labels(settings, tmp_path):
    few = {**settings, "arm": ("pixels", "figures"), "fractions": (0.5,)}
    assert compare(CompareConfig(out=tmp_path / "report", **few))["trials"] == 2 * 3
    assert report_of(tmp_path / "report")["published"] == []
    assert 'id="published"' not in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    whole = {**few, "fractions": (0.5, 1.0)}
    assert compare(CompareConfig(out=tmp_path / "report", **whole))["trials"] == 2 * (2 * 3 + 1)
    assert report_of(tmp_path / "report")["published"]


def test_damaged_files_are_reported_and_done_again(settings, finished, tmp_path):
    out = tmp_path / "report"
    shutil.copytree(finished[0], out)
    with (out / "trials.csv").open(encoding="utf-8") as file:  # an arm's: those of floors aren't counted
        trial = out / "trials" / min(row["file"] for row in csv.DictReader(file))
    features = sorted((out / "features").glob("*.npz"))[0]
    trial.write_bytes(trial.read_bytes()[:100])
    content = bytearray(features.read_bytes())
    content[len(content) // 2] ^= 255
    features.write_bytes(bytes(content))
    summary = compare(CompareConfig(out=out, **settings))
    assert sorted(line.split(": ")[0] for line in summary["damaged"]) == sorted([str(trial), str(features)])
    assert summary["trials_done_before"] == summary["trials"] - 1
    assert numbers(out) == numbers(finished[0])


def test_dry_run_counts_and_estimates(settings, finished, tmp_path):
    out = tmp_path / "report"
    shutil.copytree(finished[0], out)
    summary = compare(CompareConfig(out=out, dry_run=True, **{**settings, "fractions": (0.25, 0.5, 1.0)}))
    assert summary["trials"] == 3 * 3 * 3 + 3
    assert summary["trials_left"] == 3 * 3
    assert summary["expected_seconds"] > 0
    assert numbers(out) == numbers(finished[0])


@pytest.mark.slow
def test_killed_at_random_it_ends_with_the_same_numbers(tiny, start_command, tmp_path):
    """Killed with one worker and with two; undisturbed with one: the numbers depend on neither.

    `tests/mri_transfer/test_killed.py` kills it more often, in one process.
    """
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    words = shlex.split(command_line(CompareConfig(out=killed, **tiny)))[1:]
    compare(CompareConfig(out=undisturbed, workers=1, **tiny))
    rng = np.random.default_rng(0)
    for number in range(10):
        process = start_command(*words, "--workers", 1 + number // 2 % 2)
        before = len(list(killed.glob("*/*.npz")))
        if number % 2:  # shortly after something was written, else at any time
            deadline = time.monotonic() + 20
            while len(list(killed.glob("*/*.npz"))) == before and time.monotonic() < deadline:
                if process.poll() is not None:
                    break
                time.sleep(0.02)
            time.sleep(rng.uniform(0, 0.3))
        else:
            time.sleep(rng.uniform(0, 4))
        process.kill()
        process.communicate()
    final = start_command(*words, "--workers", 2)
    output = final.communicate()[0]
    assert final.returncode == 0, output
    assert "damaged" not in output
    assert json.loads((killed / "summary.json").read_text())["trials_done_before"] > 0
    assert numbers(killed) == numbers(undisturbed)
    assert trial_names(killed) == trial_names(undisturbed)
    for name in trial_names(undisturbed):
        with np.load(undisturbed / "trials" / name) as expected, np.load(killed / "trials" / name) as actual:
            assert np.array_equal(expected["probabilities"], actual["probabilities"])


def trial_names(folder) -> list[str]:
    return sorted(path.name for path in (folder / "trials").iterdir() if path.suffix == ".npz")


@pytest.mark.slow
def test_fine_tuning_every_arm(tiny, tmp_path):
    changed = {"rates": (1e-4, 1e-3), "calibration": "temperature", "fractions": (1.0,)}
    config = CompareConfig(out=tmp_path / "r", workers=1, **{**tiny, **changed})
    dry = compare(dataclasses.replace(config, dry_run=True))
    assert dry["trials"] == 2 * 2 * 3
    compare(config)
    report = report_of(tmp_path / "r")
    assert {entry["mode"] for entry in report["results"]} == {"probe", "finetune"}
    assert report["settings"]["fine_tuning"]["unfreeze"] == 0.1
    for arm in report["arms"]:
        assert sum(arm["choices"]["rates"].values()) == 3  # two folds and the published split
        assert set(arm["choices"]["rates"]) <= {"0.0001", "0.001"}
        assert arm["choices"]["calibrated"]["log_loss"] > 0
    with (tmp_path / "r" / "trials.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["mode"] == "finetune"]
    assert {row["rate"] for row in rows} <= {"0.0001", "0.001"}
    assert all(0.5 <= float(row["temperature"]) <= 20 for row in rows)
    assert "fine-tuning, learning rate" in (tmp_path / "r" / "report.html").read_text(encoding="utf-8")


def test_another_process_in_the_same_folder(settings, finished):
    with alone_in(finished[0]), pytest.raises(UserError, match="another process"):
        compare(CompareConfig(out=finished[0], **settings))


def bad(settings, tmp_path, **changes) -> str:
    with pytest.raises(UserError) as error:
        compare(CompareConfig(**{"out": tmp_path / "out", **settings, **changes}))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_bad_input_is_one_line_before_any_work(settings, tmp_path):
    assert "nothing: no such folder" in bad(settings, tmp_path, tumors=tmp_path / "nothing")
    assert "gone: no such folder" in bad(settings, tmp_path, arm=("imagenet", f"mri={tmp_path}/gone"))
    assert "named twice" in bad(settings, tmp_path, arm=("imagenet", "imagenet"))
    assert str(tmp_path / "store") in bad(settings, tmp_path, against=(tmp_path / "store",))
    assert "backbone" in bad(settings, tmp_path, backbone=("resnet5O",))
    assert not (tmp_path / "out").exists()


def test_a_damaged_encoder_is_named(settings, encoder_folder, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(encoder_folder, broken)
    weights = next(broken.glob("*.npz"))
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(bytes(content))
    assert str(weights) in bad(settings, tmp_path, arm=("random", f"mri={broken}"))


@pytest.mark.slow
def test_a_table_of_groups_decides_the_folds_and_is_named(settings, tmp_path):
    tumors = load_tumors(settings["tumors"], 64)
    table = tmp_path / "groups.csv"
    # Pairs of groups become one: half as many.
    merged = dataclasses.replace(tumors, groups=tumors.groups // 2)
    write_groups(table, merged)
    out = tmp_path / "report"
    few = settings | {"arm": ("random", "pixels"), "fractions": (1.0,), "folds": 2}
    compare(CompareConfig(out=out, groups=table, force_groups=True, **few))
    report = report_of(out)
    scored = report["scored"]
    assert report["groups"] == scored["groups"]
    groups = scored["groups"] + scored["left_out"]["groups"]
    assert groups == len(np.unique(merged.groups)) < len(np.unique(tumors.groups))
    assert f"--groups {table}" in report["settings"]["command"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert f"Groups were taken from {table}" in page
    assert "Groups are guessed" not in page
