"""One process at a time, whatever became of the last one."""

import subprocess
import sys

import pytest

from mri_transfer.errors import UserError
from mri_transfer.storage.locks import alone_in


def test_a_second_process_is_told_at_once(tmp_path):
    code = (
        "import sys; from pathlib import Path; from mri_transfer.storage.locks import alone_in\n"
        "with alone_in(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"another process \(pid {holder.pid}\)"), alone_in(tmp_path):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with alone_in(tmp_path):  # the kernel has let go of a killed process's lock
        pass
