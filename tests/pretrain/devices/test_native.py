"""What C++ says and does, in processes of their own: by writing to the descriptors, and by calling abort()."""

import subprocess
import sys

import pytest


def run(code):
    words = "import ctypes, os, sys\nfrom mri_transfer.pretrain.devices.native import held_back\n" + code
    return subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, timeout=60)


def test_only_python_is_heard():
    done = run(
        "with held_back(lambda: None):\n"
        "    os.write(1, b'[Gloo] Rank 0'); os.write(2, b'W0000 warning')\n"
        "    print('result'); print('line', file=sys.stderr)\n"
        "os.write(1, b'after')"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "result\nafter", "line\n")


@pytest.mark.parametrize("explained", [True, False])
def test_an_abort_waits_for_a_better_end_and_is_explained_if_none_comes(explained):
    end = "(print('process 0 is gone', file=sys.stderr), os._exit(2))" if explained else "None"
    done = run(
        f"with held_back(lambda: {end}):\n    os.write(2, b'F0000 Check failed')\n    ctypes.CDLL(None).abort()"
    )
    if explained:
        assert (done.returncode, done.stderr) == (2, "process 0 is gone\n")
    else:
        assert done.returncode == -6
        assert "F0000 Check failed" in done.stderr


def test_what_is_redirected_meanwhile_stays_so(tmp_path):
    """As Interrupts does when the terminal is closed."""
    done = run(
        "from pathlib import Path\nfrom mri_transfer.pretrain.run.interrupts import redirect_output\n"
        f"with held_back(lambda: None):\n    redirect_output(Path({str(tmp_path / 'log')!r}))\n    print('inside')\n"
        "print('outside')"
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert (tmp_path / "log").read_text() == "inside\noutside\n"
