"""Encoders on disk: weights, configuration and where they come from.

    FOLDER/encoder.json          the card: backbone, size, how to use it, provenance, SHA-256 of the weights
    FOLDER/encoder-1a2b3c4d.npz  the weights, named after their content

The weights are complete before the card naming them is swapped in, and old weights are removed only afterwards, so a
process killed at any instant leaves a loadable encoder, old or new.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mri_transfer.checkpoints.backbones import build_encoder, check_backbone, named_weights
from mri_transfer.errors import UserError
from mri_transfer.options import LARGEST_SIDE
from mri_transfer.storage.arrays import differences, not_finite, read_arrays, write_arrays
from mri_transfer.storage.files import Kind, finite, read_object, write_card, wrong_fields

FORMAT = 1
CARD = "encoder.json"
FOLDER = "encoder"  # a run folder keeps its encoder in this subfolder
WEIGHTS_NAME = re.compile(r"encoder-[0-9a-f]{8}\.npz")
_TEXT: Kind = (str, type(None))
_OBJECT: Kind = (dict, type(None))
_OF_PROVENANCE: dict[str, Kind] = {
    **dict.fromkeys(("method", "init"), _TEXT),
    **dict.fromkeys(
        ("config", "data", "start", "pairs", "metrics", "versions", "recipe", "published"), _OBJECT
    ),
    **{"seconds": (int, float, type(None)), "steps": (int, type(None))},
}
_OF_CONFIG: dict[str, Kind] = dict.fromkeys(("store", "tumors", "out", "init"), _TEXT)
_OF_START: dict[str, Kind] = {"init": _TEXT, "source": _TEXT, "backbone": _TEXT, "scale_of": _OBJECT}
REMEDY = "copy it again from where it came, or make it again with `mri-transfer pretrain`"
USE = (
    "Feed (batch, height, width, 1), grey values 0..255 of any number type, not normalised: preprocessing is "
    "inside. Out come (batch, {features}) float32 features, averaged over the last feature map. Trained at "
    "{size} px; other sizes work. Load with mri_transfer.checkpoints.encoders.load_encoder(FOLDER)."
)


def _as_stored(variable: Any) -> np.ndarray:
    """float32 for every real number, so that an encoder trained in any precision loads in any other."""
    array = keras.ops.convert_to_numpy(variable)
    return array if array.dtype.kind in "iub" else np.asarray(array, "float32")


def encoder_arrays(model: keras.Model) -> dict[str, np.ndarray]:
    """Copies of an encoder's weights by name, so training can continue while they are written."""
    return {name: np.array(_as_stored(variable)) for name, variable in named_weights(model).items()}


