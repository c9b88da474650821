"""Damage what commands wrote, make its checksums fit, and run commands on it, for as long as you like.

    python -m tests.fuzz.folders --minutes 60 --out /tmp/broken

Cards, journals, states, tables, training graphs and caches of a small store, run, classifier and comparison are changed
where it hurts: a value of another type or size, a line twice, an array of another shape. A command may do its work or
end with one line and code 2, within a minute of processor time and without taking a gigabyte. What does anything else
is kept in --out with the reason. An input is repeated by `--seed N --inputs 1`.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import csv
import faulthandler
import hashlib
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer.storage.cards import SEAL, sealed
from mri_transfer.storage.json_lines import line_of, value_of
from tests.fuzz.readers import mutate

ROOT = Path(__file__).resolve().parents[2]
BATCH = 60  # inputs a child process tries
SECONDS, ROOM = 60, 1_000_000  # of processor time; kilobytes
NESTED: Any = []
for _ in range(60):
    NESTED = [NESTED]
ODD = (
    *(None, True, False, 0, 1, -1, 2, 7, 0.5, -0.5, 1e308, 5e-324, 2**31, 2**63, 10**299),
    *(
        "",
        "a",
        "0",
        "NaN",
        "../../x",
        "/",
        "\x1b[31mred\x1b[0m",
        "=1+1",
        "a\nb",
        "\udc80",
        "é" * 300,
        "x" * 70_000,
    ),
    *([], [[]], {}, [0] * 1000, {"a": {}}, NESTED),
)

# What is copied and damaged, by which command it is met, and how often that is tried: they differ in what they cost.
COMPARE = "compare tumors --out report --arm random --arm mri=run --size 32 --folds 2 --seeds 1 --draws 50 --workers 1"
TARGETS = (
    (9, "store/*", "verify store"),
    (9, "store/*", "slices volumes --out store --size 32 --workers 1"),
    (5, "store/*", "slices volumes --out store --size 32 --workers 1 --dry-run"),
    (4, "store/*", "pretrain store --out new --steps 1 --batch 4 --size 32 --backbone mobilenet --preview"),
    (3, "run/*", "pretrain store --out run --steps 2 --batch 4 --size 32 --backbone mobilenet"),
    (6, "part/*", "pretrain store --out part --steps 3 --batch 4 --size 32 --backbone mobilenet"),
    (9, "run/*", "verify run run/encoder"),
    (6, "run/*", "export run --format training-graph --for tf2.7 --out night"),
    (9, "classifier/*", "predict classifier picture.png"),
    (5, "classifier/*", "verify classifier"),
    (3, "classifier/*", "finetune tumors --init run --out classifier --size 32 --epochs 0 --folds 2"),
    (6, "report/*", COMPARE + " --plan plan.json"),
    (4, "plan.json", COMPARE + " --plan plan.json"),
    (4, "run/*", COMPARE),
    (4, "report/*", "verify report"),
    (9, "night/*", "import-graph night --out imported"),
    (9, "subjects.csv", "slices volumes --out new --size 32 --workers 1 --dry-run --subjects subjects.csv"),
    (
        6,
        "groups.csv",
        "finetune tumors --init run --out new --size 32 --epochs 0 --folds 2 --groups groups.csv",
    ),
    (4, "looks/*", "audit tumors --out looks"),
)
BEFORE = (
    "slices volumes --out store --size 32 --workers 1",
    "pretrain store --out run --steps 2 --batch 4 --size 32 --backbone mobilenet",
    "finetune tumors --init run --out classifier --size 32 --epochs 0 --folds 2",
    COMPARE + " --plan plan.json",
    "audit tumors --out looks",
    "export --format training-graph --for tf2.7 --out night --store store --batch 4 --size 32 --backbone mobilenet",
)


class Late(BaseException):
    """No error that a command could mistake for one of its own."""


def corpus() -> None:
    """In the current folder: small ones of every kind, made by the commands themselves."""
    import nibabel

    from mri_transfer.datasets.synthetic.generate import write_tumors
    from mri_transfer.pretrain.run.trainer import Trainer
    from tests.pretrain.graph.boards import load_script

    rng = np.random.default_rng(0)
    x, y, z = np.mgrid[-1:1:24j, -1:1:28j, -1:1:20j]
    Path("volumes").mkdir()
    for subject in range(3):
        inside = (x / 0.8) ** 2 + (y / 0.7) ** 2 + (z / 0.9) ** 2 < 1
        voxels = inside * (300 + 200 * np.sin(rng.uniform(3, 9) * x + rng.uniform(3, 9) * y * z))
        image = nibabel.Nifti1Image(voxels.astype(np.int16), np.diag([5.0, 5.0, 5.0, 1.0]))
        nibabel.save(image, f"volumes/sub-{subject:02d}_T1w.nii.gz")
    write_tumors(Path("tumors"), per_class=14, seed=0)
    shutil.copy(next(Path("tumors").rglob("*.*g")), "picture.png")
    for line in BEFORE:
        code, output = run(line)
        assert code == 0, (line, output)
    shutil.copy("looks/groups.csv", "groups.csv")
    Path("subjects.csv").write_text(
        "file,subject,sequence\nsub-00_T1w.nii.gz,anna,T1\nsub-01_T1w.nii.gz,berta,T2\n"
    )
    script, handler = load_script("runner", Path("night").resolve()), signal.getsignal(signal.SIGTERM)
    assert script.main(["store", "--steps", "2"]) == 0
    signal.signal(signal.SIGTERM, handler)
    step, steps = Trainer.step, []

    def interrupted(self, *arguments):
        steps.append(1)
        if len(steps) == 2:
            signal.raise_signal(signal.SIGINT)
        return step(self, *arguments)

    Trainer.step = interrupted  # type: ignore[method-assign]
    assert run("pretrain store --out part --steps 3 --batch 4 --size 32 --backbone mobilenet")[0] == 130
    Trainer.step = step  # type: ignore[method-assign]


def run(line: str) -> tuple[int, str]:
    """Exit code, and what was printed."""
    from mri_transfer.cli import main

    stream = io.StringIO()
    with contextlib.redirect_stderr(stream), contextlib.redirect_stdout(stream):
        try:
            code = main(line.split())
        except SystemExit as stopped:  # of argparse
            code = int(stopped.code or 0)
    return code, stream.getvalue()


def changed(value: Any, rng: random.Random) -> Any:
    """JSON values with some of them replaced, removed, doubled, exchanged."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        places: list[tuple[Any, Any]] = []

        def gather(node: Any, places: list[tuple[Any, Any]] = places) -> None:
            keys = node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
            for key in list(keys):
                places.append((node, key))
                gather(node[key])

        gather(value)
        if not places:
            return copy.deepcopy(rng.choice(ODD))
        node, key = rng.choice(places)
        kind = rng.randrange(8)
        if kind == 0:
            del node[key]
        elif kind == 1:
            other, its = rng.choice(places)
            with contextlib.suppress(KeyError, IndexError):
                node[key] = json.loads(json.dumps(other[its]))
        elif kind == 2 and isinstance(node, list):
            node.insert(key, node[key])
        elif kind == 3 and isinstance(node[key], int | float):
            node[key] = rng.choice(
                (-node[key], node[key] + 1, node[key] * 1_000_000, float(node[key]), 1 / 3)
            )
        elif kind == 4 and isinstance(node, dict):
            node[rng.choice(("", "kind", "__class__", "\x1b]0;x\x07"))] = node.pop(key)
        else:
            node[key] = copy.deepcopy(rng.choice(ODD))
    return value


