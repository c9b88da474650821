"""A plan is written before the look, can't be changed unseen, and what is done otherwise is told; looks are counted."""

import json
import shutil
from pathlib import Path

import pytest

from mri_transfer.errors import UserError
from mri_transfer.finetune.compare import compare
from mri_transfer.finetune.comparison import runner
from mri_transfer.finetune.comparison.verdict import RULE
from mri_transfer.finetune.config import CompareConfig
from mri_transfer.finetune.data.one_source import NONE
from mri_transfer.finetune.planning.looks import RECORD, Looks
from mri_transfer.finetune.planning.plan import deviations, read_plan

ROOT = Path(__file__).resolve().parents[3]
SMALL = {"size": 32, "seeds": 1, "folds": 3, "draws": 100, "workers": 1, "arm": ("pixels", "figures")}


@pytest.fixture(scope="module")
def planned(write_patients, tmp_path_factory):
    """Settings, the plan, and the report of a comparison that was planned by a dry run."""
    folder = tmp_path_factory.mktemp("planned")
    settings = {
        **{"tumors": write_patients(folder / "set", patients=60, signal=0.5), "out": folder / "out"},
        **{"plan": folder / "plan.json", **SMALL},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner.Runner, "expected_seconds", lambda *_: 1.0)  # it would do a trial to measure it
        compare(CompareConfig(dry_run=True, hypothesis="Pixels are ahead.", **settings))
    assert not list((folder / "out/trials").iterdir())
    compare(CompareConfig(**settings))
    return settings, read_plan(settings["plan"]), report_of(settings)


def report_of(settings) -> dict:
    return json.loads((settings["out"] / "report.json").read_text(encoding="utf-8"))


def page_of(settings) -> str:
    return (settings["out"] / "report.html").read_text(encoding="utf-8")


def test_the_plan_says_what_is_compared_before_it_is(planned):
    settings, plan, report = planned
    assert plan["hypothesis"] == "Pixels are ahead."
    assert plan["before"] == {"trials": 0, "looks": 0}
    assert set(plan["planned"]["arms"]) == {"pixels", "figures"}
    assert all(len(arm["weights"]) == 1 for arm in plan["planned"]["arms"].values())
    assert plan["planned"]["seeds"] == [0]
    assert plan["planned"]["headline"] == {"cell": "all images", "mode": "probe", "fraction": 1.0}
    assert "macro-F1" in plan["planned"]["rule"]
    assert report["plan"]["followed"]
    assert report["plan"]["sha256"] == plan["sha256"]
    page = page_of(settings)
    assert page.index("It was followed.") < page.index("<main")
    assert "Pixels are ahead." in page


def test_without_recognised_pictures_one_sentence_says_that_there_is_no_cell_of_one_source(planned):
    report, page = planned[2], page_of(planned[0])
    assert report["one_source"] is None
    assert report["by_source"] == []
    assert report["verdict"]["one_source"] is None
    assert page.count(NONE) == 1
    assert '<h2 id="one-source">' not in page


def test_a_trial_is_known_by_what_is_in_it(planned, tmp_path):
    """Other names of the same starts change none; a seed more adds its own."""
    shutil.copytree(planned[0]["out"], tmp_path / "out")
    without = {key: value for key, value in planned[0].items() if key != "plan"}
    renamed = {**without, "out": tmp_path / "out", "arm": ("a=pixels", "b=figures"), "dry_run": True}
    assert compare(CompareConfig(**renamed))["trials_left"] == 0
    summary = compare(CompareConfig(**{**renamed, "seeds": 2}))
    assert summary["trials_left"] == summary["trials"] // 2 > 0


def test_what_is_done_otherwise_is_told(planned):
    settings, plan, _ = planned
    changed = {**settings, "seeds": 2, "arm": (*settings["arm"], "x=figures"), "folds": 4}
    with pytest.raises(UserError, match="same weights"):
        compare(CompareConfig(**changed))
    changed["arm"] = settings["arm"]
    changed["mode"] = "probe,nearest"
    compare(CompareConfig(**changed))
    outcome = report_of(settings)["plan"]
    assert not outcome["followed"]
    assert outcome["deviations"][:2] == [
        "Modes: planned probe, done probe, nearest.",
        "Folds: planned 3, done 4.",
    ]
    assert "Seeds: planned 0, done 0, 1." in outcome["deviations"]
    assert "Folds: planned 3, done 4." in page_of(settings)
    assert read_plan(settings["plan"]) == plan
    assert report_of(settings)["looks_before"] == 1
    assert "scored once before in this folder" in page_of(settings)


