"""Compares methods, with every kind of positives, at equal CPU time, from several seeds.

    python benchmarks/methods.py STORE TUMORS --out results [--cpu-seconds 240] [--seeds 3]

Each trial is a run of `mri-transfer pretrain` on one core. A method's step is timed first, in CPU time, which other
load hardly affects; the trial then gets as many steps as fit. It reports the verdict and free-label score of the run's
own health checks, and macro-F1 of a linear probe on the tumour set's development groups, the only ones that may guide a
choice. Trials are kept in OUT/trials.jsonl, so a stopped benchmark continues and new methods add only their own;
`--table` prints existing ones.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from development import Development

from mri_transfer.pretrain.methods import METHODS

ONE_CORE = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
CALIBRATION_STEPS = (3, 13)


def pretrain(a: argparse.Namespace, out: Path, steps: int, method: str, *options: str) -> float:
    """Run the command on one core; returns its CPU seconds."""
    command = [sys.executable, "-m", "mri_transfer", "pretrain", str(a.store), "--out", str(out), "--quiet"]
    command += ["--steps", str(steps), "--batch", str(a.pairs), "--size", str(a.size), "--method", method]
    process = subprocess.Popen(
        [*command, *options], env=os.environ | ONE_CORE | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 2):  # 2: ended early, which is a result
        raise SystemExit(f"{' '.join(command)} failed")
    return usage.ru_utime + usage.ru_stime


def steps_of(a: argparse.Namespace, method: str) -> int:
    """Steps of a method that fit into the CPU time, measured once and kept."""
    file = a.out / "steps.json"
    step_seconds = json.loads(file.read_text()) if file.is_file() else {}
    key = f"{method} {a.pairs} {a.size}"
    if key not in step_seconds:
        seconds = []
        for steps in CALIBRATION_STEPS:
            out = a.out / "calibration"
            shutil.rmtree(out, ignore_errors=True)
            seconds.append(pretrain(a, out, steps, method))
        step_seconds[key] = (seconds[1] - seconds[0]) / (CALIBRATION_STEPS[1] - CALIBRATION_STEPS[0])
        file.write_text(json.dumps(step_seconds, indent=1))
        print(f"{method}: {step_seconds[key]:.2f} s of one core a step", flush=True)
    return max(1, round(a.cpu_seconds / step_seconds[key]))


def trial(a: argparse.Namespace, development: Development, key: dict[str, Any], steps: int) -> dict[str, Any]:
    """One trained and scored encoder."""
    out = a.out / "runs" / "-".join(str(value).replace(":", "_") for value in key.values())
    shutil.rmtree(out, ignore_errors=True)
    options = ["--positives", key["positives"], "--init", key["init"], "--seed", str(key["seed"])]
    seconds = pretrain(a, out, steps, key["method"], *options, "--keep-going")
    summary = json.loads((out / "summary.json").read_text())
    health = summary["health"]
    result = {
        **key,
        "cpu_seconds": a.cpu_seconds,
        "steps": steps,
        "cpu_seconds_taken": round(seconds),
        "state": health["state"],
        "sentence": health["sentence"],
        "free_labels_start": health["start"].get("score"),
        "free_labels": health["end"].get("score"),
        "rankme": health["end"].get("rankme"),
        "spread": health["end"].get("spread"),
        "probe": development.score_of_run(out),
    }
    if not a.keep:
        shutil.rmtree(out)
    return result


def table(trials: list[dict[str, Any]]) -> str:
    """Means and ranges over seeds, as Markdown."""
    lines = [
        "| start | method | positives | seeds | health | free labels (start) | effective rank | probe, macro-F1 |",
        "|---|---|---|---|---|---|---|---|",
    ]

    def key(t: dict[str, Any]) -> tuple:
        return t["init"], t["method"], t["positives"]

    for (init, method, positives), group in itertools.groupby(sorted(trials, key=key), key):
        rows = list(group)

        def middle(name: str, rows: list[dict[str, Any]] = rows) -> str:
            values = [row[name] for row in rows if row[name] is not None]
            if not values:
                return "–"
            mean = statistics.mean(values)
            return f"{mean:.3f} ({min(values):.3f}–{max(values):.3f})" if name != "rankme" else f"{mean:.0f}"

        counts = sorted(Counter(row["state"] for row in rows).items())
        states = "; ".join(state if len(counts) == 1 else f"{state} ({n})" for state, n in counts)
        start = statistics.mean(row["free_labels_start"] or 0 for row in rows)
        lines.append(
            f"| {init} | {method} | {positives} | {len(rows)} | {states} | {middle('free_labels')} ({start:.3f}) | "
            f"{middle('rankme')} | {middle('probe')} |"
        )
    return "\n".join(lines)


def differences(trials: list[dict[str, Any]]) -> str:
    """Pairwise comparison of positives: mean probe difference over the same starts, methods and seeds."""
    probe = {(t["init"], t["method"], t["seed"], t["positives"]): t["probe"] for t in trials}
    runs = sorted({key[:3] for key in probe})
    lines = []
    for a, b in itertools.combinations(sorted({key[3] for key in probe}), 2):
        gaps = [probe[(*run, a)] - probe[(*run, b)] for run in runs if {(*run, a), (*run, b)} <= set(probe)]
        if len(gaps) > 1:
            mean, error = statistics.mean(gaps), statistics.stdev(gaps) / len(gaps) ** 0.5
            lines.append(f"{a} less {b}: {mean:+.4f}, standard error {error:.4f}, {len(gaps)} pairs")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("tumors", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cpu-seconds", type=float, default=240)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument(
        "--positives", default="same adjacent sequence", help="kinds or mixtures, with blanks between"
    )
    parser.add_argument("--init", default="random,imagenet")
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--jobs", type=int, default=2, help="trials at once, a core each")
    parser.add_argument("--keep", action="store_true", help="keep the folders of the runs, to look at them")
    parser.add_argument(
        "--table", action="store_true", help="only print the table of the trials that are there"
    )
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    file = a.out / "trials.jsonl"
    trials = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    if not a.table:
        development = Development(a.tumors, a.size, a.out / "cache")
        keys = [
            {"method": method, "positives": positives, "init": init, "seed": seed}
            for seed in range(a.seeds)
            for init in a.init.split(",")
            for positives in a.positives.split()
            for method in a.methods.split(",")
        ]
        missing = [key for key in keys if not any(key.items() <= record.items() for record in trials)]
        steps = {method: steps_of(a, method) for method in dict.fromkeys(key["method"] for key in missing)}
        with ThreadPoolExecutor(a.jobs) as pool:
            for result in pool.map(lambda key: trial(a, development, key, steps[key["method"]]), missing):
                trials.append(result)
                with file.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(result) + "\n")
                print(f"{len(trials)} of {len(keys)}: {json.dumps(result)}", flush=True)
    print(table(trials))
    print(differences(trials))


if __name__ == "__main__":
    main()
