"""Kill a command twenty times, at any moment, and see that it ends with the bytes of one that was left alone.

    python -m tests.mri_transfer.killed NAME FOLDER

NAME is one of COMMANDS. Everything is imported once, and a process is forked for each try, with the network of three
layers: a try costs what the command itself does. A command that ends before it is killed begins again elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

KILLS = 20
NETWORK = "--size 32 --backbone mobilenet"
FEW = "--folds 2 --seeds 1 --draws 50 --workers 1"
# The command, what it is given by other commands before, and what of its folder must be the same.
COMMANDS = {
    "slices": ("slices volumes --size 32 --workers 1", (), ("shards/*", "slices.csv")),
    "audit": ("audit tumors", (), ("groups.csv", "audit.json", "audit.html")),
    "pretrain": (
        f"pretrain store {NETWORK} --steps 8 --batch 4 --save-minutes 0.0001",
        ("slices volumes --out store --size 32 --workers 1",),
        ("encoder/*.npz",),
    ),
    "finetune": (
        f"finetune tumors {NETWORK} --init random --folds 2 --epochs 3 --rates 0.001",
        (),
        ("head-*.npz", "encoder/*.npz", "familiarity.npz"),
    ),
    "compare": (
        f"compare tumors {NETWORK} --arm random --arm pixels --arm figures {FEW}",
        (),
        ("trials/*.npz", "tables/*"),
    ),
    "predict": (
        "predict classifier pictures --csv OUT/answers.csv --json OUT/answers.json --gradcam OUT/maps",
        (f"finetune tumors {NETWORK} --init random --out classifier --folds 2 --epochs 0",),
        ("answers.csv", "answers.json", "maps/*"),
    ),
    "export": (
        "export classifier --format litert --images pictures",
        (f"finetune tumors {NETWORK} --init random --out classifier --folds 2 --epochs 0",),
        ("model.tflite", "litert.json"),
    ),
    "demo": (
        "demo --size 32 --batch 4",
        (),
        (
            "store/shards/*",
            "store/slices.csv",
            "imagenet-mri/encoder/*.npz",
            "audit/groups.csv",
            "report/tables/*",
        ),
    ),
}


def prepare(name: str) -> None:
    """Import what commands need, and make it small."""
    from tests.pretrain import small_network

    small_network.use()
    import matplotlib.pyplot  # noqa: F401
    import sklearn.linear_model  # noqa: F401

    import mri_transfer.datasets.audit.audit
    import mri_transfer.datasets.extraction.extract
    import mri_transfer.datasets.store.summary.store_page
    import mri_transfer.finetune.compare
    import mri_transfer.finetune.export.conversion
    import mri_transfer.finetune.finetune
    import mri_transfer.finetune.prediction.predict  # noqa: F401
    from mri_transfer import demo
    from mri_transfer.checkpoints import imagenet
    from mri_transfer.finetune import config as finetuning
    from mri_transfer.pretrain import config, pretrain  # noqa: F401
    from mri_transfer.pretrain.run import saving

    if (
        name == "demo"
    ):  # it trains for a time, and two never did as many steps; of this size there are no weights
        settings = config.PretrainConfig
        config.PretrainConfig = lambda **options: settings(  # type: ignore[misc, assignment]
            **{key: value for key, value in options.items() if key != "minutes"}, steps=6
        )
        comparison = finetuning.CompareConfig
        finetuning.CompareConfig = lambda **options: comparison(  # type: ignore[misc, assignment]
            **options, folds=2, seeds=1, draws=50
        )
        imagenet.load_imagenet = lambda *_: {"source": "none"}
        demo.SUBJECTS, demo.IMAGES_PER_CLASS = 2, 14
    saving.SHARE = 1e9  # save whenever it is time, whatever it costs


def start(line: str, out: str) -> int:
    """Run a command in a process of its own; returns its number."""
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with Path("said").open("w") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        from mri_transfer.cli import main

        words = line.replace("OUT", out).split()
        if line.startswith("predict"):
            Path(out).mkdir(exist_ok=True)
        else:
            words += [] if "--out" in words else ["--out", out]
        code = main(words)
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(code)


def end_of(child: int, seconds: float) -> bool:
    """Wait for a process, and kill it after so many seconds; whether it came to its end."""
    deadline = time.monotonic() + seconds
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False
        time.sleep(0.002)
    return True


def content(folder: Path, patterns: tuple[str, ...]) -> dict[str, Any]:
    """Digests of what must be the same; of JSON, what it says but for times and places."""
    contents = {}
    for path in sorted(path for pattern in patterns for path in folder.glob(pattern)):
        data = path.read_bytes().replace(str(folder).encode(), b"OUT")
        if path.suffix == ".json":
            values = {key: value for key, value in json.loads(data).items() if "seconds" not in key}
            data = json.dumps(values, sort_keys=True).encode()
        contents[str(path.relative_to(folder))] = (
            arrays_of(path) if path.parent.name == "trials" else hashlib.sha256(data).hexdigest()
        )
    return contents


def arrays_of(path: Path) -> str:
    """Of a trial, its numbers: it also tells how long it took."""
    from mri_transfer.storage.arrays import load_npz

    arrays = load_npz(path)
    return hashlib.sha256(arrays["test"].tobytes() + arrays["probabilities"].tobytes()).hexdigest()


def make_inputs() -> None:
    import nibabel
    import numpy as np

    from mri_transfer.datasets.synthetic.generate import write_tumors

    write_tumors(Path("tumors"), per_class=14, seed=0)
    Path("pictures").mkdir()
    for picture in sorted(Path("tumors").rglob("*.*g"))[:6]:
        shutil.copy(picture, "pictures")
    Path("volumes").mkdir()
    x, y, z = np.mgrid[-1:1:24j, -1:1:28j, -1:1:20j]
    for subject in range(6):
        inside = x**2 / 0.64 + y**2 / 0.5 + z**2 / 0.8 < 1
        voxels = inside * (300 + 200 * np.sin((3 + subject) * x + 5 * y * z))
        image = nibabel.Nifti1Image(voxels.astype(np.int16), np.diag([5.0, 5.0, 5.0, 1.0]))
        nibabel.save(image, f"volumes/sub-{subject:02d}_T1w.nii.gz")


def main(name: str, folder: str) -> None:
    """Kill, finish, compare; the last line tells how often."""
    line, before, patterns = COMMANDS[name]
    cores = sorted(os.sched_getaffinity(0))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    os.sched_setaffinity(0, [cores[worker % len(cores)]])  # two such tests side by side have a core each
    os.chdir(folder)
    prepare(name)
    child = os.fork()
    if not child:
        make_inputs()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    for command in before:
        assert end_of(start(command, ""), 600), Path("said").read_text()
    start_time = time.monotonic()
    assert end_of(start(line, "try_0"), 600)
    seconds = time.monotonic() - start_time
    expected = content(Path("try_0"), patterns)
    assert len(expected) >= len(patterns), Path("said").read_text()
    rng, kills, finished = random.Random(name), 0, 0
    out = "try_1"
    while kills < KILLS:
        if end_of(start(line, out), rng.uniform(0, seconds)):
            assert content(Path(out), patterns) == expected, Path("said").read_text()
            finished += 1
            out = f"try_{finished + 1}"
        else:
            kills += 1
    assert end_of(start(line, out), 600)
    result = content(Path(out), patterns)
    assert result == expected, (result, expected, Path("said").read_text())
    assert not list(Path(out).rglob("*.part"))
    print(f"{kills} kills, {finished + 1} times finished, {seconds:.1f} s undisturbed")


if __name__ == "__main__":
    main(*sys.argv[1:])
