"""The command line as a person meets it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mri_transfer.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_teaches_and_starts_no_tensorflow(name):
    code = f"""
import sys
from mri_transfer.cli import main
try:
    main([{name!r}, "--help"])
except SystemExit as stop:
    assert stop.code == 0
assert not {{"tensorflow", "keras"}} & set(sys.modules), "help should be instant"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "mri-transfer" in done.stdout
    assert "--json FILE" in done.stdout


def test_it_is_the_same_program_as_a_module(command):
    assert command("--version").stdout.startswith("mri-transfer ")
    assert "pretrain" in command("--help").stdout


def test_errors_are_one_line_and_debug_shows_the_traceback(cli, tmp_path):
    done = cli("audit", tmp_path / "none")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert str(tmp_path / "none") in done.stderr
    from mri_transfer.errors import UserError

    with pytest.raises(UserError):
        cli("audit", tmp_path / "none", "--debug")


def test_json_goes_to_a_file_or_to_standard_output(cli, small_volumes, tmp_path):
    arguments = ("slices", small_volumes, "--out", tmp_path / "s", "--size", 32, "--workers", 1, "--quiet")
    done = cli(*arguments, "--json", "-")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout)["command"] == "slices"
    assert cli(*arguments, "--json", tmp_path / "summary.json").returncode == 0
    assert json.loads((tmp_path / "summary.json").read_text())["command"] == "slices"