def json_text(value: Any) -> bytes:
    return json.dumps(value, indent=2).encode()


def damaged_json(content: bytes, rng: random.Random) -> bytes:
    card = json.loads(content)
    seal = isinstance(card, dict) and card.pop(SEAL, None)
    card = changed(card, rng)
    if isinstance(card, dict):
        if isinstance(card.get("info"), dict) and "info_sha256" in card:
            text = json.dumps(card["info"], ensure_ascii=False)
            card["info_sha256"] = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
        if "planned" in card:
            from mri_transfer.finetune.planning.plan import digest_of

            with contextlib.suppress(Exception):
                card["sha256"] = digest_of(card)
    return sealed_again(card, bool(seal))


def sealed_again(card: Any, seal: bool) -> bytes:
    if isinstance(card, dict) and "fingerprint" in card and "shards" in card:
        from mri_transfer.datasets.store.store import fingerprint_of

        with contextlib.suppress(Exception):
            card["fingerprint"] = fingerprint_of(card)
    if seal and isinstance(card, dict) and card:
        return sealed(json.dumps(card, indent=2)).encode()
    return json_text(card)


def damaged_lines(content: bytes, rng: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    place = rng.randrange(len(lines))
    kind = rng.randrange(6)
    if kind == 0:
        del lines[place]
    elif kind == 1:
        lines.insert(rng.randrange(len(lines)), lines[place])
    elif kind == 2:
        rng.shuffle(lines)
    else:
        value = changed(value_of(lines[place]), rng)
        lines[place] = (
            line_of(value) if isinstance(value, dict) and value else json.dumps(value).encode() + b"\n"
        )
    return b"".join(lines)


def damaged_arrays(content: bytes, rng: random.Random) -> bytes:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    name = rng.choice(list(arrays))
    array, kind = arrays[name], rng.randrange(9)
    if kind == 0:
        del arrays[name]
    elif kind == 1:
        arrays["more"] = array
    elif kind == 2:
        arrays[name] = arrays[rng.choice(list(arrays))]
    elif kind == 3:
        with contextlib.suppress(ValueError, TypeError):
            arrays[name] = array.astype(rng.choice(("f2", "f8", "i1", "u8", "?", "c8", "U3", ">f4", "M8[s]")))
    elif kind == 4 and array.dtype.kind in "fiu":
        arrays[name] = np.full_like(array, rng.choice((0, 1, 100)))
    elif kind == 5 and array.dtype.kind == "f":
        arrays[name] = np.full_like(array, rng.choice((np.nan, np.inf, -1, 1e30)))
    elif kind == 6:
        arrays[name] = rng.choice(
            (array[None], array.ravel()[:0], array.T, np.concatenate([array.ravel()] * 2))
        )
    elif kind == 7 and array.dtype.kind == "U":
        with contextlib.suppress(ValueError):
            arrays[name] = np.array(json.dumps(changed(json.loads(str(array)), rng)))
    else:
        arrays[name] = np.array(rng.choice((0, -1, 2**62, 0.5, "text", True)))
    if "probabilities" in arrays and "details" in arrays and rng.random() < 0.8:
        from mri_transfer.finetune.comparison.trials import _content_digest

        with contextlib.suppress(Exception):
            texts = str(arrays["identity"]), str(arrays["details"])
            arrays["sha256"] = np.array(_content_digest(arrays["test"], arrays["probabilities"], texts))
    if "header" in arrays and "features" in arrays:
        arrays["sha256"] = np.array(hashlib.sha256(arrays["features"].tobytes()).hexdigest())
    buffer = io.BytesIO()
    (np.savez_compressed if rng.random() < 0.1 else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def damaged_table(content: bytes, rng: random.Random) -> bytes:
    rows = list(csv.reader(io.StringIO(content.decode("utf-8", "surrogateescape"), newline="")))
    for _ in range(rng.choice((1, 1, 3))):
        row = rng.choice(rows[:3] if rng.random() < 0.4 else rows)
        kind = rng.randrange(6)
        if kind == 0 and len(rows) > 1:
            rows.remove(row)
        elif kind == 1:
            rows.insert(rng.randrange(len(rows)), list(row))
        elif kind == 2 and row:
            del row[rng.randrange(len(row))]
        elif kind == 3:
            row.append("more")
        elif row:
            odd = rng.choice((*ODD, "\0", '"', "\r", "nan", "-1", "1e400", "9" * 5000, "z" * 200_000))
            row[rng.randrange(len(row))] = odd if isinstance(odd, str) else str(odd)
        if not rows:
            rows = [[]]
    text = io.StringIO(newline="")
    csv.writer(
        text, delimiter=rng.choice(",,,,;\t"), lineterminator=rng.choice(("\n", "\n", "\r\n"))
    ).writerows(rows)
    return text.getvalue().encode(rng.choice(("utf-8",) * 6 + ("utf-16", "utf-8-sig")), "replace")


KINDS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    ".json": damaged_json,
    ".jsonl": damaged_lines,
    ".npz": damaged_arrays,
    ".csv": damaged_table,
}


def fit_checksums(folder: Path, before: bytes, after: bytes) -> None:
    """Wherever a file below `folder` tells the SHA-256 of `before`, let it tell that of `after`, and so on."""
    if not folder.is_dir():
        return
    old, new = (hashlib.sha256(data).hexdigest().encode() for data in (before, after))
    for path in [*folder.rglob("*.json"), *folder.rglob("SHA256SUMS")]:
        content = path.read_bytes()
        if old in content and content != after:
            body = content.replace(old, new)
            if path.suffix == ".json":
                card = json.loads(body)
                body = sealed_again(card, bool(isinstance(card, dict) and card.pop(SEAL, None)))
            path.write_bytes(body)
            fit_checksums(folder, content, body)


def damage(pattern: str, rng: random.Random) -> Path:
    """Damage a file of those that the pattern's folder holds."""
    base = Path(pattern.partition("/")[0])
    files = sorted(path for path in base.rglob("*") if path.is_file() and path.stat().st_size) or [base]
    by_kind: dict[str, list[Path]] = {}
    for file in files:
        by_kind.setdefault(f"{file.suffix} {file.name if file.suffix == '.json' else ''}", []).append(file)
    path = rng.choice(by_kind[rng.choice(sorted(by_kind))])
    content = path.read_bytes()
    kind = KINDS.get(path.suffix)
    if rng.random() < 0.1:
        path.unlink()
        return path
    after = mutate(content, rng) if kind is None or rng.random() < 0.15 else kind(content, rng)
    path.write_bytes(after)
    if rng.random() < 0.85:
        fit_checksums(base, content, after)
    return path


def attempt(seed: int, originals: Path) -> tuple[str, Path]:
    """One input, in the current folder, which is put back first; returns the command and what was damaged."""
    rng = random.Random(seed)
    _, pattern, line = rng.choices(TARGETS, [weight for weight, _, _ in TARGETS])[0]
    for path in Path().iterdir():
        if path.name not in ("volumes", "tumors"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in originals.iterdir():
        if path.name not in ("volumes", "tumors"):
            shutil.copytree(path, path.name) if path.is_dir() else shutil.copy2(path, path.name)
    if "--out new" in line or line.endswith("night"):
        shutil.rmtree("night", ignore_errors=True)
    path = damage(pattern, rng)
    code, output = run(line)
    lines = output.strip().splitlines()
    assert code in (0, 2), (code, output)
    assert code == 0 or lines[-1].startswith("mri-transfer"), output
    assert code == 0 or "Traceback" not in output, output
    assert all(row.isprintable() for row in output.replace("\t", " ").split("\n")), repr(output)
    return line, path


def child(arguments: argparse.Namespace, originals: Path) -> None:
    """Try inputs; keep those that do what they should not."""
    faulthandler.enable()
    from tests.pretrain import small_network

    small_network.use()

    def late(*_: object) -> None:
        raise Late(f"more than {SECONDS} s")

    signal.signal(signal.SIGPROF, late)
    for seed in range(arguments.seed, arguments.seed + arguments.inputs):
        Path("../now").write_text(str(seed))
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            attempt(seed, originals)
            signal.setitimer(signal.ITIMER_PROF, 0)
            more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used
            assert more < ROOM, f"{more} kilobytes"
        except BaseException as error:
            signal.setitimer(signal.ITIMER_PROF, 0)
            keep(arguments.out, seed, traceback.format_exc())
            if isinstance(error, KeyboardInterrupt):
                raise


def keep(out: Path, seed: int, reason: str) -> None:
    rng = random.Random(seed)
    line = rng.choices(TARGETS, [weight for weight, _, _ in TARGETS])[0][2]
    (out / f"{seed}.txt").write_text(f"{line}\n{reason}", errors="replace")
    print(f"{seed}: {line}: {reason.strip().splitlines()[-1][:300]!r}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inputs", type=int, default=0, help="try this many instead")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "broken-folders")
    parser.add_argument("--corpus", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.out = arguments.out.resolve()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.corpus:  # a child process, in the folder where it works
        if not arguments.inputs:
            from tests.pretrain import small_network

            small_network.use()
            return corpus()
        return child(arguments, arguments.corpus)
    ends, seed = time.monotonic() + 60 * arguments.minutes, arguments.seed
    last = seed + arguments.inputs if arguments.inputs else None
    with tempfile.TemporaryDirectory() as folder:
        work, originals = Path(folder) / "work", Path(folder) / "kept"
        work.mkdir()
        command = [
            sys.executable,
            "-m",
            "tests.fuzz.folders",
            "--out",
            str(arguments.out),
            "--corpus",
            str(originals),
        ]
        options: dict[str, Any] = {"cwd": work, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}
        subprocess.run(command, **options, check=True)
        shutil.copytree(work, originals)
        while time.monotonic() < ends if last is None else seed < last:
            count = BATCH if last is None else min(BATCH, last - seed)
            done = subprocess.run([*command, "--seed", str(seed), "--inputs", str(count)], **options)
            if done.returncode == 0:
                seed += count
            else:
                seed = int((Path(folder) / "now").read_text())
                keep(arguments.out, seed, f"the process died (exit code {done.returncode})")
                seed += 1
    print(f"{seed - arguments.seed} inputs, {len(list(arguments.out.glob('*.txt')))} kept in {arguments.out}")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
