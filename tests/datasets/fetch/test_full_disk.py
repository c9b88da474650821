"""A disk that is really full, at every moment: one clear line, nothing lost, and the same command continues."""

from __future__ import annotations

import os
import subprocess

import pytest

from mri_transfer.datasets.fetch import archives, openneuro, unpack
from mri_transfer.datasets.fetch.transfer import transport


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB, and a way to leave so many KiB free on it."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command to make a small disk with")
    if done.returncode:
        pytest.skip(f"a small disk can't be mounted here: {done.stderr.strip()}")
    filler = place / "filler"

    def leave(kib: int | None) -> None:
        filler.unlink(missing_ok=True)
        if kib is not None:
            used = os.statvfs(place)
            free = used.f_bavail * used.f_frsize // 1024
            filler.write_bytes(bytes(max(0, free - kib) * 1024))

    leave.place = place
    yield leave
    subprocess.run(["umount", "-l", str(place)], check=False)


@pytest.fixture
def run(cli, site, small, published, small_disk):
    published(small.md5)

    def start(*more):
        out = small_disk.place / "out"
        return cli("fetch", *small.arguments, "--out", out, "--mirror", site.url, "--retries", 2, *more)

    return start


def test_a_disk_too_small_is_noticed_before_anything_is_fetched(run, small, small_disk, site, content_of):
    small_disk(60)
    done = run()
    assert done.returncode == 2
    line = done.stderr.strip().splitlines()[-1]
    assert "needs" in line
    assert "free some" in line
    data = [path for method, path, _ in site.requests if method == "GET" and path != "/"]
    assert data == []
    small_disk(None)
    assert run().returncode == 0
    assert content_of(small_disk.place / "out") == small.expected


@pytest.mark.parametrize(
    "kib",
    [
        0,
        12,
        80,
        *(pytest.param(kib, marks=pytest.mark.slow) for kib in (4, 8, 20, 40, 60, 120, 150, 180, 220)),
    ],
)
@pytest.mark.parametrize("small", ["ixi", "openneuro", "tumors"], indirect=True)
def test_the_disk_is_full_at_any_moment(run, small, small_disk, monkeypatch, content_of, kib):
    """As if something else had filled it after the space was checked."""
    for module in (archives, openneuro, transport, unpack):
        monkeypatch.setattr(module, "need_space", lambda *_: None)
    small_disk(kib)
    done = run("--parallel", 1)
    if done.returncode:
        assert done.returncode == 2
        line = done.stderr.strip().splitlines()[-1]
        assert "no space left on the device" in line
        assert str(small_disk.place) in line
        out = small_disk.place / "out"
        for name, body in content_of(out).items() if out.exists() else ():
            assert body == small.expected.get(name, body), name
    small_disk(None)
    done = run()
    assert done.returncode == 0, done.stderr
    assert content_of(small_disk.place / "out") == small.expected
