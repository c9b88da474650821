"""`mri-transfer slices`, stopped in every way at any moment and on a disk that is full: the same store in the end."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import mri_transfer
from mri_transfer.cli import main
from mri_transfer.datasets.store.store import SliceStore

CHECKOUT = str(Path(mri_transfer.__file__).resolve().parent.parent)


@pytest.fixture
def volumes(tmp_path, head, save):
    """Three sessions of each of four subjects, one of which adds little, a copy, and two files that can't be used."""
    folder = tmp_path / "v"
    rng = np.random.default_rng(0)
    for number in range(4):
        first = head((24, 28, 26), seed=number)
        for session, voxels in enumerate(
            (first, first + rng.normal(0, 1, first.shape), head((22, 30, 26), seed=9 + number))
        ):
            path = folder / f"sub-{number}" / f"ses-{session}" / f"sub-{number}_ses-{session}_T1w.nii.gz"
            save(path, voxels, zooms=(4.0, 4.0, 4.0), dtype=np.float32)
    (folder / "copy_T1w.nii.gz").write_bytes(
        (folder / "sub-0" / "ses-0" / "sub-0_ses-0_T1w.nii.gz").read_bytes()
    )
    (folder / "broken.nii").write_text("notes" * 100)
    return folder


def everything(store: Path) -> dict[str, bytes]:
    """All that a store consists of, but for how long it took."""
    contents = {
        str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()
    }
    summary = json.loads(contents.pop("summary.json"))
    del contents["verified.json"]  # times and inodes of the shards
    sums = contents["SHA256SUMS"].splitlines()
    contents["SHA256SUMS"] = b"".join(line for line in sums if not line.endswith(b"  summary.json"))
    manifest = json.loads(contents["manifest.json"])
    assert summary["fingerprint"] == manifest["fingerprint"]
    assert not [name for name in contents if name.endswith(".part")]
    return contents


def arguments(volumes: Path, store: Path, workers: int) -> list[str]:
    return ["slices", str(volumes), "--out", str(store), "--size", "32", "--workers", str(workers), "--quiet"]


# The pauses make it likely that a signal meets the middle of the work.
SLOWLY = """
import os, sys, time
sys.path.insert(0, {checkout!r})
import mri_transfer.datasets.store.writer as writer
writer.COMMIT_SECONDS = 0.0
def slowly(real):
    def call(*arguments, **options):
        time.sleep(0.03)
        return real(*arguments, **options)
    return call
writer.StoreWriter.add = slowly(writer.StoreWriter.add)
os.fsync, os.replace = slowly(os.fsync), slowly(os.replace)
from mri_transfer.cli import main
if __name__ == "__main__":
    sys.exit(main({arguments!r}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_stopped_at_random_moments(tmp_path, volumes, workers):
    assert main(arguments(volumes, tmp_path / "whole", 1)) == 0
    script = tmp_path / "run.py"
    script.write_text(
        SLOWLY.format(checkout=CHECKOUT, arguments=arguments(volumes, tmp_path / "store", workers))
    )
    rng = random.Random(workers)
    journal = tmp_path / "store" / "volumes.jsonl"
    stops = 0
    for attempt in range(25):
        before = journal.stat().st_mtime_ns if journal.is_file() else 0
        process = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE, text=True)
        while process.poll() is None and not _changed(journal, before) and attempt % 4:
            time.sleep(0.005)  # mostly, the work is to have begun; importing takes longer than doing it
        started = time.monotonic()
        deadline = started + rng.uniform(
            0.0, 0.1 + attempt / 10
        )  # the first stops come early: there are to be several
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(deadline - time.monotonic())
        signum = rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        process.send_signal(signum)
        error = process.communicate(timeout=60)[1]
        if process.returncode == 0:
            break
        stops += 1
        assert process.returncode in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, 130), error
        if process.returncode == 130:
            assert error.strip() == "interrupted; run the same command again to continue"
    assert stops >= 4
    assert process.returncode == 0 or subprocess.run([sys.executable, str(script)]).returncode == 0
    assert everything(tmp_path / "store") == everything(tmp_path / "whole")
    SliceStore.open(tmp_path / "store").verify()


def _changed(path: Path, before: int) -> bool:
    return path.is_file() and path.stat().st_mtime_ns != before


def test_a_disk_that_is_full_again_and_again(tmp_path, volumes, small_disk, capfd):
    assert main(arguments(volumes, tmp_path / "whole", 1)) == 0
    total = sum(path.stat().st_size for path in (tmp_path / "whole").rglob("*") if path.is_file())
    page = os.sysconf("SC_PAGE_SIZE")
    failures, sizes = 0, range(3 * page, total + 60 * page, max(page, total // 25))
    for size in sizes:
        store = small_disk(size) / "store"
        capfd.readouterr()
        code = main(arguments(volumes, store, 1))
        error = capfd.readouterr().err
        if code == 0:
            break
        failures += 1
        assert code == 2
        assert error.count("\n") == 1, error
        assert (
            "no space left on the device; free some space and run the same command again to continue" in error
        )
        assert str(store) in error
    assert code == 0, error
    assert failures >= 10
    assert everything(store) == everything(tmp_path / "whole")


LIMITED = """
import re, resource, sys
from pathlib import Path
sys.path.insert(0, {checkout!r})
from mri_transfer.cli import main
resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))
if __name__ == "__main__":
    code = main({arguments!r})
    # Of this program alone: what getrusage tells includes the process that started it.
    print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024)
    sys.exit(code)
