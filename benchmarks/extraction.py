"""Speed of slicing volumes, beside mere decompression and other libraries, in one run.

    python benchmarks/extraction.py FOLDER [--size 160] [--workers 2] [--peers]

The whole command is timed on a quarter, half and all of the volumes, with its peak memory (this process and all its
children, sharing pages as the kernel apportions them).

Then, on one core, every volume in turn is read with nibabel (the floor), cut by this project, and with `--peers` by
MONAI and TorchIO if installed. Total CPU times (all threads) are compared, taking turns, so that other load affects all
alike. All do the same steps to the same volume: read, reorient to RAS, window by percentiles, isotropic pixels, pad to
a square, resize the same slices with anti-aliasing, uint8. Ours also finds the foreground, chooses slices, and looks
for redundant ones; the others get the chosen slices. The similarity of the slices is printed, as a check that it is the
same work.
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

from mri_transfer.datasets.extraction.extract import SlicesConfig, extract
from mri_transfer.datasets.slices.content import scan_digest
from mri_transfer.datasets.slices.cut import cut, keep
from mri_transfer.datasets.slices.intensity import PERCENTILES, find_window
from mri_transfer.datasets.slices.redundancy import without_redundant
from mri_transfer.datasets.volumes.find import Source, find_volumes
from mri_transfer.datasets.volumes.planes import AXES, PLANES, is_usable
from mri_transfer.datasets.volumes.volume import BadVolume, Volume, read_volume
from mri_transfer.machine.device import cores
from mri_transfer.progress import set_quiet

SPACING, MIN_FOREGROUND = 4.0, 0.15

# Makes given slices of each plane of a volume, uint8 (n, size, size).
Peer = Callable[[Source, dict[str, list[int]]], np.ndarray]


class PeakMemory:
    """Peak memory of this process and its descendants, sampled twenty times a second (Linux)."""

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


def wanted(volume: Volume) -> dict[str, list[int]]:
    """The slices kept of each plane, so that peers resize exactly those."""
    inside = find_window(volume.voxels).foreground(volume.voxels)
    usable = (plane for plane in PLANES if is_usable(volume, plane))
    return {plane: keep(volume, inside, plane, SPACING, MIN_FOREGROUND).tolist() for plane in usable}


def ours(source: Source, size: int) -> np.ndarray:
    """What a worker does with a volume."""
    volume = read_volume(source.files, include=())
    scan_digest(volume.voxels)
    slices = cut(volume, size, SPACING, PLANES, MIN_FOREGROUND)
    without_redundant(slices, 0.97)
    return slices.images


def monai_pipeline(size: int) -> Peer:
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

    def run(source: Source, of_plane: dict[str, list[int]]) -> np.ndarray:
        volume = window(load(source.path))
        zooms = np.asarray(volume.pixdim)
        voxels = volume.as_tensor() if isinstance(volume, MetaTensor) else volume
        stacks = []
        for plane, indices in of_plane.items():
            across, down, along = AXES[plane]
            side = max(voxels.shape[1 + axis] * zooms[axis] for axis in (down, along))
            pad = transforms.SpatialPad([round(side / zooms[axis]) for axis in (down, along)])
            # Slices as channels.
            stack = voxels[0].permute(across, down, along).flip(1, 2)[indices]
            stacks.append(resize(pad(stack)).round().clamp(0, 255).byte().numpy())
        return np.concatenate(stacks)

    return run


def torchio_pipeline(size: int) -> Peer:
    """TorchIO: ToCanonical, RescaleIntensity, Resample of each plane's slices to isotropic pixels, CropOrPad."""
    import torch
    import torchio as tio

    rescale = tio.RescaleIntensity((0, 255), percentiles=PERCENTILES)

    def run(source: Source, of_plane: dict[str, list[int]]) -> np.ndarray:
        image = rescale(tio.ToCanonical()(tio.ScalarImage(source.path)))
        zooms, shape = image.spacing, image.spatial_shape
        stacks = []
        for plane, indices in of_plane.items():
            across, down, along = AXES[plane]
            pixel = max(shape[axis] * zooms[axis] for axis in (down, along)) / size
            # The chosen slices as a separate volume, on a grid that needs no resampling across them.
            volume = tio.ScalarImage(
                tensor=image.data.index_select(1 + across, torch.tensor(indices)),
                affine=np.diag([*zooms, 1.0]),
            )
            spacing, box = [0.0] * 3, [0] * 3
            spacing[across], spacing[down], spacing[along] = zooms[across], pixel, pixel
            box[across], box[down], box[along] = len(indices), size, size
            stack = tio.Resample(spacing, image_interpolation="linear", antialias=True)(volume)
            stack = tio.CropOrPad(tuple(box))(stack).data[0]
            stacks.append(stack.permute(across, down, along).flip(1, 2).round().clamp(0, 255).byte().numpy())
        return np.concatenate(stacks)

    return run


