"""Training states on a board: everything that changes, in two generations, and metrics.

    state/state-12.npz   every variable of the graph (uncompressed)
    state/state-12.json  its SHA-256, and the position in training; readable
    state/state-11.*     the generation before, kept in case a byte of the newest one is lost

The format is that of mri-transfer's own runs, so it can read these files. The arrays are on disk before the JSON file
that vouches for them appears; only then is the third-newest generation removed. Python 3.6 and NumPy are enough.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import re
import sys

import numpy as np

FORMAT = 1
KEPT = 2
MOST_BYTES = 100000000
"""Limit for a JSON file. Real ones have less than a megabyte."""
LONGEST_NUMBER = 300  # digits
NUMBER = (int, float)
NUMBER_OR_NONE = (int, float, type(None))
CARD_NAME = re.compile(r"state-(\d+)\.json")
FILE_NAME = re.compile(r"state-(\d+)\.(json|npz)(\.part)?")


class Problem(Exception):
    """A user's mistake or a bad file: one line that names it and the remedy."""


def say(message):
    """Print to standard error; a closed terminal must not end the training."""
    try:
        # File names may contain terminal control sequences.
        printable = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in message)
        sys.stderr.write(printable + "\n")
        sys.stderr.flush()
    except OSError:
        pass


def read_json(path):
    """The content of a JSON file.

    Raises:
        Problem: it is missing or not JSON, or holds a number that no float can hold.
    """
    try:
        with open(str(path), "rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES // 10**6} MB")
        return json.loads(
            content.decode("utf-8"), parse_constant=_float, parse_float=_float, parse_int=_integer
        )
    except FileNotFoundError:
        raise Problem(f"{path}: no such file; copy the whole folder again") from None
    except (OSError, ValueError, RecursionError) as error:
        raise Problem(f"{path}: not readable as JSON ({error}); copy it again") from None


def _float(text):
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is not a number in JSON")
    return value


def _integer(text):
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def wrong_fields(fields, kinds):
    """The names in `kinds` that are missing from what was read from JSON or have another type; a bool is no number."""
    if not isinstance(fields, dict):
        return list(kinds)
    return [name for name, kind in kinds.items() if name not in fields or not _is(fields[name], kind)]


def _is(value, kind):
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def sha256(path):
    """Hexadecimal SHA-256 of a file, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with open(str(path), "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def atomic_write(path):
    """A binary file that holds either its old content or all of the new, even after a power cut."""
    part = path.with_name(path.name + ".part")
    try:
        with open(str(part), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(str(part), str(path))
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    descriptor = os.open(str(path.parent), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _encoded(value, indent=None):
    """JSON as mri-transfer writes it: escaped only where a folder's name isn't UTF-8."""
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent, allow_nan=False).encode("ascii")


def _info_sha256(info):
    return hashlib.sha256(_encoded(info)).hexdigest()


def _generations(folder):
    """Numbers of the complete generations, newest first."""
    names = os.listdir(str(folder)) if folder.is_dir() else []
    matches = (CARD_NAME.fullmatch(name) for name in names)
    return sorted((int(match.group(1)) for match in matches if match), reverse=True)


def _remove_others(folder, numbers):
    """Remove generations not in `numbers`, card first, and half-written files of a killed process."""
    names = {f"state-{number}.{suffix}" for number in numbers for suffix in ("json", "npz")}
    for name in sorted(os.listdir(str(folder))):
        if FILE_NAME.fullmatch(name) and name not in names:
            with contextlib.suppress(OSError):
                (folder / name).unlink()


def save(folder, arrays, info):
    """Save a new generation; keep the previous one, remove older ones.

    Raises:
        OSError: the disk is full or read-only; existing generations still load.
    """
    folder.mkdir(exist_ok=True)
    before = _generations(folder)
    _remove_others(folder, before[:KEPT])  # frees what a killed process left
    new = before[0] + 1 if before else 0
    path = folder / f"state-{new}.npz"
    # In memory first: on a full disk, NumPy leaves a zip file behind that complains once its file is closed.
    content = io.BytesIO()
    np.savez(content, **arrays)
    with atomic_write(path) as file:
        file.write(content.getbuffer())
    card = {"format": FORMAT, "sha256": sha256(path), "info_sha256": _info_sha256(info), "info": info}
    with atomic_write(folder / f"state-{new}.json") as file:
        file.write(_encoded(card, indent=2) + b"\n")
    _remove_others(folder, [new] + before[: KEPT - 1])


def load(folder, say):
    """The newest intact generation, as (arrays, info); None if nothing was saved yet.

    Args:
        folder: of states.
        say: tells the user that an older one is used.

    Raises:
        Problem: there are generations, and none can be trusted.
    """
    problems = []
    for number in _generations(folder):
        try:
            state = _load(folder, number)
        except (OSError, Problem) as error:
            problems.append(str(error))
            continue
        for problem in problems:
            say(f"{problem}; continuing from the state saved before it")
        return state
    if problems:
        raise Problem(
            f"{problems[0]}, and no older state can be read; remove {folder} to start over, or bring a copy back"
        )
    return None


def _load(folder, number):
    path = folder / f"state-{number}.json"
    card = read_json(path)
    info = card.get("info") if isinstance(card, dict) else None
    if not isinstance(info, dict) or _info_sha256(info) != card.get("info_sha256"):
        raise Problem(f"{path}: is damaged")
    if card.get("format") != FORMAT:
        raise Problem(f"{path}: has format {card.get('format')}, and this runner knows {FORMAT}")
    path = folder / f"state-{number}.npz"
    if not path.is_file() or sha256(path) != card.get("sha256"):
        raise Problem(f"{path}: is missing or damaged")
    try:
        with np.load(str(path), allow_pickle=False) as archive:
            if sum(entry.file_size for entry in archive.zip.infolist()) > path.stat().st_size:
                raise Problem(f"{path}: is compressed, which no state is")
            return {name: archive[name] for name in archive.files}, info
    except (OSError, Problem):
        raise
    except Exception as error:  # zipfile and numpy raise different exceptions
        raise Problem(f"{path}: is damaged ({type(error).__name__})") from None


class Lines:
    """metrics.jsonl: a line of figures now and then; lines of undone steps are dropped.

    Args:
        path: of the file.
        step: current step.
    """

    def __init__(self, path, step):
        self.path = path
        self.drop_after(step)

    def drop_after(self, step):
        """Drop lines of later steps and torn ones. A full disk is no reason to stop."""
        lines = []
        with contextlib.suppress(OSError):
            for line in self.path.read_bytes().splitlines(True):
                with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                    if json.loads(line.decode("utf-8"))["step"] <= step:
                        lines.append(line.rstrip() + b"\n")
            with atomic_write(self.path) as file:
                file.writelines(lines)

    def add(self, figures):
        """Add a line; on a full disk it is lost."""
        with contextlib.suppress(OSError), open(str(self.path), "ab") as file:
            file.write(json.dumps(figures).encode() + b"\n")
