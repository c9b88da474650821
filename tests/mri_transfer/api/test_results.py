"""Results: dictionaries as before, with attributes, a page, tables."""

import copy
import importlib.util
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
