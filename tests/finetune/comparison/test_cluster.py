"""A real Dask cluster on this machine: the same results as without it, and one line for what may be wrong with it."""

import contextlib
import http.server
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from mri_transfer import api
from mri_transfer.cli import main
from mri_transfer.datasets.synthetic.generate import write_volumes
from mri_transfer.errors import UserError
from mri_transfer.processes.workers import run_calls, workers_for

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="pip install '.[cluster]'"),
    pytest.mark.slow,
]

QUIET = {"DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "error", "DASK_DISTRIBUTED__DASHBOARD__LINK": ""}


class RealCluster:
    """A scheduler and workers, each a process of its own."""

    def __init__(self, folder: Path):
        self.folder, self.processes = folder, []
        self.address = self.scheduler()

    def start(self, *words: str, before: tuple[str, ...] = (), **env: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [*before, sys.executable, "-m", "dask", *words],
            env=os.environ | QUIET | env,
            cwd=self.folder,  # not where the command runs
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.processes.append(process)
        return process

    def scheduler(self) -> str:
        file = self.folder / "scheduler.json"
        self.start("scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
        return str(wait_for(lambda: file.is_file() and read_address(file)))

    def worker(self, count: int = 1, **options) -> subprocess.Popen:
        """A process that holds one worker; returns when `count` are connected."""
        from distributed import Client

        process = self.start(
            "worker", self.address, "--nthreads", "1", "--no-dashboard", "--no-nanny", **options
        )
        with Client(self.address, timeout=30, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=60)
        return process

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def read_address(file: Path) -> str | None:
    with contextlib.suppress(ValueError):
        return json.loads(file.read_text())["address"]
    return None


def wait_for(condition, seconds: float = 60):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return value


@contextlib.contextmanager
def real_cluster(folder: Path):
    instance = RealCluster(folder)
    try:
        yield instance
    finally:
        instance.end()


@pytest.fixture
def cluster(tmp_path_factory):
    with real_cluster(tmp_path_factory.mktemp("cluster")) as instance:
        yield instance


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory):
    """One that nothing happens to."""
    with real_cluster(tmp_path_factory.mktemp("cluster")) as instance:
        instance.worker()
        instance.worker(2)
        yield instance


# What workers import, they must have.
SLOW = """
import os, time

def slow(folder, number):
    (folder / f"{number}-{os.getpid()}").touch()
    time.sleep(0.5)
    return number
"""


@pytest.fixture
def slow(cluster, monkeypatch):
    """A function that takes half a second and leaves a file that names its process."""
    (cluster.folder / "takes_time.py").write_text(SLOW)
    monkeypatch.syspath_prepend(cluster.folder)
    import takes_time

    return takes_time.slow


def test_a_comparison_there_has_the_same_numbers(tmp_path, two_workers, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)  # paths are relative to where the command is run, wherever the workers run
    here = api.compare(out="here", workers=1, **tiny)
    there = api.compare(out="there", cluster=two_workers.address, **tiny)
    assert here["results"] == there["results"]
    ours, theirs = (sorted(Path(name, "trials").iterdir()) for name in ("here", "there"))
    assert [path.name for path in ours] == [path.name for path in theirs]
    for local, remote in zip(ours, theirs, strict=True):
        with np.load(local) as a, np.load(remote) as b:
            np.testing.assert_array_equal(a["probabilities"], b["probabilities"])


def test_volumes_are_read_there(tmp_path, two_workers):
    write_volumes(tmp_path / "v", subjects=3, seed=0, spacing=4.0)
    (tmp_path / "v" / "broken.nii").write_text("notes" * 100)
    here = api.slices(tmp_path / "v", out=tmp_path / "here", size=32, workers=1)
    there = api.slices(tmp_path / "v", out=tmp_path / "there", size=32, cluster=two_workers.address)
    assert here["fingerprint"] == there["fingerprint"]
    assert len(there["skipped"]) == 1


def test_a_killed_worker_is_survived(tmp_path, cluster, slow):
    first = cluster.worker()
    cluster.worker(2)
    marks = tmp_path / "marks"
    marks.mkdir()

    def kill_when_it_works() -> None:
        wait_for(lambda: [path for path in marks.iterdir() if path.name.endswith(f"-{first.pid}")])
        first.send_signal(signal.SIGKILL)

    killer = threading.Thread(target=kill_when_it_works)
    killer.start()
    with workers_for(None, cluster=cluster.address, folders=[marks]) as workers:
        results = dict(run_calls(workers, slow, [(marks, number) for number in range(8)]))
    killer.join()
    assert results == {number: number for number in range(8)}
    assert len(list(marks.iterdir())) > 8  # one was begun twice


def test_a_scheduler_that_goes_is_one_line(tmp_path, cluster, slow):
    cluster.worker()

    def use() -> None:
        with workers_for(None, cluster=cluster.address, folders=[tmp_path]) as workers:
            for _ in run_calls(workers, slow, [(tmp_path, number) for number in range(8)]):
                cluster.processes[0].kill()

    with pytest.raises(UserError, match="scheduler is gone"):
        use()


def refused(capfd, tumor_folder, tmp_path, address: str) -> str:
    options = [
        "--arm",
        "pixels",
        "--arm",
        "figures",
        "--mode",
        "nearest",
        "--out",
        str(tmp_path / "out"),
        "--cluster",
        address,
    ]
    assert main(["compare", str(tumor_folder), *options, "--quiet"]) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("mri-transfer")]
    assert len(lines) == 1
    return lines[0]


def test_addresses_where_no_scheduler_is(capfd, tumor_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("mri_transfer.processes.cluster.CONNECT_SECONDS", 3.0)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for address in ("tcp://127.0.0.1:9", f"tcp://127.0.0.1:{server.server_port}", "nonsense://x"):
            line = refused(capfd, tumor_folder, tmp_path, address)
            assert f"--cluster {address}: no Dask scheduler answers there" in line
        server.shutdown()


def test_no_worker_another_version_and_other_files(capfd, tumor_folder, tmp_path, cluster):
    assert "no worker is connected" in refused(capfd, tumor_folder, tmp_path, cluster.address)
    other = tmp_path / "other"
    other.mkdir()
    (other / "sitecustomize.py").write_text("import mri_transfer; mri_transfer.__version__ = '9.9'\n")
    process = cluster.worker(PYTHONPATH=os.pathsep.join([str(other), *sys.path]))
    assert "has mri-transfer 9.9 and this machine" in refused(capfd, tumor_folder, tmp_path, cluster.address)
    process.kill()
    if sys.platform != "linux" or os.geteuid() != 0:
        return
    # A worker that has a disk of its own where the folder should be.
    hide = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs tmpfs {tmp_path / "out"} && exec "$@"', "sh"]
    wait_for(lambda: not workers_at(cluster.address))
    cluster.worker(before=tuple(hide))
    assert f"has another {tmp_path / 'out'}" in refused(capfd, tumor_folder, tmp_path, cluster.address)


def workers_at(address: str) -> dict:
    from distributed import Client

    with Client(address, timeout=30, set_as_default=False) as client:
        return client.scheduler_info()["workers"]
