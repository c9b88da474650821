"""Finished trials on disk: one file each, named by a hash of everything that could change its numbers.

An interrupted comparison finds its finished trials, a new arm adds only its own, and a changed setting can't be
mistaken for the old one. Files are written atomically and checked when read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from mri_transfer.storage.arrays import Shape, check_shapes, load_npz, save_npz
from mri_transfer.storage.files import Kind, parse_json, to_json, wrong_fields

FORMAT = 1
_NUMBER: Kind = (int, float)
_NUMBER_OR_NONE: Kind = (int, float, type(None))
ROUNDING = 1e-4  # of probabilities in float32
_DETAILS: dict[str, Kind] = {  # read by reports, if present
    **{"seconds": _NUMBER, "strength": _NUMBER, "temperature": _NUMBER, "rate": _NUMBER, "epochs": int},
    **{"diverged": bool, "losses": [_NUMBER_OR_NONE], "inner": [{"log_loss": _NUMBER_OR_NONE}]},
    **dict.fromkeys(("uncalibrated", "calibrated"), dict[str, int | float]),
}


@dataclasses.dataclass(frozen=True)
class Trial:
    """One arm trained and tested on one split.

    Attributes:
        identity: everything that determines the numbers, as plain JSON values.
        test: (m,) int64 indices of the test images.
        probabilities: (m, classes) float32 of the test images.
        details: choices and costs (chosen C, seconds, ...).
    """

    identity: dict[str, Any]
    test: np.ndarray
    probabilities: np.ndarray
    details: dict[str, Any]


def canonical(identity: dict[str, Any]) -> str:
    """The identity as JSON with sorted keys: equal settings give equal text."""
    return json.dumps(json.loads(to_json({"format": FORMAT, **identity})), sort_keys=True, ensure_ascii=False)


def trial_key(identity: dict[str, Any]) -> str:
    """Hexadecimal SHA-256 of the canonical identity."""
    return hashlib.sha256(canonical(identity).encode()).hexdigest()


def _content_digest(test: np.ndarray, probabilities: np.ndarray, texts: tuple[str, str]) -> str:
    digest = hashlib.sha256(
        np.ascontiguousarray(test).tobytes() + np.ascontiguousarray(probabilities).tobytes()
    )
    digest.update("\0".join(texts).encode())
    return digest.hexdigest()


class TrialStore:
    """The `trials/` folder of a comparison.

    Args:
        folder: made if it does not exist.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.folder.mkdir(exist_ok=True)
        self.damaged: list[str] = []

    def path(self, identity: dict[str, Any]) -> Path:
        """The trial's path: readable words first, then the key."""
        words = [str(identity.get(word, "")) for word in ("mode", "split", "fraction", "seed", "fold")]
        readable = re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(words)).strip("-")
        return self.folder / f"{readable}-{trial_key(identity)[:16]}.npz"

    def load(self, identity: dict[str, Any], classes: int | None = None) -> Trial | None:
        """The finished trial, or None.

        Args:
            identity: what determines its numbers.
            classes: their number, if known.

        A file that is damaged or has another format version or other settings is noted in `damaged` and counts as
        absent, so that the trial is redone and the file replaced.
        """
        path = self.path(identity)
        if not path.exists():
            return None
        try:
            file = load_npz(path)
            test, probabilities = file["test"], file["probabilities"]
            texts = (str(file["identity"]), str(file["details"]))
            digest = str(file["sha256"])
            if digest != _content_digest(test, probabilities, texts):
                raise ValueError("its content does not match its checksum")
            if texts[0] != canonical(identity):
                raise ValueError("it belongs to other settings")
            shape: Shape = ("images", "classes" if classes is None else classes)
            check_shapes(file, {"test": ("i", ("images",)), "probabilities": ("f", shape)})
            if not ((probabilities >= 0) & (probabilities <= 1 + ROUNDING)).all():
                raise ValueError("its probabilities are not between 0 and 1")
            details = parse_json(texts[1])
            if wrong_fields(details, {}, _DETAILS):
                raise ValueError("its details are of the wrong kind")
            return Trial(identity, test, probabilities, details)
        except (ValueError, KeyError) as error:
            self.damaged.append(f"{path}: {error}")
            return None

    def save(self, trial: Trial) -> Path:
        """Write a finished trial, atomically."""
        path = self.path(trial.identity)
        test = np.asarray(trial.test, np.int64)
        probabilities = np.asarray(trial.probabilities, np.float32)
        texts = (canonical(trial.identity), to_json(trial.details, indent=None))
        digest = _content_digest(test, probabilities, texts)
        metadata = {"identity": texts[0], "details": texts[1], "sha256": digest}
        save_npz(
            path,
            {"test": test, "probabilities": probabilities}
            | {name: np.array(text) for name, text in metadata.items()},
        )
        return path
