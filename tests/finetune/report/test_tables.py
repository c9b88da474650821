"""Tables and predictions can be read back by other programs, and figures follow from them; methods say what was run."""

import csv
import re
import shutil
import subprocess

import numpy as np
import pytest
from sklearn.metrics import f1_score

from mri_transfer.finetune.comparison.results import Predictions, summarise
from mri_transfer.finetune.report.methods_paragraph import methods
from mri_transfer.finetune.report.tables import tex, write_tables

CLASSES = ("glioma_tumor", "no_tumor", "pituitary_tumor")
HOSTILE = 'a_1 & "50%" {x} $\\frac~'


def sample(classes, groups, random):
    rng = np.random.default_rng(random)
    group = np.repeat(np.arange(groups), 3)
    labels = (np.arange(groups) % len(classes))[group]

    def predict(skill):
        odds = np.exp(rng.normal(size=(2, labels.size, len(classes))) + skill * np.eye(len(classes))[labels])
        return (odds / odds.sum(-1, keepdims=True)).astype(np.float32)

    arms = ("imagenet", HOSTILE)
    cells = {(arm, "probe", f): predict(k) for k, arm in enumerate(arms) for f in (0.5, 1.0)}
    floors = {"pixels": predict(0.5)}
    return Predictions(arms, classes, labels, group, (4, 5), cells, floors=floors), [
        f"x/{n}.png" for n in range(len(labels))
    ]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    whole, paths = sample(CLASSES, 40, 0)
    inside, fewer = sample(CLASSES[::2], 20, 1)
    report = summarise(whole, draws=100, one_source=inside)
    folder = tmp_path_factory.mktemp("tables") / "tables"
    names = write_tables(folder, report, whole, paths, (inside, fewer))
    assert sorted(names) == sorted(path.name for path in folder.iterdir())
    return folder, report, whole, inside


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_headline_follows_from_the_predictions(written):
    folder, report, _, _ = written
    rows = read(folder / "out_of_fold.csv")
    for cell, section in (("all images", report), ("one source", report["one_source"])):
        for entry in section["results"]:
            selection = [row for row in rows if row["cell"] == cell and row["start"] == entry["arm"]]
            if entry["fraction"] != 1:
                continue
            scores = []
            for seed in ("4", "5"):
                rows_of_seed = [row for row in selection if row["seed"] == seed]
                assert len(rows_of_seed) == section["images"]
                for row in rows_of_seed:
                    shares = {name: float(row[f"p {name}"]) for name in section["classes"]}
                    assert max(shares, key=shares.get) == row["answer"]
                scores.append(
                    f1_score(
                        [r["label"] for r in rows_of_seed],
                        [r["answer"] for r in rows_of_seed],
                        average="macro",
                    )
                )
            assert entry["macro_f1"]["estimate"] == pytest.approx(np.mean(scores))


def test_scores_and_differences_are_the_reports(written):
    folder, report, _, _ = written
    scores = read(folder / "scores.csv")
    assert len(scores) == 4 + 1 + 4 + 1
    for section, cell in ((report, "all images"), (report["one_source"], "one source")):
        for entry in section["results"]:
            (row,) = [
                row
                for row in scores
                if (row["cell"], row["start"], row["fraction"])
                == (cell, entry["arm"], str(entry["fraction"]))
            ]
            assert float(row["macro_f1"]) == pytest.approx(entry["macro_f1"]["estimate"], abs=1e-6)
            assert float(row["macro_f1 low"]) == pytest.approx(entry["macro_f1"]["low"], abs=1e-6)
            assert row["ece low"] == ""
            assert (row["f1 no_tumor"] == "") == (cell == "one source")
    rows = read(folder / "differences.csv")
    pairs = [*report["pairs"], *report["one_source"]["pairs"]]
    assert [float(row["p_holm"]) for row in rows] == pytest.approx(
        [pair["p_holm"] for pair in pairs], rel=1e-4
    )


def test_latex_is_whole_and_names_are_escaped(written, tmp_path):
    folder = written[0]
    for name in ("scores", "differences"):
        text = (folder / f"{name}.tex").read_text(encoding="utf-8")
        assert tex(HOSTILE) in text
        columns = len(re.search(r"\\begin\{tabular\}\{(\w+)\}", text)[1])
        body = re.search(r"\\midrule\n(.*)\n\\bottomrule", text, re.S)[1]
        for line in body.splitlines():
            assert len(re.findall(r"(?<!\\)&", line)) == columns - 1
            assert line.endswith(r" \\")
        bare = re.sub(r"\\[\\&%$#_{}]|\\text\w+\{\}", "", text)
        assert bare.count("{") == bare.count("}")
        if shutil.which("pdflatex"):
            page = (
                "\\documentclass{article}\\usepackage{booktabs}\\begin{document}" + text + "\\end{document}"
            )
            (tmp_path / "t.tex").write_text(page, encoding="utf-8")
            subprocess.run(
                ["pdflatex", "-halt-on-error", "t.tex"], cwd=tmp_path, check=True, capture_output=True
            )


def test_methods_say_what_was_run(written):
    report = {
        **written[1],
        "plan": None,
        "looks_before": 2,
        "versions": {"mri-transfer": "1", "python": "3"},
        "settings": {"options": {"folds": 4, "size": 96}},
        "audit": {"files": 200, "distinct": 120, "sources": {"images_with_person": 60, "persons": 20}},
        "scored": {"which": "headline"},
    }
    text = methods(report)
    for words in (
        "stratified 4-fold cross-validation over whole groups, repeated with 2 seeds",
        "Of 200 files 120 distinct images remained",
        "60 images whose person is known (20 persons)",
        "120 images in 40 groups were scored (42 glioma tumor",
        "with 100 draws",
        "over all 4 pairs",
        "within one source (60 images of 20 persons, 2 classes",
        "shares of the training groups (50%, 100%)",
        "raw pixels",
        "was not planned in writing. These images had been scored 2 times before",
        "mri-transfer 1, python 3",
    ):
        assert words in text
    assert "Fine-tuning" not in text
    plan = {
        "written": "2026-01-01",
        "sha256": "ab",
        "followed": False,
        "deviations": ["Folds: planned 5, done 4."],
    }
    assert "was not followed in 1 point (Folds: planned 5, done 4.)" in methods({**report, "plan": plan})
    late_plan = {**plan, "followed": True, "before": {"trials": 3, "looks": 1}}
    assert "2026-01-01, when 3 of its trials had been done already, " in methods(
        {**report, "plan": late_plan}
    )
    assert methods(summarise(written[2], draws=50))  # of a report that knows nothing else
