"""What the tests of exported graphs share: exporting a small one, and the runner as a module."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

BOARD = Path(__file__).resolve().parents[3] / "pretrain" / "graph" / "board"


def load_script(name: str, folder: Path = BOARD) -> ModuleType:
    """A script of the board, as if it lay in `folder` and was started there."""
    if str(BOARD) not in sys.path:
        sys.path.insert(0, str(BOARD))
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def save_always(folder: Path) -> None:
    """Let the runner in this folder save at every occasion, however little is trained between."""
    script = folder / "training.py"
    text = script.read_text(encoding="utf-8")
    assert "SAVING_SHARE = 0.01" in text
    script.write_text(text.replace("SAVING_SHARE = 0.01", "SAVING_SHARE = 1e9"), encoding="utf-8")


def export_small(out: Path, store: Path, *, for_: str = "tf2.7", **options) -> Path:
    """Export a graph, of settings that are small unless told otherwise; returns its folder."""
    from mri_transfer.export import ExportConfig, export

    settings = {"batch": 4, "size": 32, "backbone": "mobilenet", **options}
    export(ExportConfig(format="training-graph", out=out, store=store, for_=for_, **settings))
    return out
