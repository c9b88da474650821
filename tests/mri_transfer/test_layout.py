"""What the design fixes: which part may know which, and that every module of the checkout is installed."""

import ast
import importlib.util
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("datasets", "checkpoints", "pretrain", "finetune")
MAY_USE = {
    "datasets": set(),
    "checkpoints": set(),
    "pretrain": {"datasets", "checkpoints"},
    "finetune": {"datasets", "checkpoints"},
}
# What every part shares, in mri_transfer/, imports nothing of the parts; these programs use them.
PROGRAMS = {
    "cli.py",
    "demo.py",
    "doctor.py",
    "encoders.py",
    "export.py",
    "verify.py",
    "__main__.py",
    "__init__.py",
}


def imported_parts(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        modules = []
        if isinstance(node, ast.ImportFrom):
            modules = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        for module in modules:
            words = module.split(".")
            assert words[0] not in PARTS, f"{file}: imports bare {words[0]}"
            if words[0] == "mri_transfer" and len(words) > 1 and words[1] in PARTS:
                names.add(words[1])
    return names


@pytest.mark.parametrize("part", PARTS)
def test_dependencies_point_one_way(part):
    for file in (ROOT / part).rglob("*.py"):
        assert imported_parts(file) <= {part, *MAY_USE[part]}, file


def test_what_is_shared_knows_no_part():
    rooms = [
        folder
        for folder in (ROOT / "mri_transfer").iterdir()
        if not folder.is_symlink() and folder.name != "api"
    ]
    for file in [
        *(ROOT / "mri_transfer").glob("*.py"),
        *(path for room in rooms for path in room.rglob("*.py")),
    ]:
        if file.name not in PROGRAMS:
            assert not imported_parts(file), file


def test_arrows_between_rooms_point_one_way():
    """No room needs one that needs it, by whatever detour; a room and those inside it count as one."""
    arrows = runpy.run_path(str(ROOT / "docs" / "draw_architecture.py"))["arrows"]()
    left = {room: set(others) for room, others in arrows.items()}
    while free := [room for room, others in left.items() if not others & left.keys()]:
        for room in free:
            del left[room]
    assert not left, f"these need one another: {left}"


def test_every_package_of_the_checkout_is_installed(monkeypatch):
    arguments = {}
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("setuptools.setup", arguments.update)
    runpy.run_path(str(ROOT / "setup.py"))
    packages = {"mri_transfer"}
    for init in ROOT.glob("mri_transfer/*/__init__.py"):
        packages.add(f"mri_transfer.{init.parent.name}")
    for part in PARTS:
        for init in (ROOT / part).rglob("__init__.py"):
            packages.add(".".join(["mri_transfer", *init.parent.relative_to(ROOT).parts]))
    assert set(arguments["packages"]) == packages
    assert len(arguments["packages"]) == len(packages)


def test_a_checkout_works_whatever_is_installed(tmp_path):
    # As where a wheel is installed and the current folder is a checkout: no finder of an editable install helps.
    code = (
        "import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]; "
        f"sys.path.insert(0, {str(ROOT)!r}); import mri_transfer.datasets.store.store as store; "
        "import mri_transfer.finetune; print(store.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).resolve() == ROOT / "datasets" / "store" / "store.py"


@pytest.mark.slow
@pytest.mark.parametrize("file", ["__init__.py", "test_theirs.py"])
def test_some_of_the_tests_run_where_another_package_of_that_name_is_installed(tmp_path, file):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / file).write_text("")
    done = subprocess.run(
        [Path(sys.executable).with_name("pytest"), "-q", "-n", "0", "--collect-only", "tests/pretrain"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_editor_finds_every_import_in_a_checkout():
    """By the folders alone, as jedi, pyright and mypy look: no installed package, no hook, no search path of ours."""
    missing = []
    for file in sorted(
        path for part in (*PARTS, "mri_transfer", "tests") for path in (ROOT / part).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mri_transfer"):
                place = ROOT.joinpath(*node.module.split("."))
                if not (place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()):
                    missing.append(f"{file.relative_to(ROOT)}: {node.module}")
    assert not missing


@pytest.mark.skipif(importlib.util.find_spec("jedi") is None, reason="pip install '.[lint]'")
def test_jedi_goes_to_definitions_in_a_checkout(tmp_path):
    import jedi

    code = "from mri_transfer.finetune.heads.probe import fit_probe\nfit_probe"
    project = jedi.Project(ROOT, sys_path=[str(ROOT)])
    (definition,) = jedi.Script(code, path=ROOT / "notes.py", project=project).goto(2, 3, follow_imports=True)
    assert Path(definition.module_path).resolve() == ROOT / "finetune" / "heads" / "probe.py"


def test_rooms_are_small_and_say_what_they_are():
    for init in (path for part in (*PARTS, "mri_transfer") for path in (ROOT / part).rglob("__init__.py")):
        assert ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))), init
        assert len(list(init.parent.glob("*.py"))) <= 15, (
            f"{init.parent} holds too many modules to find one by its name"
        )
