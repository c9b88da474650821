"""Results: dictionaries as before, with attributes, a page, tables."""

import copy
import importlib.util
import json
import pickle

import pytest

from mri_transfer import api
from mri_transfer.errors import UserError

ROWS = [{"file": "<b>.png", "probabilities": {"a": 0.25, "b": 0.75}}, {"file": "c.png", "why": ["x"]}]


def test_a_result_is_the_summary_and_more(tmp_path):
    result = api.Comparison({"verdict": "No difference shown: x", "results": []}, tmp_path)
    assert result["verdict"] == result.verdict
    assert result == {"verdict": "No difference shown: x", "results": []}
    assert "verdict" in dir(result)
    assert repr(result).startswith("Comparison(No difference shown")
    with pytest.raises(AttributeError, match="has no verdikt; did you mean verdict"):
        result.verdikt  # noqa: B018
    for twin in (copy.copy(result), pickle.loads(pickle.dumps(result))):
        assert twin == result
        assert twin.folder == tmp_path
    with pytest.raises(UserError, match="no report yet"):
        result.details  # noqa: B018


def test_a_notebook_shows_the_page(tmp_path):
    result = api.Slices({"slices": 3}, tmp_path)
    assert "<table>" in result._repr_html_()
    (tmp_path / "summary.html").write_text('<p class="x">page</p>', encoding="utf-8")
    html = result._repr_html_()
    assert "&lt;p class=&quot;x&quot;&gt;page" in html
    assert 'sandbox="allow-scripts"' in html  # without allow-same-origin, a page can't reach the notebook


def test_a_notebook_shows_a_table_and_escapes_it():
    html = api.Predictions({"images": ROWS})._repr_html_()
    assert "&lt;b&gt;.png" in html
    assert "probabilities_b" in html
    assert "0.75" in html


def test_tables_of_files_hold_numbers(tmp_path):
    (tmp_path / "slices.csv").write_text("subject,position\ns1,0.5\n2,\n", encoding="utf-8")
    rows = api.Slices({}, tmp_path).rows()
    assert rows == [{"subject": "s1", "position": 0.5}, {"subject": 2, "position": None}]


def test_a_table_with_bytes_that_are_no_text(tmp_path):
    """Files may have such names."""
    (tmp_path / "slices.csv").write_bytes(b"source,position\n\xff.nii,0.5\n")
    result = api.Slices({}, tmp_path)
    assert result.rows() == [{"source": "\udcff.nii", "position": 0.5}]
    assert "?.nii" in result._repr_html_()


@pytest.mark.parametrize("content", ["arm,score\na,1,2\n", f"arm\n{'x' * 200_000}\n"])
def test_a_table_that_is_none(tmp_path, content):
    (tmp_path / "trials.csv").write_text(content)
    with pytest.raises(UserError, match=r"trials\.csv: .*; make it again$"):
        api.Comparison({}, tmp_path).to_frame("trials")


REPORT = {"pairs": [], "results": [], "arm_names": [], "verdict": {"mode": "probe"}}


@pytest.mark.parametrize("name", list(REPORT))
def test_a_report_with_other_entries(tmp_path, name):
    result = api.Comparison({}, tmp_path)
    for damaged in ({key: REPORT[key] for key in REPORT if key != name}, {**REPORT, name: 3}, [REPORT]):
        (tmp_path / "report.json").write_text(json.dumps(damaged))
        with pytest.raises(UserError, match=r"report\.json: is damaged \(.*\); make it again with the same"):
            result.pairs  # noqa: B018


def test_figures_of_a_report_with_other_entries(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps(REPORT))
    with pytest.raises(
        UserError, match=r"report\.json: is damaged \(KeyError: .*\); make it again with the same"
    ):
        api.Comparison({}, tmp_path).figures()


def test_curves_of_a_run_leave_out_lines_that_no_run_writes(tmp_path):
    lines = [{"step": 1}, {"seconds": "x", "loss": 1}, {"seconds": 1, "loss": "low", "loss_chance": "x"}]
    lines += [{"seconds": 1, "loss": 0.5}, {"seconds": 2, "loss": 0.25}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert list(api.Pretraining({}, tmp_path).figures()) == ["loss"]


def test_frames():
    result = api.Predictions({"images": ROWS})
    if importlib.util.find_spec("pandas") is None:
        with pytest.raises(UserError, match="needs pandas"):
            result.to_frame()
        return
    frame = result.to_frame()
    assert frame.shape == (2, 4)
    assert frame["probabilities_a"].tolist()[0] == 0.25
    with pytest.raises(UserError, match="there is no table"):
        api.Predictions({"images": []}).to_frame()