@pytest.mark.parametrize(
    "change", [{"hypothesis": "Figures are ahead."}, {"written": "2020-01-01T00:00:00+00:00"}]
)
def test_a_changed_plan_is_refused(planned, tmp_path, change):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({**planned[1], **change}), encoding="utf-8")
    with pytest.raises(UserError, match="was changed since it was written"):
        read_plan(path)


def test_what_is_no_plan_is_refused(planned, tmp_path):
    with pytest.raises(UserError, match="is not a comparison plan"):
        read_plan(planned[0]["out"] / "report.json")
    (tmp_path / "x.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="not readable as JSON"):
        read_plan(tmp_path / "x.json")


def test_a_hypothesis_without_a_plan_is_refused(planned):
    settings = {key: value for key, value in planned[0].items() if key != "plan"}
    with pytest.raises(UserError, match="--hypothesis: belongs in a plan"):
        compare(CompareConfig(hypothesis="x", **settings))


@pytest.mark.slow
def test_a_plan_after_the_look_says_so(planned, tmp_path):
    settings = {**planned[0], "plan": tmp_path / "late.json"}
    compare(CompareConfig(**settings))
    outcome = report_of(settings)["plan"]
    assert outcome["followed"]
    assert outcome["before"]["trials"] > 0
    assert "of its trials had been done before it was written" in outcome["words"]


def test_deviations_name_each_start():
    was = {"arms": {"a": {"weights": ["1"]}, "b": {"weights": ["2"]}}}
    done = {"arms": {"b": {"weights": ["3"]}, "c": {"weights": ["1"]}}}
    assert deviations(was, was) == []
    assert deviations(was, done) == [
        "Start a was planned but not compared.",
        "Start c was compared but not planned.",
        "Start b has other weights than planned.",
    ]
    cut = {"arms": {"a": {"backbone": "x/16", "weights": ["1"]}}}
    assert deviations({"arms": {"a": {"backbone": "x", "weights": ["2"]}}}, cut) == [
        "Start a is read from x/16 instead of x."
    ]
    more = {"arms": {**was["arms"], "a": {"weights": ["1", "4"]}}}  # another seed, which is told as such
    assert deviations(was, more) == deviations(more, was) == []


def test_a_rule_that_counts_as_the_present_one_is_no_deviation():
    published = sorted((ROOT / "docs/results").glob("plan-*.json"))
    assert len(published) >= 10
    for path in published:
        rule = {"rule": read_plan(path)["planned"]["rule"]}
        assert deviations(rule, {"rule": RULE}) == []
    assert deviations({"rule": f"{RULE} Or not."}, {"rule": RULE}) == [
        "The headline’s rule differs from the plan’s."
    ]


def test_a_deviation_is_said_once():
    """Images of another size have another fingerprint, and other modes have settings of their own."""
    was = {
        "modes": ["probe"],
        "size": 48,
        "data": "1",
        "settings": {"linear_probe": {"c": 1}, "nearest": None},
    }
    assert deviations(was, {**was, "size": 64, "data": "2"}) == ["Size of the images: planned 48, done 64."]
    assert deviations(was, {**was, "data": "2"}) == [
        "The images, labels or groups are not those of the plan."
    ]
    more = {**was, "modes": ["probe", "nearest"], "settings": {"linear_probe": {"c": 1}, "nearest": {"k": 5}}}
    assert deviations(was, more) == ["Modes: planned probe, done probe, nearest."]
    other = {**was, "settings": {"linear_probe": {"c": 2}, "nearest": None}}
    assert deviations(was, other) == ["The settings of linear probe are not those of the plan."]
    assert deviations(was, {**was, "external": ["x"]}) == ["External test sets: planned None, done x."]


def test_looks_are_counted_once_each_whatever_happens_to_the_file(tmp_path):
    def look(*trials):
        return Looks(tmp_path, ["a.png", "b.png"], trials)

    look("1", "2").add({}, ["x"])
    assert look("2", "1").before == 0
    look("2", "1").add({}, ["x"])
    assert len((tmp_path / RECORD).read_text().splitlines()) == 1
    assert look("3").before == 1
    assert Looks(tmp_path, ["c.png"], ["3"]).before == 0
    with (tmp_path / RECORD).open("a", encoding="utf-8") as file:
        file.write('{"images": "torn')
    assert look("3").before == 1
    look("3").add({}, ["x"])
    lines = [json.loads(line) for line in (tmp_path / RECORD).read_text().splitlines()]
    assert len(lines) == 2
    with (tmp_path / RECORD).open("a", encoding="utf-8") as file:
        file.write("damaged\n")
    assert look("1", "2").before == 2
