"""Shared by all tests: small stores, and the command line in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # a process a core, so a thread a process; before TensorFlow is imported
    for name in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
    ):
        os.environ.setdefault(name, "1")

import numpy as np
import pytest
from hypothesis import settings

from tests.forked import Forked

# What a background job of a shell and `nohup` ignore, the processes that it starts ignore too; tests send them these.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

# A shared machine may stall for a moment; a deadline would call that a failure.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def command():
    """Run `mri-transfer` as a user does; returns the finished process with its output as text."""

    def run(*arguments: object, **options) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "mri_transfer", *map(str, arguments)],
            capture_output=True,
            text=True,
            encoding="utf-8",
            cwd=ROOT,
            timeout=600,
            **options,
        )

    return run


@pytest.fixture(autouse=True)
def not_silenced():
    """A test that used `--quiet` must not silence those that follow."""
    yield
    from mri_transfer import progress

    progress.set_quiet(False)


@pytest.fixture
def cli(capfd):
    """Run the command line in this process, which spares the seconds that TensorFlow takes to start."""
    from mri_transfer.cli import main

    def run(*arguments: object) -> subprocess.CompletedProcess:
        capfd.readouterr()
        code = main([str(word) for word in arguments])
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, code, out, err)

    return run


@pytest.fixture
def refuses(cli):
    """Check that a command line ends with code 2 and one line that holds the given words."""

    def check(*arguments: object, words: tuple[object, ...]) -> None:
        done = cli(*arguments)
        assert done.returncode == 2, done.stderr
        lines = done.stderr.strip().splitlines()
        assert len(lines) == 1, done.stderr
        for word in words:
            assert str(word) in lines[0]

    return check


@pytest.fixture(scope="session")
def start_command():
    """Start `mri-transfer` and return at once, to be killed in the middle; see :mod:`tests.forked`."""
    return Forked


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a real file system of a size such as "1m", or gives it another one, and returns its folder."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(size: object) -> Path:
        options = f"remount,size={size}" if disk.is_mount() else f"size={size}"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk]
        if sys.platform != "linux" or os.geteuid() or subprocess.run(command).returncode:
            pytest.skip("needs the right to mount a small file system")
        return disk

    yield mount
    if disk.is_mount():
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.fixture(scope="session")
def small_volumes(tmp_path_factory) -> Path:
    """A folder with the volumes of five subjects, which differ in shape and texture."""
    import nibabel

    folder = tmp_path_factory.mktemp("volumes")
    rng = np.random.default_rng(0)
    x, y, z = np.mgrid[-1:1:24j, -1:1:28j, -1:1:20j]
    for subject in range(5):
        a, b, c = rng.uniform(0.6, 0.9, 3)
        inside = (x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2 < 1
        texture = 1 + 0.5 * np.sin(rng.uniform(3, 9) * x + rng.uniform(3, 9) * y * z)
        volume = (inside * texture * 500).astype(np.int16)
        image = nibabel.Nifti1Image(volume, np.diag([5.0, 5.0, 5.0, 1.0]))
        nibabel.save(image, folder / f"sub-{subject:02d}_T1w.nii.gz")
    return folder


@pytest.fixture(scope="session")
def small_store(small_volumes, tmp_path_factory) -> Path:
    """A slice store of 48 px, from the small volumes."""
    from mri_transfer.datasets.extraction.extract import SlicesConfig, extract

    out = tmp_path_factory.mktemp("store") / "store"
    extract(SlicesConfig(paths=(small_volumes,), out=out, size=48, workers=1))
    return out


@pytest.fixture(scope="session")
def draw_slice():
    """Draw one of the slices that the package knows, as coarse as its signature is; uint8 (side, side)."""
    from PIL import Image

    from mri_transfer.datasets.tumors.persons.originals import figshare_originals

    def draw(place: int, side: int = 192) -> np.ndarray:
        small = Image.fromarray(figshare_originals().signatures[place])
        return np.asarray(small.resize((side, side), Image.Resampling.NEAREST))

    return draw


@pytest.fixture(scope="session")
def known_set(tmp_path_factory, draw_slice):
    """A four-class set whose tumours are known slices of 48 persons, and whose heads without one are nobody's.

    Returns:
        The folder, with Training and Testing, and the place in `figshare_originals()` of each file of a known slice.
    """
    from PIL import Image

    from mri_transfer.datasets.synthetic.generate import write_tumors
    from mri_transfer.datasets.tumors.persons.originals import figshare_originals, person_of

    table, random = figshare_originals(), np.random.default_rng(0)
    people: dict[tuple[str, str], list[int]] = {}
    for place, (label, patient) in enumerate(zip(table.labels, table.patients, strict=True)):
        people.setdefault((label, person_of(patient)), []).append(place)
    folder, places = tmp_path_factory.mktemp("known") / "set", []
    write_tumors(folder, per_class=24, seed=3)  # only those without a tumour stay
    for split in ("Training", "Testing"):
        for tumour in ("glioma", "meningioma", "pituitary"):
            for file in (folder / split / f"{tumour}_tumor").iterdir():
                file.unlink()
    for tumour in ("glioma", "meningioma", "pituitary"):
        cases = [scans for (label, _), scans in people.items() if label == tumour]
        cases.sort(key=lambda scans: -len({table.patients[place] for place in scans}))  # several visits first
        for scans in cases[:8] + cases[-8:]:
            visits = {table.patients[place]: place for place in scans}
            places += {*visits.values(), *random.choice(scans, min(3, len(scans)), replace=False).tolist()}
    place_of = {}
    for count, place in enumerate(random.permutation(places).tolist()):
        split = "Testing" if count % 5 == 0 else "Training"
        name = f"{split}/{table.labels[place]}_tumor/x ({30 * count}).png"
        Image.fromarray(draw_slice(place)).save(folder / name)
        place_of[name] = place
    return folder, place_of


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with the real four-class set (tumors) and what is known of it (tumor-sources): MRI_TRANSFER_DATA."""
    folder = Path(os.environ.get("MRI_TRANSFER_DATA", "nowhere"))
    if not (folder / "tumors").is_dir() or not (folder / "tumor-sources").is_dir():
        pytest.skip("MRI_TRANSFER_DATA names no folder with the real tumors and tumor-sources")
    return folder
