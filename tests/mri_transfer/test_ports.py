"""No command listens at a port, unless it was asked to work with other machines."""

import subprocess
import sys

PROGRAM = """
import socket
import sys

listen = socket.socket.listen

def told(self, *arguments):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        print("listens at", self.getsockname(), flush=True)
    return listen(self, *arguments)

socket.socket.listen = told
if __name__ == "__main__":
    from mri_transfer.cli import main
    sys.exit(main(sys.argv[1:]))
"""


def test_work_in_several_processes_opens_no_port(small_volumes, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [
        tmp_path / "program.py",
        "slices",
        small_volumes,
        "--out",
        tmp_path / "store",
        "--workers",
        "2",
    ]
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "listens at" not in done.stdout