"""


def promise(path: Path, shape: tuple[int, int, int], bits: int, code: int) -> None:
    """Make a NIfTI header promise voxels that are not there."""
    with path.open("r+b") as file:
        file.seek(42)
        file.write(np.array(shape, "<i2").tobytes())
        file.seek(70)
        file.write(np.array([code, bits], "<i2").tobytes())


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is the kernel's")
def test_a_header_that_promises_too_much_is_refused_before_anything_is_allocated(
    tmp_path, volumes, head, save
):
    for name, shape in {"terabytes": (32000, 32000, 32000), "gigabytes": (2000, 2000, 1000)}.items():
        promise(save(tmp_path / "v" / f"{name}.nii", head((8, 8, 8))), shape, 64, 64)
    # A sparse file of 3 GB, as large as its header says.
    large = save(tmp_path / "v" / "large.nii", head((8, 8, 8)))
    promise(large, (1500, 1000, 1000), 16, 4)
    os.truncate(large, 352 + 3_000_000_000)
    command = [*arguments(tmp_path / "v", tmp_path / "store", 1), "--max-mb", "500"]
    script = tmp_path / "run.py"
    script.write_text(LIMITED.format(checkout=CHECKOUT, arguments=command, limit=3 << 30))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 450  # MB
    reasons = {
        skip["file"]: skip["reason"]
        for skip in json.loads((tmp_path / "store" / "manifest.json").read_text())["skipped"]
    }
    for name in ("terabytes", "gigabytes", "large"):
        assert "more than --max-mb allows" in reasons[f"v/{name}.nii"]
    assert len(SliceStore.open(tmp_path / "store").volumes) >= 8


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_is_bounded_by_a_volume_whatever_their_number(tmp_path, head, save):
    """Three times the volumes, the same peak of the command and its workers together."""
    peaks = []
    for count in (3, 9):
        folder = tmp_path / f"v{count}"
        for number in range(count):
            voxels = head((96, 96, 80), seed=number)
            save(folder / f"p{number}_T1.nii", voxels, zooms=(2.0, 2.0, 2.0))
        command = ["slices", str(folder), "--out", str(tmp_path / f"s{count}"), "--workers", "2", "--quiet"]
        process = subprocess.Popen([sys.executable, "-m", "mri_transfer", *command], cwd=tmp_path)
        peak = 0
        while process.poll() is None:
            peak = max(peak, _resident(process.pid))
            time.sleep(0.02)
        assert process.returncode == 0
        peaks.append(peak)
    assert peaks[1] < 1.25 * peaks[0] + 30_000_000


def _resident(parent: int) -> int:
    """Bytes that a process and its children hold, pages that they share counted once."""
    total = 0
    children = Path(f"/proc/{parent}/task/{parent}/children")
    with contextlib.suppress(OSError):
        for number in (parent, *map(int, children.read_text().split())):
            for line in Path(f"/proc/{number}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += 1024 * int(line.split()[1])
    return total
