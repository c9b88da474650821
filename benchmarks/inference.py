"""Latency of one image and images per second of each export, beside Keras, in one run.

    python benchmarks/inference.py RUN --images FOLDER [--threads 2] [--rounds 5]

RUN is a classifier made by `mri-transfer finetune`. Every format is exported first, which also checks its agreement
with Keras; then all take turns, image by image and in batches of 32; it prints medians over rounds with the ratio to
Keras. LiteRT takes one image at a time, so its throughput is for single images. Needs the extra `[export]`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mri_transfer.errors import UserError
from mri_transfer.machine import device

SINGLE, BATCH = 20, 32


def seconds(run: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> float:
    """Duration of one call."""
    began = time.perf_counter()
    run(images)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    a = parser.parse_args()

    device.prepare()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(a.threads)
    from mri_transfer.finetune.export import litert, onnx, saved_model
    from mri_transfer.finetune.export.conversion import export_run, sample_images
    from mri_transfer.finetune.export.served import served

    model = served(a.run)
    images, _ = sample_images([a.images], model.size)
    keras = tf.function(model.function, input_signature=[model.signature(None)])
    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "Keras": lambda x: np.asarray(keras(x[..., None].astype(np.float32)))
    }
    size: dict[str, float] = {}
    top1: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "export"
        kinds = (("saved_model", False), ("litert", False), ("litert", True), ("onnx", False))
        for format, int8 in kinds:
            try:
                files = export_run(a.run, out, format=format, int8=int8, images=[a.images])["files"]
            except UserError as refused:  # it disagrees with Keras on these images
                print(refused)
                continue
            for entry in files:
                path, name = out / entry["file"], entry["what"]
                size[name], top1[name] = entry["bytes"] / 1e6, entry["agreement"]["top1"]
                if format == "saved_model":
                    ways[name] = saved_model.load(path)
                else:
                    ways[name] = (litert if format == "litert" else onnx).load(path, a.threads)
        for run in ways.values():
            run(images[:1])
            run(images[:BATCH])
        latencies: dict[str, list[float]] = {name: [] for name in ways}
        batch_seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(a.rounds):
            for name, run in ways.items():
                latencies[name].append(
                    statistics.median(seconds(run, images[i : i + 1]) for i in range(SINGLE))
                )
                batch_seconds[name].append(seconds(run, images[:BATCH]) / min(BATCH, len(images)))
    print(
        f"{model.size} px, {a.threads} threads, medians of {a.rounds} rounds, {len(images)} images compared"
    )
    print("| format | MB | same class as Keras | one image, ms | of Keras | images/s, batches | of Keras |")
    print("|---|---|---|---|---|---|---|")
    for name in ways:
        latency, rate = statistics.median(latencies[name]), 1 / statistics.median(batch_seconds[name])
        print(
            f"| {name} | {f'{size[name]:.1f}' if name in size else '–'} | "
            f"{f'{top1[name]:.1%}' if name in top1 else '–'} | {1000 * latency:.1f} | "
            f"{latency / statistics.median(latencies['Keras']):.2f} | {rate:.0f} | "
            f"{rate * statistics.median(batch_seconds['Keras']):.2f} |"
        )


if __name__ == "__main__":
    main()