def save_encoder(
    model: keras.Model,
    folder: Path,
    *,
    backbone: str,
    size: int,
    provenance: dict[str, Any],
    arrays: dict[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Write an encoder atomically, replacing any existing one.

    Args:
        model: from :func:`~mri_transfer.checkpoints.backbones.build_encoder`, trained or not.
        folder: created if missing. A run passes RUN/encoder.
        backbone: the model's backbone.
        size: height and width it was trained at, pixels.
        provenance: what made it: start, method, data, seconds, steps, versions, metrics, config.
        arrays: weights to write instead of the model's current ones, from :func:`encoder_arrays`.

    Returns:
        The card, as :func:`read_card` returns it.

    Raises:
        OSError: the disk is full or read-only; the previous encoder still loads.
    """
    check_backbone(backbone)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(UserError):  # no card yet, or a damaged one about to be replaced
        _remove_stale(folder, read_card(folder)["weights"])  # leftovers of a killed process take up space
    fresh = folder / "encoder-new.npz"
    digest = write_arrays(fresh, encoder_arrays(model) if arrays is None else arrays)
    weights = folder / f"encoder-{digest[:8]}.npz"
    fresh.replace(weights)
    features = int(model.output_shape[-1])
    card = {
        "format": FORMAT,
        "backbone": backbone,
        "size": int(size),
        "features": features,
        "use": USE.format(features=features, size=size),
        "weights": weights.name,
        "weights_sha256": digest,
        "provenance": finite(provenance),
    }
    write_card(folder / CARD, card)
    _remove_stale(folder, weights.name)
    return read_card(folder)


def _remove_stale(folder: Path, weights: str) -> None:
    """Remove weights no card names, and half-written files left by a killed process."""
    for path in folder.iterdir():
        stale = path.name.startswith("encoder") and path.name.endswith((".npz", ".part"))
        if stale and path.name != weights:
            path.unlink(missing_ok=True)


def _locate(path: Path) -> Path:
    """The folder with the card: the path itself or the run's subfolder."""
    path = Path(path)
    for folder in (path, path / FOLDER):
        if (folder / CARD).is_file():
            return folder
    if not path.exists():
        raise UserError(f"{path}: no such folder; name a run of `mri-transfer pretrain`")
    raise UserError(
        f"{path}: holds no encoder ({CARD}); name a run of `mri-transfer pretrain` that has saved one"
    )


def read_card(folder: Path) -> dict[str, Any]:
    """The card of an encoder folder or of a run folder that holds one.

    Raises:
        UserError: it is missing, damaged, or was written by a newer program.
    """
    path = _locate(folder) / CARD
    kinds = {
        "format": int,
        "backbone": str,
        "size": int,
        "weights": str,
        "weights_sha256": str,
        "provenance": dict,
    }
    fault = "is not the card of an encoder"
    card = read_object(path, kinds, newest=FORMAT, fault=fault, remedy=REMEDY)
    if wrong := wrong_in(card["provenance"]):
        raise UserError(f"{path}: {fault} (provenance: {', '.join(wrong)}); {REMEDY}")
    if not WEIGHTS_NAME.fullmatch(card["weights"]) or not 0 < card["size"] <= LARGEST_SIDE:
        raise UserError(f"{path}: {fault} (weights or size); {REMEDY}")
    return card


def wrong_in(provenance: Any) -> list[str]:
    """Fields of a provenance, or of its starts' provenances, whose type is not what readers expect."""
    while provenance:
        if wrong := wrong_fields(provenance, {}, _OF_PROVENANCE) or wrong_fields(
            provenance.get("config") or {}, {}, _OF_CONFIG
        ):
            return wrong
        start = provenance.get("start") or {}
        if wrong := wrong_fields(start, {}, _OF_START):
            return [f"start: {', '.join(wrong)}"]
        provenance = start.get("provenance")
        if provenance is not None and not isinstance(provenance, dict):
            return ["start"]
    return []


def load_encoder(folder: Path, size: int | None = None) -> keras.Model:
    """The encoder of an encoder folder or run folder, its content verified; see :func:`read_encoder`."""
    return read_encoder(folder, size)[0]


def read_encoder(folder: Path, size: int | None = None) -> tuple[keras.Model, dict[str, Any]]:
    """An encoder, its content verified, with the card for exactly these weights.

    Args:
        folder: the folder, or the run that holds it.
        size: height and width of the input in pixels; None for the size it was trained at.

    Raises:
        UserError: it is missing, a byte has changed, or its weights don't fit its backbone; the message says what
            differs.
    """
    card, arrays = _read(_locate(folder))
    if name := not_finite(arrays):
        raise UserError(
            f"{_locate(folder) / card['weights']}: holds numbers that are not finite ({name}); {REMEDY}"
        )
    try:
        check_backbone(card["backbone"])
    except UserError as error:
        raise UserError(f"{folder}: {error}, or use the versions named in its {CARD}") from None
    try:
        return encoder_with(card["backbone"], size or card["size"], arrays), card
    except Misfit as differ:
        raise UserError(
            f"{folder}: its weights don't fit {card['backbone']} of this mri-transfer and Keras "
            f"{keras.__version__} ({differ}); use the versions named in its {CARD}, or pretrain again"
        ) from None


class Misfit(Exception):
    """The weights don't fit the backbone; the message says what differs."""


def encoder_with(backbone: str, size: int, arrays: Mapping[str, np.ndarray]) -> keras.Model:
    """An encoder with the given weights, by the names of :func:`~.backbones.named_weights`.

    Raises:
        Misfit: names or shapes differ from the backbone's.
    """
    model = build_encoder(backbone, size)
    variables = named_weights(model)
    if differ := differences({name: tuple(variable.shape) for name, variable in variables.items()}, arrays):
        raise Misfit(differ)
    for name, variable in variables.items():
        variable.assign(arrays[name].astype(variable.dtype))
    return model


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Card and weights that belong together, even while a running pretraining replaces both."""
    while True:
        card = read_card(folder)
        try:
            return card, read_arrays(folder / card["weights"], card["weights_sha256"], REMEDY)
        except UserError:
            if read_card(folder)["weights_sha256"] == card["weights_sha256"]:
                raise
