"""No command listens at a port, unless it was asked to work with other machines."""

import subprocess
import sys

PROGRAM = """
import sys

def told(event, arguments):
    if event == "socket.bind" and not isinstance(arguments[1], (str, bytes)):
        print("bound to", arguments[1], flush=True)

sys.addaudithook(told)
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
    assert "bound to" not in done.stdout
