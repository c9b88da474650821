"""Pretraining's views per second with one and two processes, bytes sent per step, and eight GPUs on paper.

    python benchmarks/scaling.py STORE [--pairs 64] [--size 96] [--minutes 5] [--rounds 3]
    python benchmarks/scaling.py STORE --paper [--gpus 8]

Measured: the command itself on JAX, with one process on all cores, one on a single core, and two on a core each, at the
same global batch. The overhead of two processes is their step time beyond that of one process on one core with half of
the batch, which computes as much as each of them: sending, waiting for one another, and work that can't be split. The
contenders take turns; figures are medians over rounds.

On paper: the collective operations of a step are those of the program that XLA compiles for two devices, read from its
dump. A ring sends 2 (n - 1) / n of the summed bytes over every link, and each operation also takes a start-up time:
https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md. Needs the extra `[jax]`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

# GB/s in one direction: PCI-SIG (16 lanes of 16 GT/s), NVIDIA's data sheets of A100 (600 GB/s both ways) and of H100
# (900), and the names of the two networks.
LINKS = {
    "1 Gbit/s Ethernet": 0.125,
    "10 Gbit/s Ethernet": 1.25,
    "PCIe 4.0 x16": 31.5,
    "NVLink of A100": 300.0,
    "NVLink of H100": 450.0,
}
# Seconds to start an operation between GPUs of one machine, and between machines; an estimate.
START_SECONDS = {"1 Gbit/s Ethernet": 100e-6, "10 Gbit/s Ethernet": 50e-6}
START_WITHIN = 10e-6
BYTES = {"f32": 4, "s32": 4, "u32": 4, "u8": 1, "pred": 1, "bf16": 2, "f16": 2, "s64": 8, "u64": 8}
OPERATION = re.compile(
    r"= (.+?) (all-reduce|all-gather|collective-permute|all-to-all|reduce-scatter)(?:-start)?\("
)


def start(
    a: argparse.Namespace, out: Path, options: Sequence[object], cores: set[int], **environment: str
) -> subprocess.Popen:
    """The command on given cores, with JAX."""
    words = [sys.executable, "-m", "mri_transfer", "pretrain", a.store, "--out", out, "--size", a.size]
    words += ["--quiet", "--keep-going", "--precision", "float32", *options]
    return subprocess.Popen(
        [str(word) for word in words],
        env={**os.environ, "KERAS_BACKEND": "jax", **environment},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )


def finish(*processes: subprocess.Popen) -> None:
    for process in processes:
        if process.wait():
            raise SystemExit(f"{process.args} failed")


def step_seconds(a: argparse.Namespace, out: Path, pairs: int, groups: Sequence[set[int]]) -> float:
    """Step time with a process per group of cores; the median of a run's five-second reports."""
    options: list[object] = ["--minutes", a.minutes, "--batch", pairs]
    if len(groups) > 1:
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"127.0.0.1:{server.getsockname()[1]}"
        options += ["--coordinator", address, "--processes", len(groups)]
    numbers: list[list[object]] = [["--process", i] if len(groups) > 1 else [] for i in range(len(groups))]
    finish(
        *(start(a, out, [*options, *number], cores) for number, cores in zip(numbers, groups, strict=True))
    )
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steady = [line["views_per_second"] for line in lines[1:]]
    if not steady:
        raise SystemExit("too short for a report after the first: give more --minutes or fewer --pairs")
    return 2 * pairs / statistics.median(steady)


def measure(a: argparse.Namespace) -> None:
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise SystemExit("needs two cores")
    first, second = {cores[0]}, {cores[1]}
    contenders = {
        "one process, two cores": (a.pairs, [{*cores}]),
        "one process, one core": (a.pairs, [first]),
        "two processes, a core each": (a.pairs, [first, second]),
        "half the batch, one core": (a.pairs // 2, [first]),
    }
    timings: dict[str, list[float]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(a.rounds):
            for name, (pairs, groups) in contenders.items():
                timings[name].append(step_seconds(a, Path(folder) / f"{name}-{number}", pairs, groups))
                print(f"round {number + 1}: {name:28} {timings[name][-1]:6.3f} s a step", flush=True)
    median = {name: statistics.median(seconds) for name, seconds in timings.items()}
    one_core = median["one process, one core"]
    print(f"\n{a.pairs} pairs of {a.size} px, float32, JAX on a processor; medians of {a.rounds} rounds")
    for name, (pairs, _) in contenders.items():
        rate, gain = 2 * pairs / median[name], one_core / median[name] * pairs / a.pairs
        print(f"  {name:28} {rate:7.1f} views/s, {gain:4.2f} times one core")
    extra = median["two processes, a core each"] - median["half the batch, one core"]
    share = extra / median["two processes, a core each"]
    print(f"  being two costs {1000 * extra:.0f} ms a step, {share:.0%} of it")


def collectives(a: argparse.Namespace, folder: Path) -> list[tuple[str, int]]:
    """Kind and bytes of every collective operation in a two-device step."""
    flags = f"--xla_force_host_platform_device_count=2 --xla_dump_to={folder} --xla_dump_hlo_as_text"
    options = ["--steps", 1, "--batch", a.pairs]
    finish(start(a, folder / "run", options, os.sched_getaffinity(0), XLA_FLAGS=flags))
    programs = [path.read_text() for path in folder.glob("*after_optimizations.txt")]
    steps = [text for text in programs if "num_partitions=2" in text]
    if not steps:
        raise SystemExit("XLA has dumped no program for two devices")
    operations = []
    for shapes, kind in OPERATION.findall(max(steps, key=len)):
        sizes = (
            BYTES.get(kind_of, 4) * math.prod(int(n) for n in sides.split(",") if n)
            for kind_of, sides in re.findall(r"([a-z]+\d*)\[([\d,]*)\]", shapes)
        )
        operations.append((kind, sum(sizes)))
    return operations


def paper(a: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        operations = collectives(a, Path(folder))
    for kind in dict.fromkeys(kind for kind, _ in operations):
        sizes = [size for other, size in operations if other == kind]
        print(f"  {kind:20} {len(sizes):4} operations, {sum(sizes) / 1e6:8.3f} MB")
    total = sum(size for _, size in operations)
    share = 2 * (a.gpus - 1) / a.gpus
    print(f"on {a.gpus} GPUs, a ring: {share:.2f} of {total / 1e6:.1f} MB over each link")
    for name, rate in LINKS.items():
        sending = share * total / (rate * 1e9)
        starting = len(operations) * START_SECONDS.get(name, START_WITHIN)
        print(f"  {name:20} {1e3 * sending:8.2f} ms to send, {1e3 * starting:6.2f} ms to start operations")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("--pairs", type=int, default=64, help="in a global batch, an even number")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument(
        "--minutes", type=float, default=5.0, help="compiling included, of each contender in each round"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--paper", action="store_true", help="only count what a step sends")
    parser.add_argument("--gpus", type=int, default=8)
    a = parser.parse_args()
    paper(a) if a.paper else measure(a)


if __name__ == "__main__":
    main()
