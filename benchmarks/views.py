"""Cost of making views, part by part, beside lightly's transforms, on one core.

    python benchmarks/views.py STORE [--size 160] [--lightly PYTHON]

Prints CPU time per view, which other load hardly affects: of all augmentations together, and of each part alone. With
`--lightly`, an interpreter with lightly, its SimCLR transform is measured in the same run on the same slices, unchanged
and configured closest to ours for grey pictures. STORE is made by `mri-transfer slices`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

BATCH = 128
PARTS = {
    "crop, stretch, rotation, flip": ("crop", "stretch", "rotation", "flip"),
    "blur, resolution": ("blur", "resolution"),
    "bias, gamma, contrast, brightness": ("bias", "gamma", "contrast", "brightness"),
}

LIGHTLY = """
import json, sys, time
import numpy as np, torch
from PIL import Image
from lightly.transforms.simclr_transform import SimCLRTransform
torch.set_num_threads(1)
pictures = [Image.fromarray(each).convert("RGB") for each in np.load(sys.argv[1])]
grey = dict(cj_sat=0.0, cj_hue=0.0, random_gray_scale=0.0, rr_prob=1.0, rr_degrees=25, min_scale=0.35)
found = {}
for name, options in {"lightly's defaults": {}, "lightly, for grey pictures": grey}.items():
    transform = SimCLRTransform(input_size=int(sys.argv[2]), **options)
    times = []
    for _ in range(4):
        before = time.process_time()
        for picture in pictures:
            transform(picture)  # two views
        times.append((time.process_time() - before) / (2 * len(pictures)))
    found[name] = min(times)
print(json.dumps(found))
"""


def seconds_a_view(images: np.ndarray, size: int, strengths: dict[str, float]) -> float:
    """CPU seconds, the minimum over several batches: the rest is other load."""
    from mri_transfer.machine import device
    from mri_transfer.pretrain.augmentations.views import Views

    make: Callable = Views(size, strengths=strengths)
    if device.prepare() == "tensorflow":
        import tensorflow as tf

        make = tf.function(make, jit_compile=False)
    else:
        import jax

        # The seed generator's state is a variable; here each call draws the same numbers.
        make = jax.jit(lambda x, make=make: make.apply(x, make.draw(len(x))))
    times = []
    for _ in range(6):
        before = time.process_time()
        np.asarray(make(images))
        times.append(time.process_time() - before)
    return min(times) / len(images)


def lightly_seconds(python: str, images: np.ndarray, size: int) -> dict[str, float]:
    """The same for lightly, in its own interpreter."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "slices.npy"
        np.save(file, images)
        command = [python, "-c", LIGHTLY, str(file), str(size)]
        process = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(process.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("--size", type=int, help="side of the views in pixels (default: that of the store)")
    parser.add_argument("--lightly", metavar="PYTHON", help="an interpreter that has lightly installed")
    arguments = parser.parse_args()
    # Before TensorFlow or JAX is imported.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ[name] = "1"
    from mri_transfer.datasets.store.store import SliceStore
    from mri_transfer.pretrain.augmentations.table import NAMES

    store = SliceStore.open(arguments.store)
    size = arguments.size or store.size
    images = store.images(np.random.default_rng(0).integers(0, len(store), BATCH))
    ours = seconds_a_view(images, size, {})
    print(f"views of {size} px from slices of {store.size} px, a batch of {BATCH}, one core")
    print(f"{'all augmentations':36s} {1e3 * ours:6.3f} ms a view, {1 / ours:5.0f} views/s")
    grouped = {name for names in PARTS.values() for name in names}
    parts = PARTS | {name: (name,) for name in NAMES if name not in grouped}
    for name, names in parts.items():
        alone = seconds_a_view(images, size, {other: 0.0 for other in NAMES if other not in names})
        print(f"  {name:34s} {1e3 * alone:6.3f} ms")
    if arguments.lightly:
        for name, theirs in lightly_seconds(arguments.lightly, images, size).items():
            print(f"{name:36s} {1e3 * theirs:6.3f} ms a view: {theirs / ours:.2f} times ours")


if __name__ == "__main__":
    main()
