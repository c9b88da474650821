"""Windows, simulated (see sitecustomize.py for what is and what isn't): the commands from volumes to a prediction."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mri_transfer.datasets.synthetic.generate import write_tumors, write_volumes

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    """Run Python as on Windows, in a folder of its own."""
    folder = tmp_path_factory.mktemp("desk top")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    }

    def run(*arguments, code=0):
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=folder,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            timeout=1500,
        )
        assert done.returncode == code, done.stderr
        return done

    run.folder, run.environment = folder, environment
    return run


def test_the_simulation_is_on(windows):
    result = windows(
        "-c", "import os, sys; print(hasattr(os, 'O_NOFOLLOW'), sys.getfilesystemencoding(), os.O_BINARY)"
    )
    assert result.stdout.split()[0] == "False"
    windows("-c", "import os; os.open('.', os.O_RDONLY)", code=1)


def test_a_folder_has_one_writer(windows):
    """The second is told who the first is: what is locked is a byte that nobody reads."""
    holds = (
        "import sys; from pathlib import Path; from mri_transfer.storage.locks import alone_in\n"
        "with alone_in(Path('.')):\n"
        "    print(open('lock').read().strip(), flush=True); sys.stdin.read()"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", holds],
        cwd=windows.folder,
        env=windows.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    owner = first.stdout.readline().strip()
    assert owner == f"pid {first.pid}"
    second = windows("-c", holds, code=1)
    assert f"another process ({owner}) is writing to it" in second.stderr
    first.communicate("", timeout=60)
    (windows.folder / "lock").unlink()


def test_an_archive_is_unpacked(windows):
    content = b"a\r\nb\n\x1a" * 1000  # what a file that isn't opened as binary would change
    with zipfile.ZipFile(windows.folder / "a.zip", "w") as archive:
        archive.writestr("IXI001-Guys-0001-T1.nii.gz", content)
    (windows.folder / "unpacked").mkdir()
    windows(
        "-c",
        "from pathlib import Path, PurePosixPath\n"
        "from mri_transfer.datasets.fetch.unpack import unpack\n"
        "unpack(Path('a.zip'), Path('unpacked'), lambda path: PurePosixPath(path))",
    )
    assert next((windows.folder / "unpacked").glob("*.gz")).read_bytes() == content


@pytest.mark.slow
def test_from_volumes_to_a_prediction(windows):
    """Slices, pretraining, audit, comparison, classifier, prediction and verification end as they should."""
    desk = windows.folder
    write_volumes(desk / "Köpfe", subjects=2, seed=0)
    write_tumors(desk / "Tumöre", per_class=8, seed=1, one_each=True)
    command = ("-m", "mri_transfer")
    small = ("--backbone", "mobilenet")
    cut = ("slices", "Köpfe", "--out", "store", "--size", 32, "--spacing", 12, "--workers", 2)
    windows(*command, *cut)
    windows(*command, *cut)  # nothing new
    windows(*command, "pretrain", "store", "--out", "run", "--steps", 2, "--batch", 4, *small)
    windows(*command, "audit", "Tumöre", "--against", "store", "--out", "audit")
    compare = ("compare", "Tumöre", "--arm", "random", "--arm", "mri=run", "--out", "report", "--size", 32)
    windows(*command, *compare, "--seeds", 1, "--folds", 2, "--draws", 50, "--workers", 2)
    tune = ("finetune", "Tumöre", "--init", "run", "--out", "classifier", "--size", 32, "--epochs", 1)
    windows(*command, *tune, "--folds", 2, "--calibration", "none")
    image = next((desk / "Tumöre").rglob("*.jpg"))
    windows(*command, "predict", "classifier", image, "--csv", "p.csv", "--gradcam", "maps")
    result = windows(*command, "verify", "store", "run", "report", "classifier", "--json", "-")
    assert json.loads(result.stdout)
