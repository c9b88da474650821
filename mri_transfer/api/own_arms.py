"""Arms given as objects: networks and feature tables, written where worker processes can read them."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer.errors import UserError
from mri_transfer.storage.arrays import load_npz, save_npz
from mri_transfer.storage.files import claim_folder

FOLDER = "arms"  # in the comparison's folder
KIND = "comparison"


def as_texts(arms: Any, out: Path) -> tuple[str, ...]:
    """Arms as the command line writes them.

    Args:
        arms: one or several of: an arm as text, a (name, start) pair, a `keras.Model`; or {name: start}. A start is
            text, a path, a `keras.Model`, or features as a pair (files (n,), array (n, d)).
        out: the comparison's folder; anything that isn't text is written there.

    Raises:
        UserError: an arm is something else.
    """
    if isinstance(arms, Mapping):
        arms = list(arms.items())
    elif isinstance(arms, (str, os.PathLike)) or hasattr(arms, "save"):
        arms = [arms]
    if not isinstance(arms, Iterable):
        raise UserError(f"arm={arms!r}: give text, (name, start), or a dictionary of them")
    return tuple(_text(arm, out) for arm in arms)


def _text(arm: Any, out: Path) -> str:
    if isinstance(arm, (str, os.PathLike)):
        return os.fspath(arm)
    name, start = arm if isinstance(arm, tuple) and len(arm) == 2 else (getattr(arm, "name", None), arm)
    if not isinstance(name, str) or not name:
        raise UserError(f"arm={arm!r}: give text, (name, start), or a dictionary of them")
    if isinstance(start, (str, os.PathLike)):
        return f"{name}={os.fspath(start)}"
    file = re.sub(r"[^\w.+-]+", "-", name)
    if hasattr(start, "save"):
        return f"{name}={_network(start, _folder(out) / f'{file}.keras')}"
    if isinstance(start, Iterable) and len(parts := tuple(start)) == 2:
        files, features = parts
        return f"{name}=features:{_table(files, features, _folder(out) / f'{file}.npz', name)}"
    raise UserError(
        f"arm {name}: is {type(start).__name__}; give text, a path, a keras.Model, or (files, features)"
    )


def _folder(out: Path) -> Path:
    claim_folder(out, KIND)
    folder = out / FOLDER
    folder.mkdir(exist_ok=True)
    return folder


def _network(network: Any, path: Path) -> Path:
    """Write a network, unless the same one is already there."""
    fresh = path.with_name(f"new-{path.name}")
    network.save(fresh)
    if path.is_file() and _content(path) == _content(fresh):
        fresh.unlink()
    else:
        fresh.replace(path)
    return path


def _content(path: Path) -> list[tuple[str, int]]:
    with zipfile.ZipFile(path) as archive:
        return [
            (entry.filename, entry.CRC) for entry in archive.infolist() if entry.filename != "metadata.json"
        ]


def _table(files: Any, features: Any, path: Path, name: str) -> Path:
    arrays = {"files": np.array([os.fspath(file) for file in files]), "features": np.asarray(features)}
    if arrays["features"].dtype.kind not in "fiu":
        raise UserError(f"arm {name}: its features are {arrays['features'].dtype}, not numbers")
    try:
        before = load_npz(path)
        same = before.keys() == arrays.keys() and all(
            np.array_equal(before[key], arrays[key]) for key in arrays
        )
    except ValueError:  # not there yet
        same = False
    if not same:
        save_npz(path, arrays)
    return path
