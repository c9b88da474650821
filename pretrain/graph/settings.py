"""The pretraining a graph is exported for: options, and the run's settings for the rest."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.errors import UserError
from mri_transfer.options import as_dict, configure
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.pretrain.methods import METHOD_OPTIONS, METHODS
from mri_transfer.pretrain.pairs.positives import mixture

if TYPE_CHECKING:
    from mri_transfer.export import ExportConfig

# Irrelevant on the board.
_LEFT_OUT = ("out", "store", "preview", "banner")


def settings_of(config: ExportConfig) -> tuple[PretrainConfig, dict[str, Any]]:
    """The pretraining with its backbone and size, and facts about the slices.

    Returns:
        The settings, and {"size": side of slices in pixels, "store", "fingerprint": the store's, or None}.

    Raises:
        UserError: no such run or store, settings that `pretrain` or the board's runner doesn't support, or unknown size
            of slices.
    """
    from mri_transfer.checkpoints.encoders import read_card
    from mri_transfer.pretrain.run.continuing import backbone_of

    options: dict[str, Any] = {}
    path = config.store
    if config.run is not None:
        card = read_card(config.run)
        provenance = card["provenance"]
        before = (provenance.get("config") or {}) if provenance.get("method") in METHODS else {}
        same_method = config.method in (None, before.get("method"))
        names = {field.name for field in dataclasses.fields(config) if field.metadata.get("of_run")}
        names -= set() if same_method else set(METHOD_OPTIONS)
        options = {name: before[name] for name in names if before.get(name) is not None}
        options |= {"init": str(config.run), "size": card["size"], "backbone": card["backbone"]}
        if path is None and before.get("store") and Path(before["store"]).is_dir():
            path = Path(before["store"])
    options |= config.pretrain_options
    store = SliceStore.open(path) if path is not None else None
    side = store.size if store else options.get("size")
    if side is None:
        raise UserError("the size of the slices is not known: give --store STORE, or --size PX")
    values = {"store": path or Path(), "out": config.out, "size": side, "precision": "float32", **options}
    try:
        settings = configure(PretrainConfig, (), values)
    except UserError as error:
        raise UserError(f"{config.run}: {error}" if config.run else str(error)) from None
    if "sequence" in mixture(settings.positives):
        raise UserError(
            "--positives sequence: the runner on the board draws adjacent slices and the same ones; give "
            "--positives adjacent"
        )
    if METHODS[settings.method].free_labels:
        raise UserError(
            f"--method {settings.method}: the runner on the board knows neither plane nor position of its slices; "
            "choose another method, such as simclr"
        )
    slices = {
        "size": side,
        "store": str(store.folder.resolve()) if store else None,
        "fingerprint": store.fingerprint if store else None,
    }
    return dataclasses.replace(settings, backbone=backbone_of(settings)), slices


def as_options(settings: PretrainConfig) -> dict[str, Any]:
    """The settings for graph.json."""
    return {key: value for key, value in as_dict(settings).items() if key not in _LEFT_OUT}
