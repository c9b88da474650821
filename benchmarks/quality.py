"""Time to quality beside lightly's SimCLR: who reaches a probe score first?

    python benchmarks/quality.py STORE TUMORS --out results [--init imagenet] [--minutes 8] [--seeds 1]

lightly trains for the given minutes in two sensible settings (its own transform with 32 pairs and PyTorch's default
layout; a transform for grey slices with 64 pairs and the channels-last layout). The score is macro-F1 of a linear probe
on the tumour set's development groups. Ours gets a half, a quarter and an eighth of that time, each with its own
schedule, everything included; if it scores at least as well as lightly's better setting, it is that many times as fast.
All use random weights, the same slices, size and two threads; one process at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

from development import Development
from lightly_simclr import features

HERE = Path(__file__).resolve().parent
LIGHTLY = {
    "lightly, its transform, 32 pairs": ["--setting", "default", "--pairs", "32"],
    "lightly, for grey, 64 pairs, channels last": ["--setting", "grey", "--pairs", "64", "--channels-last"],
}
PARTS = (2, 4, 8)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("tumors", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8.0, help="that lightly has")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--init", choices=("random", "imagenet"), default="random")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parts", default=",".join(map(str, PARTS)), help="ours has 1/PART of the minutes")
    parser.add_argument(
        "--ours",
        type=shlex.split,
        default=[],
        help='further options of `mri-transfer pretrain`: "--batch 32"',
    )
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "OMP_NUM_THREADS": str(a.threads),
        "TF_NUM_INTRAOP_THREADS": str(a.threads),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    development = Development(a.tumors, a.size, a.out / "cache")
    file = a.out / "quality.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []

    def keep(name: str, seed: int, minutes: float, score: float) -> None:
        records.append({"name": name, "seed": seed, "minutes": minutes, "score": score})
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(records[-1]) + "\n")
        print(f"seed {seed}: {name:44} {minutes:5.2f} min: {score:.3f}", flush=True)

    def is_done(name: str, seed: int, minutes: float) -> bool:
        return any((k["name"], k["seed"], k["minutes"]) == (name, seed, minutes) for k in records)

    for seed in range(a.seeds):
        for name, options in LIGHTLY.items():
            if is_done(name, seed, a.minutes):
                continue
            weights = a.out / f"lightly-{seed}-{len(records)}.pt"
            command = [sys.executable, str(HERE / "lightly_simclr.py"), str(a.store), "--seed", str(seed)]
            command += ["--init", a.init, "--size", str(a.size), "--minutes", str(a.minutes)]
            command += ["--weights", str(weights)]
            command += ["--threads", str(a.threads), "--workers", str(a.threads), *options]
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
            keep(name, seed, a.minutes, development.score(features(weights, development.images, a.init)))
        for factor in map(float, a.parts.split(",")):
            if is_done("ours", seed, a.minutes / factor):
                continue
            out = a.out / f"ours-{seed}-{factor:g}"
            command = [sys.executable, "-m", "mri_transfer", "pretrain", str(a.store), "--out", str(out)]
            command += ["--quiet", "--keep-going", "--size", str(a.size), "--seed", str(seed)]
            command += ["--minutes", str(a.minutes / factor), "--init", a.init, *a.ours]
            subprocess.run(command, env=environment, check=True)
            keep("ours", seed, a.minutes / factor, development.score_of_run(out))

    def mean(name: str, minutes: float) -> float:
        scores = [k["score"] for k in records if (k["name"], k["minutes"]) == (name, minutes)]
        return sum(scores) / len(scores)

    best = max(mean(name, a.minutes) for name in LIGHTLY)
    print(f"\nlightly's better setting reaches {best:.3f} in {a.minutes:g} minutes, mean of {a.seeds} seeds")
    for factor in map(float, a.parts.split(",")):
        score = mean("ours", a.minutes / factor)
        verdict = f"at least {factor:g} times as fast" if score >= best else "not there yet"
        print(f"  ours in {a.minutes / factor:5.2f} minutes: {score:.3f}, {verdict}")


if __name__ == "__main__":
    main()
