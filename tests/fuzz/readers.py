"""Feed damaged files of every format to the readers, for as long as you like.

    python tests/fuzz/readers.py --minutes 60 --out /tmp/broken

A reader may give a volume or raise BadVolume, within 20 seconds and a gigabyte. What does anything else (another
error, a crash of the process, a hang, a large allocation) is kept in --out with the reason. A run is repeated by its
--seed. Linux only: limits and timers of the operating system are used.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gzip
import importlib.util
import multiprocessing
import random
import resource
import signal
import struct
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np

BATCH = 400  # inputs a child process tries
SECONDS = 20
ROOM = 1 << 30  # bytes of address space beyond what the libraries take
LIMIT = 1 << 24  # of the voxels
VALUES = (
    0,
    1,
    2,
    3,
    4,
    8,
    127,
    128,
    255,
    256,
    32767,
    32768,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
    10**6,
)


def corpus(folder: Path) -> list[list[Path]]:
    """Small good files of every format, each as the list of its files."""
    spec = importlib.util.spec_from_file_location(
        "writers", Path(__file__).parents[1] / "datasets" / "volumes" / "formats" / "conftest.py"
    )
    assert spec is not None
    assert spec.loader is not None
    writers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writers)
    rng = np.random.default_rng(0)
    scan = writers.Scan(rng.integers(0, 900, (7, 6, 5)).astype(np.int16), (1.0, 1.5, 2.0), "LPS")
    volumes = []
    for name, write in writers.WRITERS.items():
        place = folder / name
        place.mkdir()
        volumes.append(write(scan, place))
    extra = folder / "extra"
    extra.mkdir()
    volumes.append(writers.analyze(writers.Scan(scan.voxels, (1.0, 1.0, 1.0), "ASL"), extra / "z.img"))
    volumes.append(writers.minc2(scan, extra / "contiguous.mnc", chunks=None))
    volumes.append(
        writers.minc2(scan, extra / "shuffled.mnc", chunks=True, compression=4, shuffle=True, fletcher32=True)
    )
    volumes.append(writers.nrrd(scan, extra / "text.nrrd", encoding="ascii"))
    volumes.append(writers.nrrd(scan, extra / "packed.nrrd", encoding="bzip2"))
    for name, syntax in (("rle", "1.2.840.10008.1.2.5"), ("deflated", "1.2.840.10008.1.2.1.99")):
        files = writers.dicom(scan, extra / name)
        for file in files:
            _recode(file, syntax)
        volumes.append(files)
    from PIL import Image

    picture = Image.fromarray(rng.integers(0, 255, (20, 24)).astype(np.uint8))
    for suffix in (".png", ".jpg", ".gif", ".tif", ".webp", ".bmp"):
        picture.save(extra / f"picture{suffix}")
        volumes.append([extra / f"picture{suffix}"])
    return volumes


def _recode(file: Path, syntax: str) -> None:
    import pydicom

    dataset = pydicom.dcmread(file)
    if syntax.endswith(".99"):
        dataset.file_meta.TransferSyntaxUID = syntax
    else:
        dataset.compress(syntax)
    dataset.save_as(file)


def mutate(content: bytes, rng: random.Random) -> bytes:
    """A damaged copy."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if not data:
            break
        # Headers are where the decisions are.
        reach = len(data) if rng.random() < 0.4 else min(len(data), rng.choice((64, 400, 2000)))
        at = rng.randrange(reach)
        kind = rng.randrange(8)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.randrange(256)
        elif kind == 2:
            form = rng.choice(("<I", ">I", "<H", ">H", "<Q", ">Q"))
            value = rng.choice(VALUES) % (1 << 8 * struct.calcsize(form))
            data[at : at + struct.calcsize(form)] = struct.pack(form, value)
        elif kind == 3:
            form = rng.choice(("<f", ">f", "<d", ">d"))
            value = rng.choice((0.0, -1.0, float("nan"), float("inf"), 1e30, -1e-30))
            data[at : at + struct.calcsize(form)] = struct.pack(form, value)
        elif kind == 4:
            del data[at:]
        elif kind == 5:
            del data[at : at + rng.randrange(1, 200)]
        elif kind == 6:
            data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 40)))
        else:
            start = rng.randrange(len(data))
            piece = data[start : start + rng.randrange(1, 200)]
            data[at : at + len(piece)] = piece
    return bytes(data)


