"""How fast volumes become slices, beside mere decompression and beside other libraries, in one run.

    python benchmarks/extraction.py FOLDER [--size 160] [--workers 2] [--peers]

Prints slices per second and peak memory (this process and all its children, as the kernel shares pages out among
them), the ratio to reading every volume with nibabel, and with `--peers` the ratios to MONAI and TorchIO where they
can be imported. All three do the same steps to the same volumes on one core: read, reorient to RAS, window by
foreground percentiles, isotropic pixels, pad to a square, resize the same slices with anti-aliasing, uint8.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import nibabel as nib
import numpy as np
from threadpoolctl import threadpool_limits

from mri_transfer.datasets.extract import SlicesConfig, extract
from mri_transfer.datasets.find import Source, find_volumes
from mri_transfer.datasets.intensity import PERCENTILES, find_window
from mri_transfer.datasets.slices import AXES, PLANES, cut, is_usable, keep
from mri_transfer.datasets.volumes import BadVolume, Volume, read_volume
from mri_transfer.device import cores
from mri_transfer.progress import set_quiet

SPACING, MIN_FOREGROUND = 4.0, 0.15


class PeakMemory:
    """Largest memory of this process and its descendants, sampled twenty times a second (Linux)."""

    def __init__(self) -> None:
        self.bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        import psutil

        me = psutil.Process()
        while not self._stop.wait(0.05):
            total = 0
            for process in (me, *me.children(recursive=True)):
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue  # it has just ended
            self.bytes = max(self.bytes, total)


def timed(work: Callable[[], int]) -> tuple[int, float]:
    """What `work` counts, and how many seconds it takes."""
    started = time.perf_counter()
    count = work()
    return count, time.perf_counter() - started


def wanted(volume: Volume) -> dict[str, list[int]]:
    """The slices that are kept of each plane, so that peers resize exactly those."""
    inside = find_window(volume.voxels).foreground(volume.voxels)
    usable = (plane for plane in PLANES if is_usable(volume, plane))
    return {plane: keep(volume, inside, plane, SPACING, MIN_FOREGROUND).tolist() for plane in usable}


def ours(sources: list[Source], size: int) -> int:
    count = 0
    for source in sources:
        try:
            count += len(cut(read_volume(source.files), size, SPACING, PLANES, MIN_FOREGROUND).images)
        except BadVolume:
            continue
    return count


def with_monai(sources: list[Source], chosen: list[dict[str, list[int]]], size: int) -> int:
    """MONAI: LoadImage, Orientation, ScaleIntensityRangePercentiles, then SpatialPad and Resize of whole stacks."""
    from monai import transforms
    from monai.data import MetaTensor

    load = transforms.Compose(
        [
            transforms.LoadImage(image_only=True, ensure_channel_first=True),
            transforms.Orientation("RAS", labels=None),
        ]
    )
    window = transforms.ScaleIntensityRangePercentiles(*PERCENTILES, 0, 255, clip=True)
    resize = transforms.Resize((size, size), mode="bilinear", anti_aliasing=True)
    count = 0
    for source, of_plane in zip(sources, chosen, strict=True):
        volume = window(load(source.path))
        zooms = np.asarray(volume.pixdim)
        voxels = volume.as_tensor() if isinstance(volume, MetaTensor) else volume
        for plane, indices in of_plane.items():
            across, down, along = AXES[plane]
            side = max(voxels.shape[1 + axis] * zooms[axis] for axis in (down, along))
            padded = [round(side / zooms[axis]) for axis in (down, along)]
            pad = transforms.SpatialPad(padded)
            stack = (
                voxels[0].permute(across, down, along).flip(1, 2)[indices]
            )  # slices in the place of channels
            resize(pad(stack)).round().clamp(0, 255).byte().numpy()
            count += len(indices)
    return count


def with_torchio(sources: list[Source], chosen: list[dict[str, list[int]]], size: int) -> int:
    """TorchIO: ToCanonical, RescaleIntensity, Resample of each plane to isotropic pixels, CropOrPad, Resize."""
    import torch
    import torchio as tio

    count = 0
    rescale = tio.RescaleIntensity((0, 255), percentiles=PERCENTILES)
    for source, of_plane in zip(sources, chosen, strict=True):
        image = rescale(tio.ToCanonical()(tio.ScalarImage(source.path)))
        zooms, shape = image.spacing, image.spatial_shape
        for plane, indices in of_plane.items():
            across, down, along = AXES[plane]
            side = max(shape[axis] * zooms[axis] for axis in (down, along))
            kept = tio.ScalarImage(
                tensor=image.data.index_select(1 + across, torch.tensor(indices)), affine=image.affine
            )
            pixel = side / size
            spacing, box = [0.0] * 3, [0] * 3
            spacing[across], spacing[down], spacing[along] = zooms[across], pixel, pixel
            box[across], box[down], box[along] = len(indices), size, size
            stack = tio.Resample(spacing, image_interpolation="linear", antialias=True)(kept)
            stack = tio.CropOrPad(tuple(box))(stack)
            stack.data.round().clamp(0, 255).byte().numpy()
            count += len(indices)
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of volumes")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--peers", action="store_true", help="compare with MONAI and TorchIO where installed")
    arguments = parser.parse_args()
    set_quiet(True)
    sources = find_volumes([arguments.folder]).sources

    def decompress() -> int:
        return sum(np.asanyarray(nib.load(source.path).dataobj).size > 0 for source in sources)

    decompress()  # so that every later reader finds the files in the page cache
    read, read_seconds = timed(decompress)
    print(f"{read} volumes read by nibabel in {read_seconds:.2f} s on one core")
    with tempfile.TemporaryDirectory() as folder, PeakMemory() as memory:
        config = SlicesConfig(
            (arguments.folder,), Path(folder) / "store", arguments.size, workers=arguments.workers
        )
        slices, seconds = timed(lambda: extract(config)["slices"])
    print(
        f"the command, {arguments.workers} workers, store and contact sheet included: {slices} slices in "
        f"{seconds:.2f} s, {slices / seconds:.0f} slices/s, {memory.bytes / 1e9:.2f} GB at most, "
        f"{seconds / read_seconds:.1f} times bare reading"
    )
    with threadpool_limits(1):
        slices, seconds = timed(lambda: ours(sources, arguments.size))
        print(
            f"one core, without writing: {slices / seconds:.0f} slices/s, {seconds / read_seconds:.1f} times reading"
        )
        if not arguments.peers:
            return
        usable = []
        for source in sources:
            try:
                usable.append((source, wanted(read_volume(source.files))))
            except BadVolume:
                continue
        for name, peer in (("MONAI", with_monai), ("TorchIO", with_torchio)):
            try:
                import torch

                torch.set_num_threads(1)
                count, took = timed(
                    lambda peer=peer: peer(*map(list, zip(*usable, strict=True)), arguments.size)
                )
            except ImportError as error:
                print(f"{name}: not measured ({error})")
                continue
            ratio = (slices / seconds) / (count / took)
            print(
                f"{name}, one core: {count} slices, {count / took:.0f} slices/s; ours is {ratio:.1f} times as fast"
            )


if __name__ == "__main__":
    main()