PEERS: dict[str, Callable[[int], Peer]] = {"MONAI": monai_pipeline, "TorchIO": torchio_pipeline}


def peers(size: int) -> dict[str, Peer]:
    """The peers installed, on one thread."""
    pipelines = {}
    for name, make in PEERS.items():
        try:
            import torch

            torch.set_num_threads(1)
            pipelines[name] = make(size)
        except ImportError as error:
            print(f"{name}: not measured ({error})")
    return pipelines


def alike(a: np.ndarray, b: np.ndarray) -> float:
    """Median correlation of slices of two pipelines."""
    return float(np.median([np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, b, strict=True)]))


def compare(sources: list[Source], size: int, others: dict[str, Peer]) -> None:
    """Every volume by everyone, on one core."""
    seconds = dict.fromkeys(("nibabel", "ours", *others), 0.0)
    likeness: dict[str, list[float]] = {name: [] for name in others}
    slices = 0

    def timed(name: str, work: Callable[[], np.ndarray]) -> np.ndarray:
        started = time.process_time()
        result = work()
        seconds[name] += time.process_time() - started
        return result

    with threadpool_limits(1):
        for number, source in enumerate(sources):
            try:
                of_plane = wanted(read_volume(source.files))  # from here on, the file is in the page cache
            except BadVolume:
                continue
            path = source.path
            timed("nibabel", lambda path=path: np.asanyarray(nib.load(path).dataobj))
            images = timed("ours", lambda source=source: ours(source, size))
            slices += len(images)
            for name, peer in others.items():
                peer_images = timed(
                    name, lambda peer=peer, source=source, of_plane=of_plane: peer(source, of_plane)
                )
                if number % 10 == 0:
                    likeness[name].append(alike(images, peer_images))
    print(
        f"one core, without writing: {slices} slices, {slices / seconds['ours']:.0f}/s, "
        f"{seconds['ours'] / seconds['nibabel']:.1f} times as long as bare decompression by nibabel"
    )
    for name in others:
        print(
            f"{name}, one core: {slices / seconds[name]:.0f} slices/s; ours is {seconds[name] / seconds['ours']:.1f} "
            f"times as fast (slices correlate at {np.median(likeness[name]):.3f} with ours)"
        )


def scaling(sources: list[Source], size: int, workers: int) -> None:
    """The command on a quarter, half and all of the volumes."""
    timings = []
    for count in (len(sources) // 4, len(sources) // 2, len(sources)):
        subset = sources[:: len(sources) // count][:count]
        paths = tuple(source.path for source in subset)
        with tempfile.TemporaryDirectory() as folder, PeakMemory() as memory:
            started = time.perf_counter()
            summary = extract(SlicesConfig(paths, Path(folder) / "store", size, workers=workers))
            timings.append((count, time.perf_counter() - started))
        print(
            f"the command on {count} volumes, {workers} workers, store and page included: {timings[-1][1]:.1f} s, "
            f"{summary['slices'] + summary['redundant']} slices, {memory.bytes / 1e9:.2f} GB at most"
        )
    (_, quarter), (half, middle), (all_of_them, whole) = timings
    print(
        f"a volume more costs {1e3 * (middle - quarter) / (half - half // 2):.0f} ms in the first half and "
        f"{1e3 * (whole - middle) / (all_of_them - half):.0f} ms in the second"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of volumes")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--peers", action="store_true", help="compare with MONAI and TorchIO where installed")
    arguments = parser.parse_args()
    set_quiet(True)
    sources = find_volumes([arguments.folder]).sources
    scaling(sources, arguments.size, arguments.workers)  # first, else PyTorch would count as our memory
    compare(sources, arguments.size, peers(arguments.size) if arguments.peers else {})


if __name__ == "__main__":
    main()
