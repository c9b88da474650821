"""Does the folder hold this run? A run continues with the settings it began with, or not at all."""

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

# Settings that may change when a run continues: none affects the numbers. (The number of processes sharing a batch only
# changes the order of summation.)
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
    """Whether a run has its starting weights: before that, its settings may still change."""
    has_run = (out / "state").is_dir() or (out / "summary.json").is_file()
    return has_run and (out / "start.json").is_file()  # other folders have a summary too


def backbone_of(config: PretrainConfig) -> str:
    """The network: as given, or the starting run's, or the default.

    Raises:
        UserError: no such backbone or run, or the starting run has another one.
    """
    if has_begun(config.out):  # its starting run may be gone
        return read_object(config.out / "start.json", {"backbone": str})["backbone"]
    return Initialisation.read(config.init, config.backbone).backbone


def check_same_run(config: PretrainConfig, store: SliceStore) -> dict[str, Any]:
    """Refuse to continue with other settings: no command line would describe such a run.

    Returns:
        The run folder's config.json: "config", "data" and "versions".

    Raises:
        UserError: the folder's run has other settings or other slices.
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
