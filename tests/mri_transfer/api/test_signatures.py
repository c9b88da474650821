"""What editors, type checkers and `help` say of the API is what the configurations say."""

import dataclasses
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mri_transfer import api
from mri_transfer.api.__main__ import STUB
from mri_transfer.api.signatures import config_of, stub
from mri_transfer.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[3]
FUNCTIONS = sorted(set(COMMANDS) - {"demo"})


def test_the_stub_is_up_to_date():
    assert STUB.read_text(encoding="utf-8") == stub(), "run `python -m mri_transfer.api`"


@pytest.mark.parametrize("command", FUNCTIONS)
def test_every_option_is_a_parameter_with_its_default_and_description(command):
    function = getattr(api, command.replace("-", "_"))
    parameters = inspect.signature(function).parameters
    text = inspect.getdoc(function) or ""
    for field in dataclasses.fields(config_of(command)):
        if "help" not in field.metadata:
            assert field.name not in parameters
            continue
        parameter = parameters[field.name]
        needed = field.default is dataclasses.MISSING
        if parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
            assert (parameter.default is inspect.Parameter.empty) == needed
            if not needed and not isinstance(field.default, Path):
                assert repr(parameter.default) == repr(field.default)
        assert f"{field.name} : " in text
    assert not re.search("--[a-z]", text)  # an option of the command line has another name here


def test_everything_public_is_described():
    for name in api.__all__:
        assert inspect.getdoc(getattr(api, name)), name


@pytest.mark.skipif(importlib.util.find_spec("jedi") is None, reason="pip install '.[lint]'")
def test_jedi_completes_options():
    import jedi

    project = jedi.Project(ROOT, sys_path=[str(ROOT)])
    for code, word in (
        ("api.pretrain('store', out='r', warm", "warmup="),
        ("api.compare('t', out='r').fig", "figures"),
        ("api.load_classifier('r').predict_p", "predict_proba"),
    ):
        script = jedi.Script(f"from mri_transfer import api\n{code}", path=ROOT / "notes.py", project=project)
        assert word in [completion.name for completion in script.complete()], code


SCRIPT = """
from pathlib import Path

import numpy as np

from mri_transfer import api


class Stop(api.Callback):
    def on_step_end(self, step: int, logs: dict[str, object]) -> None:
        self.stop_training = step >= 3


def main(volumes: str, tumors: Path) -> int:
    store = api.slices(volumes, "more", out="store", size=64, planes=["axial"])
    run = api.pretrain("store", out=Path("run"), hours="8h", method="byol", callbacks=[Stop()], quiet=True)
    again = api.pretrain(**api.settings("run"))
    files, table = ["a.png", "b.png"], np.zeros((2, 3))
    found = api.compare(
        tumors, out="report", arm={"imagenet": "imagenet", "mri": run.folder, "dino": (files, table)}, fractions=0.5
    )
    verdict: str = found.verdict
    found.figures()["headline"].savefig("headline.pdf")
    classifier = api.load_classifier(api.finetune(tumors, init="run", out="c").run)
    sure: float = float(classifier.predict_proba([files[0], table]).max())
    names: list[str] = list(classifier.classes_)
    api.load_encoder("run").features(table)
    api.compare(tumors, out="report", sedes=3)  # type: ignore[call-arg]
    api.compare(tumors, out="report", folds="five")  # type: ignore[arg-type]
    api.compare(tumors)  # type: ignore[call-arg]
    api.finetune(tumors, out="c", labels="guess")  # type: ignore[arg-type]
    try:
        api.verify("store", tumors)
    except api.UserError as error:
        return len(str(error))
    return len(store.rows()) + len(verdict) + int(sure) + len(names) + len(again)
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="pip install '.[lint]'")
def test_a_script_that_uses_it_passes_mypy_strict(tmp_path):
    """With the ignores that it needs and no other: what is wrong is found, and what is right isn't complained about."""
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--python-version", "3.10"),
            *("--follow-imports", "silent", "--cache-dir", str(tmp_path / "cache"), "script.py"),
        ],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
