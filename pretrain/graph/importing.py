"""`mri-transfer import-graph`: turns a board's training into an ordinary run."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any, ClassVar

from mri_transfer import progress
from mri_transfer.errors import UserError
from mri_transfer.machine import device
from mri_transfer.options import argument, option, positive_int, side, whole
from mri_transfer.storage.files import (
    Kind,
    atomic_write,
    claim_folder,
    read_object,
    require_folder,
    sha256,
    write_card,
    write_json,
    wrong_fields,
)
from mri_transfer.storage.sums import write_sums
from mri_transfer.words import counted

REMEDY = "copy the whole folder from the board again"
MODEL = "graph/saved_model.pb"
_TEXT: Kind = (str, type(None))
_NUMBER: Kind = (int, float)
_CARD: dict[str, Kind] = {
    **{"format": int, "backbone": str, "method": str, "size": int, "batch": int, "seed": int, "made_by": str},
    "state": [{"name": str, "shape": [int]}],
    **{
        "encoder": dict[str, str],
        "files": {MODEL: str},
        "positives": (str, dict),
        "start": dict,
        "config": dict,
    },
    **{"slices": {"store": _TEXT, "fingerprint": _TEXT}, "versions": dict},
}
_STATE: dict[str, Kind] = {
    **{"graph": str, "fingerprint": str, "diverged": [int], "finished": bool, "step": int},
    **{"budget": dict[str, int | float], "seconds": _NUMBER, "share": _NUMBER},
    **dict.fromkeys(("rank", "first_loss", "last_loss"), (int, float, type(None))),
    "data": {"store": str, "slices": int, "subjects": int},
    "machine": {"board": _TEXT, **dict.fromkeys(("machine", "python", "tensorflow", "numpy"), str)},
}


@dataclasses.dataclass(frozen=True)
class ImportConfig:
    """What to import."""

    EXAMPLE: ClassVar[str] = """\
example:
  mri-transfer import-graph night --out runs/mri
  mri-transfer compare TUMORS --arm imagenet --arm mri=runs/mri --out report

