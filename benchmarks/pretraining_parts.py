"""Breakdown of a pretraining step's time and memory.

    python benchmarks/pretraining_parts.py STORE [--batch 64] [--steps 12]

Prints, from one run: the time waiting for data, the share of a step for making views, end-to-end views per second
beside a bare Keras step on batches ready in memory, and the run's peak memory. STORE is made by `mri-transfer slices`.
Ratios are medians over steps; run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil


def run_command(store: Path, batch: int, steps: int, recompute: str) -> tuple[list[dict], float]:
    """The real command in its own process: its metrics lines, and its peak memory in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "mri_transfer", "pretrain", str(store), "--out", str(out), "--quiet"]
        command += ["--steps", str(steps), "--batch", str(batch), "--recompute", recompute]
        process = subprocess.Popen(command)
        peak = 0.0
        while process.poll() is None:
            try:
                peak = max(peak, psutil.Process(process.pid).memory_info().rss)
            except psutil.NoSuchProcess:
                break
            time.sleep(0.01)
        if process.wait():
            raise SystemExit(f"{' '.join(command)} failed")
        lines = (out / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines], peak


def median_seconds(work, repeats: int = 5) -> float:
    """Median time of `work()`, after one compiling call."""
    work()
    times = []
    for _ in range(repeats):
        before = time.perf_counter()
        work()
        times.append(time.perf_counter() - before)
    return statistics.median(times)


def parts(store_folder: Path, batch: int) -> dict[str, float]:
    """Seconds of a step's parts, each alone: reading, views, and a training step without views."""
    from mri_transfer.machine import device

    device.prepare()
    import keras
    import numpy as np

    from mri_transfer.checkpoints.backbones import build_encoder
    from mri_transfer.datasets.store.store import SliceStore
    from mri_transfer.pretrain.augmentations.views import Views
    from mri_transfer.pretrain.methods import METHODS
    from mri_transfer.pretrain.pairs.positives import PairSampler

    store = SliceStore.open(store_folder)
    sampler = PairSampler(store, positives="adjacent", max_mm=6, batch=batch, seed=0)
    step = iter(range(10**9))
    reading = median_seconds(lambda: sampler(next(step)), repeats=20)

    ready = sampler(0)
    images = np.concatenate([ready["a"], ready["b"]])
    jit = device.jit_compile()
    views = keras.Sequential([keras.Input(images.shape[1:], dtype="uint8"), Views(store.size)])
    views.compile(jit_compile=jit)
    making = median_seconds(lambda: views.predict_on_batch(images))

    class NoViews(keras.layers.Layer):
        def call(self, x):
            return keras.ops.expand_dims(keras.ops.cast(x, "float32"), -1)

    bare = METHODS["simclr"].build(build_encoder("efficientnet_lite0", store.size, 0), NoViews())
    bare.compile(optimizer=keras.optimizers.AdamW(1e-3), jit_compile=jit)
    training = median_seconds(lambda: bare.train_on_batch(ready))
    return {"reading": reading, "views": making, "bare step": training}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--recompute", default="auto", choices=("auto", "always", "never"))
    arguments = parser.parse_args()

    metrics, peak = run_command(arguments.store, arguments.batch, arguments.steps, arguments.recompute)
    steady = metrics[1:] or metrics  # the first line includes compilation
    rate = statistics.median(line["views_per_second"] for line in steady)
    step = 2 * arguments.batch / rate
    alone = parts(arguments.store, arguments.batch)
    print(f"{arguments.batch} pairs a step, from one run")
    print(f"  views per second, end to end       {rate:8.1f}")
    print(f"  a bare Keras step, views ready     {2 * arguments.batch / alone['bare step']:8.1f}   "
          f"ratio {alone['bare step'] / step:.2f}")  # fmt: skip
    print(f"  waiting for data, share of a step  {max(line['data_wait'] for line in steady):8.2%}")
    print(f"  making views, share of a step      {alone['views'] / step:8.1%}")
    print(f"  reading slices                     {2 * arguments.batch / alone['reading']:8.0f} slices/s")
    print(f"  peak memory                        {peak / 1e9:8.2f} GB")


if __name__ == "__main__":
    main()
