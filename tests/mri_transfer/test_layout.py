"""What the design fixes: which part may know which, and that every module of the checkout is installed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest brings it on older Pythons
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("datasets", "checkpoints", "pretrain", "finetune")
MAY_USE = {
    "datasets": set(),
    "checkpoints": set(),
    "pretrain": {"datasets", "checkpoints"},
    "finetune": {"datasets", "checkpoints"},
}
# What every part shares, in mri_transfer/, imports nothing of the parts; these programs use them.
PROGRAMS = {"cli.py", "demo.py", "doctor.py", "export.py", "__main__.py", "__init__.py"}


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
    for file in (ROOT / "mri_transfer").glob("*.py"):
        if file.name not in PROGRAMS:
            assert not imported_parts(file), file


def test_every_package_of_the_checkout_is_installed():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {"mri_transfer"}
    for part in PARTS:
        for init in (ROOT / part).rglob("__init__.py"):
            found.add(".".join(["mri_transfer", *init.parent.relative_to(ROOT).parts]))
    assert listed == found


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
    assert Path(done.stdout.strip()) == ROOT / "datasets" / "store" / "store.py"
