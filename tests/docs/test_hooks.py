"""The pages that are made when the documentation is built."""

import importlib.util
from pathlib import Path

import pytest

from mri_transfer.cli import COMMANDS

pytest.importorskip("mkdocs")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_has_every_option_of_every_command(hooks):
    parts = hooks.reference().split("\n## ")
    sections = {section.split("\n", 1)[0]: section for section in parts}
    for name in COMMANDS:
        for action in hooks._parser(name)._actions:
            listing = sections[
                "Of every command" if action.dest in ("json", "quiet", "debug", "config") else name
            ]
            for option in action.option_strings:
                assert option in ("-h", "--help") or option in listing, (name, option)


def test_text_stays_text_in_markdown(hooks):
    assert hooks._escaped("a <b> *c* | `d_e*` f_g") == r"a &lt;b&gt; \*c\* \| `d_e*` f\_g"
    assert hooks._code("{a|b}") == r"`{a\|b}`"


def test_samples_are_those_of_a_demo_or_say_how_to_get_them(hooks, tmp_path, monkeypatch):
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    (tmp_path / "demo" / "report").mkdir(parents=True)
    (tmp_path / "demo" / "report" / "report.html").write_text("<p>made</p>")
    monkeypatch.setenv("MRI_TRANSFER_DEMO", str(tmp_path / "demo"))
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"), strict=True))
    site = tmp_path / "site"
    assert (site / "demo/report/report.html").read_text() == "<p>made</p>"
    assert "mri-transfer demo" in (site / "demo/store/summary.html").read_text()
    assert "nbformat" in (site / "kaggle.ipynb").read_text()
    assert "Guessed groups and persons" in (site / "findings/index.html").read_text()
    assert "--learning-rate RATE" in (site / "commands/index.html").read_text()