An unfinished training can be imported as well: the encoder is that of its last save. Import it again later.
"""

    folder: Path = argument(
        metavar="FOLDER",
        help="made by `mri-transfer export --format training-graph`, trained by its runner.py",
    )
    out: Path = option(help="run folder to write", metavar="RUN")


def import_graph(config: ImportConfig) -> dict[str, Any]:
    """Make a run whose encoder `finetune`, `compare` and `--init` accept.

    Returns:
        The summary that is also written to RUN/summary.json.

    Raises:
        UserError: the folder is no training graph, isn't trained yet, is damaged, or has another graph's weights; or
            RUN holds something else.
    """
    device.prepare()
    from mri_transfer.checkpoints.encoders import save_encoder
    from mri_transfer.checkpoints.state import load_state
    from mri_transfer.pretrain.graph.exporting import KIND
    from mri_transfer.pretrain.pretrain import KIND as RUN

    folder, out = require_folder(config.folder, KIND, "export --format training-graph"), config.out
    card = _card(folder)
    saved = load_state(folder / "state")
    if saved is None:
        raise UserError(
            f"{folder}: was not trained yet; on the board: python3 {folder.name}/runner.py STORE --hours 8"
        )
    arrays, info = saved
    _check_state(folder, card, arrays, info)
    encoder = _encoder(card, arrays)
    existing = claim_folder(out, RUN)
    origin = {"graph": info["graph"], "seed": card["seed"]}
    if existing and (not (out / "imported.json").is_file() or read_object(out / "imported.json") != origin):
        raise UserError(f"{out}: holds another run; choose another --out")
    write_card(out / "imported.json", origin)
    budget = info["budget"]
    # Path of the same slices on this machine, so that `compare` can look for tumour images among them.
    store = card["slices"]["store"] if card["slices"]["fingerprint"] == info["fingerprint"] else None
    facts = {
        "config": {**card["config"], **budget, "store": store or info["data"]["store"], "out": str(out)},
        "data": info["data"],
        "versions": {
            **card["versions"],
            **{key: info["machine"][key] for key in ("python", "tensorflow", "numpy")},
        },
    }
    write_card(out / "config.json", facts)
    write_card(out / "start.json", {"backbone": card["backbone"], **card["start"], "precision": "float32"})
    lines = folder / "metrics.jsonl"
    if lines.is_file():
        with atomic_write(out / "metrics.jsonl", "wb") as file, lines.open("rb") as source:
            shutil.copyfileobj(source, file)
    results = {
        "first_loss": info["first_loss"],
        "last_loss": info["last_loss"],
        "effective_rank": info["rank"],
    }
    provenance = {
        "start": card["start"],
        "method": card["method"],
        "pairs": {
            "positives": card["positives"],
            "slices": info["data"]["slices"],
            "subjects": info["data"]["subjects"],
        },
        **facts,
        "seconds": round(info["seconds"], 1),
        "steps": info["step"],
        "metrics": results,
        "trained_on": info["machine"],
        "exported_with": card["versions"],
    }
    save_encoder(
        encoder, out / "encoder", backbone=card["backbone"], size=card["size"], provenance=provenance
    )
    summary = {
        "encoder": str(out / "encoder"),
        "steps": info["step"],
        "training_seconds": round(info["seconds"], 1),
        "views": 2 * card["batch"] * info["step"],
        **results,
        "diverged_at_steps": info["diverged"],
        "finished": info["finished"],
        "trained_on": info["machine"],
        "stopped": None,
    }
    write_json(out / "summary.json", summary)
    if not info["finished"]:
        progress.say(f"the training is not over ({info['share']:.0%} of its budget): this is its last save")
    machine = info["machine"]["board"] or info["machine"]["machine"]
    progress.say(
        f"{counted(info['step'], 'step')} in {info['seconds'] / 60:.1f} min on {machine} with TensorFlow "
        f"{info['machine']['tensorflow']}; the encoder is in {summary['encoder']}"
    )
    write_sums(out)
    return summary


def _card(folder: Path) -> dict[str, Any]:
    """graph.json, after checking that it describes this graph."""
    from mri_transfer.checkpoints.encoders import wrong_in
    from mri_transfer.pretrain.graph.exporting import CARD, FORMAT

    path, fault = folder / CARD, "is not the card of a training graph"
    card = read_object(path, _CARD, fault=fault, remedy=REMEDY)
    if card["format"] != FORMAT:
        raise UserError(
            f"{path}: has format {card['format']}, and this version reads {FORMAT}; update mri-transfer"
        )
    for name, check in (("size", side), ("batch", positive_int), ("seed", whole)):
        try:
            check(str(card[name]))
        except ValueError as error:
            raise UserError(f"{path}: {fault} ({name}: {error}); {REMEDY}") from None
    if wrong := wrong_in({"start": card["start"], "config": card["config"]}):
        raise UserError(f"{path}: {fault} ({', '.join(wrong)}); {REMEDY}")
    model = folder / MODEL
    if not model.is_file() or sha256(model) != card["files"][MODEL]:
        raise UserError(f"{model}: missing, or not the graph that {CARD} describes; {REMEDY}")
    return card


def _check_state(folder: Path, card: dict[str, Any], arrays: dict[str, Any], info: dict[str, Any]) -> None:
    from mri_transfer.storage.arrays import differences, not_finite

    fields = wrong_fields(info, _STATE)
    if not fields and not set(info["budget"]) <= {"hours", "steps"}:  # it goes among the run's settings
        fields = ["budget"]
    if fields:
        raise UserError(f"{folder}: state/ is damaged ({', '.join(fields)}); {REMEDY}")
    shapes = {entry["name"]: tuple(entry["shape"]) for entry in card["state"]}
    wrong = differences(shapes, arrays)
    if wrong or info.get("graph") != card["files"][MODEL]:
        raise UserError(
            f"{folder}: state/ is of another graph than graph/ ({wrong or 'its identity differs'}); {REMEDY}"
        )
    if missing := [key for key in card["encoder"].values() if key not in arrays]:
        raise UserError(
            f"{folder}: its encoder has weights that are not in state/ ({missing[0][:100]}); {REMEDY}"
        )
    if name := not_finite({key: arrays[key] for key in card["encoder"].values()}):
        raise UserError(f"{folder}: state/ holds numbers that are not finite ({name}); {REMEDY}")


def _encoder(card: dict[str, Any], arrays: dict[str, Any]) -> Any:
    """An encoder with the trained weights."""
    from mri_transfer.checkpoints.encoders import Misfit, encoder_with

    weights = {name: arrays[key] for name, key in card["encoder"].items()}
    try:
        return encoder_with(card["backbone"], card["size"], weights)
    except Misfit as differ:
        raise UserError(
            f"the trained weights don't fit {card['backbone']} of this mri-transfer ({differ}); import them with "
            f"the version that exported them, {card['made_by']}"
        ) from None
