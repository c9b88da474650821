"""Is this the run that the folder holds? A run is continued with the settings it was begun with, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mri_transfer.checkpoints.initialisation import Initialisation
from mri_transfer.datasets.store.store import SliceStore
from mri_transfer.errors import UserError
from mri_transfer.machine import device
from mri_transfer.options import as_dict
from mri_transfer.pretrain.config import PretrainConfig
from mri_transfer.storage.files import read_object, write_card

# What a run may change when it is continued: none of it touches the numbers. (How many processes share a batch only
# changes the order in which they are added up.)
FREE_TO_CHANGE = {
    "store",
    "out",
    "save_minutes",
    "memory",
    "keep_going",
    "banner",
    "preview",
    "imagenet_weights",
    "coordinator",
    "processes",
    "process",
}


def has_begun(out: Path) -> bool:
    """Whether a run's weights have been started from: before that its settings may still change."""
    has_run = (out / "state").is_dir() or (out / "summary.json").is_file()
    return has_run and (out / "start.json").is_file()  # other kinds of folder have a summary too


def backbone_of(config: PretrainConfig) -> str:
    """The network: as given, or that of the run to start from, or the default.

    Raises:
        UserError: no such backbone or run, or the run to start from has another one.
    """
    if has_begun(config.out):  # the run it started from may be gone
        return read_object(config.out / "start.json", {"backbone": str})["backbone"]
    return Initialisation.read(config.init, config.backbone).backbone


def check_same_run(config: PretrainConfig, store: SliceStore) -> dict[str, Any]:
    """Continuing with other settings would give a run that no command line describes.

    Returns:
        What the run folder's config.json says: "config", "data" and "versions".

    Raises:
        UserError: the folder holds a run with other settings or other slices.
    """
    file = config.out / "config.json"
    data = {
        "store": str(Path(config.store).resolve()),
        "fingerprint": store.fingerprint,
        "slices": len(store),
        "subjects": len(set(store.table["subject"].tolist())),
    }
    if not (file.is_file() and has_begun(config.out)):
        facts = {"config": as_dict(config), "data": data, "versions": device.versions()}
        write_card(file, facts)
        return facts
    before = read_object(file, {"config": dict, "data": dict})
    settings = as_dict(config)
    changed = [
        f"--{name.replace('_', '-')} was {before['config'].get(name)}, is {settings[name]}"
        for name in settings
        if name not in FREE_TO_CHANGE and before["config"].get(name) != settings[name]
    ]
    if before["data"].get("fingerprint") != data["fingerprint"]:
        changed.append("the slice store has other content")
    if changed:
        raise UserError(
            f"{config.out}: holds a run with other settings ({'; '.join(changed)}); choose another --out"
        )
    return before
