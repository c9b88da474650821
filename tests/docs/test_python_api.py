"""The examples of the page run, one after the other, as a reader would run them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "python_api.md"


def blocks():
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_every_block_is_python():
    assert len(blocks()) >= 6
    for number, block in enumerate(blocks(), 1):
        compile(block, f"block {number}", "exec")


@pytest.mark.slow
def test_the_examples_run_in_an_empty_folder(tmp_path):
    script = tmp_path / "page.py"
    checks = """
assert comparison["verdict"] and Path(comparison["report"]).is_file() and Path("headline.pdf").is_file()
assert len(losses) and api.settings("runs/second")["seed"] == 1
assert watched.steps == 3 and watched.ended_by == "callback 1 (Watch)" and watched.stopped is None
assert probabilities.shape == (3, 4) and abs(probabilities[0] - probabilities[1]).max() < 0.05
assert len(found["images"]) > 1 and found["volumes"] and list(Path("where").iterdir())
assert picture.shape == (320, 320, 3)
assert features.shape == (2, 1280) and same.shape[0] == 16
assert report["verdict"]["outcome"] == "ahead", report["verdict"]["sentence"]
"""
    script.write_text("\n".join([*blocks(), checks]), encoding="utf-8")
    # As in a notebook: a script would be imported by the worker processes, as the page says.
    done = subprocess.run(
        [sys.executable, "-c", f"exec(open({script.name!r}).read())"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "did you mean seeds?" in done.stdout
    assert "ends at a loss of" in done.stdout
