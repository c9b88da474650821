"""A disk that is really full, at every moment: one clear line, nothing lost, and the same command continues."""

from __future__ import annotations

import os

import pytest

from mri_transfer.datasets.fetch import archives, openneuro, unpack
from mri_transfer.datasets.fetch.transfer import transport


@pytest.fixture
def disk(small_disk):
    """A file system of 1 MiB, and a way to leave so many KiB free on it."""
    place = small_disk("1m")
    filler = place / "filler"

    def leave(kib: int | None) -> None:
        filler.unlink(missing_ok=True)
        if kib is not None:
            used = os.statvfs(place)
            free = used.f_bavail * used.f_frsize // 1024
            filler.write_bytes(bytes(max(0, free - kib) * 1024))

    leave.place = place
    return leave


@pytest.fixture
def run(cli, site, small, published, disk):
    published(small.md5)

    def start(*more):
        out = disk.place / "out"
        return cli("fetch", *small.arguments, "--out", out, "--mirror", site.url, "--retries", 2, *more)

    return start


def test_a_disk_too_small_is_noticed_before_anything_is_fetched(run, small, disk, site, content_of):
    disk(60)
    done = run()
    assert done.returncode == 2
    line = done.stderr.strip().splitlines()[-1]
    assert "needs" in line
    assert "free some" in line
    data = [path for method, path, _ in site.requests if method == "GET" and path != "/"]
    assert data == []
    disk(None)
    assert run().returncode == 0
    assert content_of(disk.place / "out") == small.expected


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
def test_the_disk_is_full_at_any_moment(run, small, disk, monkeypatch, content_of, kib):
    """As if something else had filled it after the space was checked."""
    for module in (archives, openneuro, transport, unpack):
        monkeypatch.setattr(module, "need_space", lambda *_: None)
    disk(kib)
    done = run("--parallel", 1)
    if done.returncode:
        assert done.returncode == 2
        line = done.stderr.strip().splitlines()[-1]
        assert "no space left on the device" in line
        assert str(disk.place) in line
        out = disk.place / "out"
        for name, body in content_of(out).items() if out.exists() else ():
            assert body == small.expected.get(name, body), name
    disk(None)
    done = run()
    assert done.returncode == 0, done.stderr
    assert content_of(disk.place / "out") == small.expected