def damaged(files: list[Path], rng: random.Random) -> dict[str, bytes]:
    """Contents of the files, one of them damaged; sometimes inside its compression."""
    contents = {file.name: file.read_bytes() for file in files}
    name = rng.choice(list(contents))
    content = contents[name]
    if content[:2] == b"\x1f\x8b" and rng.random() < 0.7:
        contents[name] = gzip.compress(mutate(gzip.decompress(content), rng), 1)
    else:
        contents[name] = mutate(content, rng)
    return contents


def attempt(place: Path, contents: dict[str, bytes]) -> str:
    """Read as the command does: look for volumes, then read what was found."""
    from mri_transfer.datasets.image_files import SUFFIXES as PICTURES
    from mri_transfer.datasets.volumes.find import find_volumes
    from mri_transfer.datasets.volumes.formats.pictures import read_picture
    from mri_transfer.datasets.volumes.volume import BadVolume, read_volume
    from mri_transfer.errors import UserError

    for name, content in contents.items():
        (place / name).write_bytes(content)
    pictures = any(Path(name).suffix in PICTURES for name in contents)
    try:
        inventory = find_volumes([place], pictures=pictures)
    except UserError as error:
        return str(error)
    outcome = ""
    for source in inventory.sources:
        try:
            if pictures:
                read_picture(source.path, 16, LIMIT)
            else:
                volume = read_volume(source.files, LIMIT)
                assert volume.voxels.ndim == 3
                assert np.isfinite(volume.zooms).all()
                assert np.isfinite(volume.origins).all()
                assert volume.voxels.nbytes <= 4 * LIMIT
                assert np.isfinite(volume.voxels).all()
                assert volume.voxels.min() < volume.voxels.max()
            outcome = "read"
        except BadVolume as error:
            outcome = str(error)
        if "more memory than there is" in outcome:
            raise MemoryError(outcome)
    return outcome


def run_batch(seeds: list[int], volumes: list[list[Path]], out: Path, note: Path) -> None:
    """In a child process: try inputs; keep those that do what they should not."""
    from mri_transfer.progress import set_quiet

    set_quiet(True)
    faulthandler.enable()
    with contextlib.suppress(ValueError):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    signal.signal(signal.SIGALRM, late)
    outcomes: dict[str, int] = {}
    for seed in seeds:
        rng = random.Random(seed)
        files = volumes[rng.randrange(len(volumes))]
        contents = damaged(files, rng)
        note.write_text(f"{seed} {files[0]}")
        with tempfile.TemporaryDirectory() as place:
            signal.alarm(SECONDS)
            try:
                outcome = attempt(Path(place), contents)
            except BaseException:
                signal.alarm(0)
                keep(out, seed, contents, traceback.format_exc())
                outcome = "KEPT"
            signal.alarm(0)
        outcomes[outcome[:30]] = outcomes.get(outcome[:30], 0) + 1


def keep(out: Path, seed: int, contents: dict[str, bytes], reason: str) -> None:
    place = out / str(seed)
    place.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (place / name).write_bytes(content)
    (out / f"{seed}.txt").write_text(reason)
    print(f"{seed}: {reason.strip().splitlines()[-1][:200]}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "broken-volumes")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("fork")  # so that libraries need no importing again
    import h5py  # noqa: F401
    import nrrd  # noqa: F401
    import pydicom.pixels  # noqa: F401

    import mri_transfer.datasets.volumes.volume  # noqa: F401

    ends, seed = time.monotonic() + 60 * arguments.minutes, arguments.seed
    with tempfile.TemporaryDirectory() as folder:
        volumes = corpus(Path(folder))
        note = Path(folder) / "now"
        while time.monotonic() < ends:
            seeds = list(range(seed, seed + BATCH))
            seed += BATCH
            while seeds:
                child = context.Process(target=run_batch, args=(seeds, volumes, arguments.out, note))
                child.start()
                child.join()
                if child.exitcode == 0:
                    break
                died = int(note.read_text().split()[0])
                rng = random.Random(died)
                files = volumes[rng.randrange(len(volumes))]
                keep(
                    arguments.out, died, damaged(files, rng), f"the process died (exit code {child.exitcode})"
                )
                seeds = [number for number in seeds if number > died]
    print(f"{seed - arguments.seed} inputs, {len(list(arguments.out.glob('*.txt')))} kept in {arguments.out}")


if __name__ == "__main__":
    main()
