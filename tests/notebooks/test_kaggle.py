"""The notebook is stored without outputs and runs from top to bottom on a small set of the real one's shape."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks" / "kaggle.ipynb"


def cells(kind):
    all_cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in all_cells if cell["cell_type"] == kind]


def test_it_is_stored_without_outputs():
    for cell in cells("code"):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None


def test_every_step_is_explained_and_every_cell_is_python():
    assert len(cells("markdown")) >= len(cells("code")) - 2
    for cell in cells("code"):
        compile("".join(cell["source"]), "cell", "exec")


def test_it_has_one_cell_of_settings():
    assert sum("parameters" in cell["metadata"].get("tags", ()) for cell in cells("code")) == 1


def executed(tmp_path, settings):
    """The notebook with other settings, run in a kernel of this interpreter."""
    nbformat = pytest.importorskip("nbformat", reason="pip install '.[notebook]'")
    nbclient = pytest.importorskip("nbclient", reason="pip install '.[notebook]'")
    pytest.importorskip("ipykernel", reason="pip install '.[notebook]'")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    cell.source += "\n" + "\n".join(f"{name} = {value!r}" for name, value in settings.items())
    client = nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    return notebook


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(tmp_path):
    from mri_transfer.datasets.synthetic.generate import write_tumors, write_volumes

    write_tumors(tmp_path / "tumors", per_class=24, seed=0)
    write_volumes(tmp_path / "volumes", subjects=3, seed=0)
    settings = {
        "TUMORS": str(tmp_path / "tumors"),
        "VOLUMES": str(tmp_path / "volumes"),
        "HOURS": 0.004,
        "SIZE": 64,
        "FOLDS": 3,
        "SEEDS": 1,
        "WORK": str(tmp_path / "work"),
    }
    notebook = executed(tmp_path, settings)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    summary = json.loads((tmp_path / "work" / "report" / "summary.json").read_text())
    outputs = json.dumps([cell.get("outputs") for cell in notebook.cells])
    assert summary["verdict"].split(":")[0] in outputs
    assert outputs.count("image/svg+xml") >= 2  # charts


@pytest.mark.slow
def test_without_data_it_says_what_to_attach(tmp_path):
    nbclient = pytest.importorskip("nbclient", reason="pip install '.[notebook]'")
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="attach the data set"):
        executed(tmp_path, {"WORK": str(tmp_path / "work")})
