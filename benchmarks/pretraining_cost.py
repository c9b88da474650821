"""Is the cost and memory of pretraining constant over stores of a thousand to a million slices?

    python benchmarks/pretraining_cost.py [--slices 1000,10000,100000,1000000] [--size 96] [--pairs 32] [--rounds 3]

The stores are sparse, as in `store.py`, so a million slices need no disk. Each run is `mri-transfer pretrain` itself,
in its own process, once with few steps and once with more: the difference of their CPU times is the cost of the extra
steps without start and end; the short run alone is the cost of a start. Sizes take turns in every round; it prints
medians, with the ratio to the smallest store.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from store import make_store

SHORT, LONG = 5, 30


class Cost(NamedTuple):
    """CPU seconds of a run, and its peak memory in bytes."""

    seconds: float
    peak: float


def run(store: Path, out: Path, steps: int, pairs: int) -> Cost:
    """Run the command for `steps` steps."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "mri_transfer", "pretrain", str(store), "--out", str(out), "--quiet"]
    command += ["--steps", str(steps), "--batch", str(pairs)]
    process = subprocess.Popen(command, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"})
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    unit = 1 if sys.platform == "darwin" else 1024
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slices", default="1000,10000,100000,1000000")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    a = parser.parse_args()
    counts = [int(count) for count in a.slices.split(",")]
    costs: dict[int, list[tuple[float, float, float]]] = {count: [] for count in counts}
    with tempfile.TemporaryDirectory() as folder:
        stores = {count: Path(folder) / f"store-{count}" for count in counts}
        for count, path in stores.items():
            make_store(path, count, a.size)
        for _ in range(a.rounds):
            for count, path in stores.items():
                short = run(path, Path(folder) / "run", SHORT, a.pairs)
                long = run(path, Path(folder) / "run", LONG, a.pairs)
                views = (LONG - SHORT) * 2 * a.pairs
                costs[count].append(((long.seconds - short.seconds) / views * 1e6, long.peak, short.seconds))
    print(f"{a.size} px, {a.pairs} pairs, processor time over all cores, medians of {a.rounds}")
    print(
        "| slices in the store | seconds per million views | ratio | peak memory | a run of 5 steps, whole |"
    )
    print("|---|---|---|---|---|")
    first = statistics.median(cost[0] for cost in costs[counts[0]])
    for count, rows in costs.items():
        seconds, peak, start = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"| {count:,} | {seconds:,.0f} | {seconds / first:.2f} | {peak / 1e9:.2f} GB | {start:.0f} s |")


if __name__ == "__main__":
    main()
