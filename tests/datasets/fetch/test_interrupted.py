"""The client is killed at random moments while the server misbehaves: what is unpacked is the same, byte for byte."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

# IXI's published checksums are those of the real archives; the process gets those of the small ones.
PROGRAM = """
import dataclasses, json, sys
from mri_transfer.datasets.fetch.sources import IXI_ARCHIVES
for kind, md5 in json.loads(sys.argv[1]).items():
    IXI_ARCHIVES[kind] = dataclasses.replace(IXI_ARCHIVES[kind], md5=md5)
from mri_transfer.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture
def start(site, small, tmp_path):
    """Start the command in a process of its own."""

    def run(*more):
        arguments = ["fetch", *small.arguments, "--out", str(tmp_path / "out"), "--mirror", site.url]
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps(small.md5), *arguments, *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return run


def misbehave(seed: int):
    """Most requests go wrong in some way that may pass."""
    random_ = random.Random(seed)
    actions = [
        *[("drop", size) for size in (0, 9_000, 30_000, 70_000)],
        *[("status", 503), ("status", 429, ("Retry-After", "0")), ("status", 500)],
        *[("ignore-range",), ("wrong-range",), ("chunked",), ("lie", 4000)],
        *[None] * 8,
    ]
    return lambda path, number: random_.choice(actions)


def assert_no_wrong_file(files: dict[str, bytes], expected: dict[str, bytes]) -> None:
    """Whatever has its final name has its final content."""
    for name, body in files.items():
        if name in expected:
            assert body == expected[name], name
        else:
            assert name.endswith((".part", ".part.json", ".tar", ".gz", ".zip")), name


@pytest.mark.slow
def test_killed_again_and_again_the_result_is_the_same(start, site, small, tmp_path, content_of):
    random_ = random.Random(small.name)
    site.rule = misbehave(seed=1)
    site.pause = 0.004
    kills, whole = 0, False
    while kills < 20 or not whole:
        process = start("--parallel", str(random_.choice((1, 3))), "--retries", "30")
        patience = random_.uniform(0.25, 1.3) if kills < 20 else 120.0
        try:
            output, _ = process.communicate(timeout=patience)
            assert process.returncode == 0, output
            assert content_of(tmp_path / "out") == small.expected, output
            whole = True
            if kills < 20:  # begin again: some of it is lost
                names = sorted(small.expected)
                for name in random_.sample(names, len(names) // 2):
                    (tmp_path / "out" / name).unlink()
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills, whole = kills + 1, False
            assert_no_wrong_file(
                content_of(tmp_path / "out") if (tmp_path / "out").exists() else {}, small.expected
            )
    assert content_of(tmp_path / "out") == small.expected
    assert not list((tmp_path / "out").rglob("*.part*"))
    site.rule = lambda path, number: None
    before = len(site.requests)
    process = start()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert [path for method, path, _ in site.requests[before:] if method == "GET" and path != "/"] == []


@pytest.mark.parametrize("small", ["openneuro"], indirect=True)
def test_ctrl_c_ends_at_once_though_the_server_says_nothing(start, site, small, tmp_path, content_of):
    site.rule = lambda path, number: ("stall", 5000, 60.0) if path.endswith("_T1w.nii.gz") else None
    process = start()
    while not any(path.endswith("_T1w.nii.gz") for _, path, _ in site.requests):
        time.sleep(0.02)
        assert process.poll() is None, process.communicate()
    time.sleep(0.2)
    start_time = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert time.monotonic() - start_time < 5
    assert process.returncode == 130
    assert "run the same command again to continue" in output
    assert "Traceback" not in output
    site.rule = lambda path, number: None
    process = start()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert content_of(tmp_path / "out") == small.expected
