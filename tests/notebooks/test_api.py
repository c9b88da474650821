"""The notebook of the API is stored without outputs, uses nothing else of ours, and runs from top to bottom."""

import ast
import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "api.ipynb"


def cells():
    all_cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in all_cells if cell["cell_type"] == "code"]


def test_it_is_stored_without_outputs_and_imports_the_api_alone():
    for cell in cells():
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        for node in ast.walk(ast.parse("".join(cell["source"]))):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("mri_transfer"):
                assert (node.module, [name.name for name in node.names]) == ("mri_transfer", ["api"])


@pytest.mark.slow
def test_it_runs_from_top_to_bottom_and_prints_nothing_unasked(tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="pip install '.[notebook]'")
    nbclient = pytest.importorskip("nbclient", reason="pip install '.[notebook]'")
    pytest.importorskip("ipykernel", reason="pip install '.[notebook]'")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    client = nbclient.NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    pages = [out for out in outputs if out and "srcdoc=" in out[-1].get("data", {}).get("text/html", "")]
    assert len(pages) == 2  # the store and the report
    assert any("image/png" in out[-1].get("data", {}) for out in outputs if out)
    assert "did you mean seeds?" in outputs[-1][-1]["text"]
    printed = "".join(output["text"] for out in outputs for output in out if output.get("name") == "stdout")
    assert len(printed.splitlines()) == 1 + 1 + 3 + 1  # of the audit, the losses, three arms and the mistake
