"""Pretraining's views per second, end to end from slices on disk, beside lightly's SimCLR.

    python benchmarks/pretrain.py STORE [--pairs 32] [--size 160] [--threads 2] [--rounds 3] [--minutes 1]

Same network (EfficientNet-Lite0; timm's `tf_efficientnet_lite0`), resolution, batch, thread count and precision
(float32). The contenders take turns, each in its own process, so that other load affects all alike; figures are medians
over rounds. Ours is the command itself, with its health checks and saves. lightly runs as its documentation shows, and
again with PyTorch's channels-last layout, which it doesn't set itself; each with as many loader processes as threads.
Memory is the peak sum of resident sets over a contender's processes. Needs the extras `[bench]` and `[peers]`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent


def resident(process: psutil.Process) -> int:
    """Resident bytes of a process and its children; shared pages count once, with the parent."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            memory = member.memory_full_info() if member.pid != process.pid else None
            total += memory.uss if memory else member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def watched(command: list[str], threads: int) -> float:
    """Run a command on `threads` threads; returns its peak memory in bytes."""
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "TF_NUM_INTRAOP_THREADS": str(threads),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        try:
            peak = max(peak, resident(psutil.Process(process.pid)))
        except psutil.NoSuchProcess:
            break
        time.sleep(0.2)
    if process.wait():
        raise SystemExit(f"{' '.join(command)} failed")
    return float(peak)


def ours(a: argparse.Namespace, folder: Path) -> tuple[float, float]:
    """Views per second, and peak memory in bytes, of `mri-transfer pretrain`."""
    out = folder / f"ours-{time.monotonic_ns()}"
    command = [sys.executable, "-m", "mri_transfer", "pretrain", str(a.store), "--out", str(out), "--quiet"]
    command += ["--minutes", str(a.minutes), "--batch", str(a.pairs), "--size", str(a.size), "--keep-going"]
    peak = watched([*command, *a.ours], a.threads)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return statistics.median(line["views_per_second"] for line in lines[1:]), peak


def lightlys(a: argparse.Namespace, folder: Path, *options: str) -> tuple[float, float]:
    """The same for lightly."""
    out = folder / f"lightly-{time.monotonic_ns()}.json"
    command = [sys.executable, str(HERE / "lightly_simclr.py"), str(a.store), "--out", str(out)]
    command += ["--minutes", str(a.minutes), "--pairs", str(a.pairs), "--size", str(a.size)]
    command += ["--threads", str(a.threads), "--workers", str(a.threads), *options]
    peak = watched(command, a.threads)
    return json.loads(out.read_text())["views_per_second"], peak


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=1.0, help="of each contender in each round")
    parser.add_argument("ours", nargs="*", help="after --: further options of `mri-transfer pretrain`")
    a = parser.parse_args()
    contenders = {
        "ours": lambda folder: ours(a, folder),
        "lightly": lambda folder: lightlys(a, folder),
        "lightly, channels last": lambda folder: lightlys(a, folder, "--channels-last"),
    }
    measurements: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(a.rounds):
            for name, run in contenders.items():
                measurements[name].append(run(Path(folder)))
                rate, peak = measurements[name][-1]
                print(f"round {number + 1}: {name:24} {rate:7.1f} views/s {peak / 1e9:6.2f} GB", flush=True)
    print(f"\n{a.pairs} pairs of {a.size} px, {a.threads} threads, float32; medians of {a.rounds} rounds")
    our_rate = statistics.median(rate for rate, _ in measurements["ours"])
    for name, results in measurements.items():
        rate = statistics.median(rate for rate, _ in results)
        peak = max(peak for _, peak in results)
        print(
            f"  {name:24} {rate:7.1f} views/s, {peak / 1e9:5.2f} GB, ours is {our_rate / rate:.2f} times as fast"
        )


if __name__ == "__main__":
    main()
